"""Fixtures shared by the tests; shared functions are in ``helpers``."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers import IDS, MOS, SMALL_BUNDLE, DataRoot, Quiet, Ran, stopping_engine, write_annotations
from saiqa import facts

# So that its assertions show their values, as in a test file.
pytest.register_assert_rewrite("reference_cases")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that they do not keep one process busy at the end."""
    items.sort(key=lambda item: "/training/" not in str(item.path))


@pytest.fixture
def run_main(capsys, monkeypatch) -> Callable[..., Ran]:
    """Run a command in this process: the same ``run(main)`` as the script's last line, without starting Python."""
    from saiqa.cli import console

    def run(script: str, *args: str | Path) -> Ran:
        module = __import__(script.removesuffix(".py"))
        monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
        capsys.readouterr()
        code = console.run(module.main, list(map(str, args)))
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def make_data_root(tmp_path) -> Callable[..., DataRoot]:
    """Build a data root: ``make_data_root(dimensions, ids, mos, name)``."""
    from PIL import Image

    def make(
        dimensions: Sequence[str] = tuple(facts.DIMENSIONS),
        ids: Sequence[str] = tuple(IDS),
        mos: Sequence[str] = tuple(MOS),
        name: str = "SA-BENCH",
    ) -> DataRoot:
        root = DataRoot(tmp_path / name, tmp_path / "results", list(ids))
        for number, dimension in enumerate(dimensions):
            for i, image_id in enumerate(ids):
                path = root.image(dimension, image_id)
                path.parent.mkdir(parents=True, exist_ok=True)
                colour = (37 * i % 256, 91 * number + 11 * i % 256, 200 - 30 * number)
                Image.new("RGB", (64 + 8 * i, 48), colour).save(path)
            write_annotations(root, dimension, ids, mos)
        return root

    return make


@pytest.fixture
def stop_after(monkeypatch):
    """Make the engine stop in the middle of its work: ``stop_after(2, KeyboardInterrupt)``."""

    from saiqa import engines

    def install(calls: int, error: type[BaseException]):
        monkeypatch.setattr(sys.modules[__name__], "Stopping", stopping_engine(calls, error), raising=False)
        monkeypatch.setitem(engines.ENGINES, "prefill", f"{__name__}:Stopping")

    yield install
    monkeypatch.undo()


@pytest.fixture(scope="module")
def scorer():
    """The small bundle's scorer, loaded once per test file."""
    from saiqa import Scorer

    return Scorer(SMALL_BUNDLE, device="cpu")


@pytest.fixture
def served(tmp_path):
    """The address of a server on loopback whose root is ``tmp_path``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
