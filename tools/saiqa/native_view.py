"""A checkpoint folder as libraries must see it to load the native model.

A released bundle names Python files of its own in config.json (``auto_map``), and ms-swift trusts remote code always. A view
is a folder of links to the bundle's files without those Python files and with a config.json that names none.
"""

from __future__ import annotations

import json
from pathlib import Path


def make_native_view(bundle: str | Path, view: str | Path) -> Path:
    """Fill the empty or absent folder ``view`` with links to the data files of ``bundle``; returns it."""
    bundle, view = Path(bundle).resolve(), Path(view)
    view.mkdir(parents=True, exist_ok=True)
    for file in bundle.iterdir():
        if file.is_file() and file.suffix != ".py" and file.name != "config.json":
            (view / file.name).symlink_to(file)
    config = json.loads((bundle / "config.json").read_text())
    config.pop("auto_map", None)
    (view / "config.json").write_text(json.dumps(config, indent=2))
    return view
