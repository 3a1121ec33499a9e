"""How the scores of a result were made: the record stored beside it as ``NAME.run.json``."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from saiqa.pictures.results import Layout
from saiqa.run.record import package_versions
from saiqa.run.run import Run
from saiqa.scorer import Scorer


def run_record(this: Run, scorer: Scorer, layout: Layout, failed: Sequence[tuple[str, str]], notes: Counter[str]) -> dict:
    """How a result was made, as JSON values."""
    named = sum(1 for _ in this.images())
    return {
        "model_path": str(scorer.model.checkpoint.resolve()),
        "dimensions": list(layout.dimensions),
        "prompt_source": scorer.prompt_source,
        "prompts": {
            name: {"query": scorer.sentences[name].query, "answer_prefix": scorer.sentences[name].before}
            for name in layout.dimensions
        },
        "system": scorer.model.system or None,
        "weights": layout.weights,
        **this.log.header,
        "packages": package_versions(),
        "images": named + this.log.others,
        "n": named - len(failed),
        "failed": [{"image": image, "reason": reason} for image, reason in failed],
        "notes": notes,
        "command": shlex.join(sys.argv),
    }


def prompt_hash(scorer: Scorer, layout: Layout) -> str:
    """A digest of the prompts: 64 hexadecimal digits."""
    asked = [(name, scorer.sentences[name].query, scorer.sentences[name].before) for name in layout.dimensions]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def in_words(record: Mapping[str, Any]) -> dict[str, str]:
    """How the scores were made, for a page: without local folders."""
    engine = record["engine"]
    packages = record["packages"]
    return {
        "checkpoint": f"{PurePath(record['model_path']).name}, {record['identity']['model'][:16]}",
        "engine": f"{engine['engine']}, {engine['dtype']} on {engine['device']}",
        "pixels": f"{engine['min_pixels']} to {engine['max_pixels']}",
        "system prompt": record["system"] or "none",
        "pictures": f"{record['images']}, without a score: {len(record['failed'])}",
        "versions": ", ".join(f"{name} {version}" for name, version in packages.items()),
    }
