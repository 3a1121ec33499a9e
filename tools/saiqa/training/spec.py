"""What the launcher passes to the training processes: one JSON file. Imports no torch."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

SPEC_VARIABLE = "SAIQA_TRAINING"
GLOO_VARIABLE = "SAIQA_GLOO_FIRST"  # set if the process group must exist before the model is loaded
CALLBACK = "saiqa"  # its name with ms-swift
PROGRESS_FILE = "progress.jsonl"


@dataclass(frozen=True)
class Spec:
    """How to validate.

    Attributes:
        base: the base model as ms-swift sees it.
        validation: the file of examples to validate on; empty for none.
        system: system prompt.
        min_pixels, max_pixels: bounds on the pixels of an image.
        batch_size: examples per forward pass.
    """

    base: str
    validation: str
    system: str
    min_pixels: int
    max_pixels: int
    batch_size: int

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def of_environment(cls) -> Spec:
        """Read the file named by ``SPEC_VARIABLE``."""
        return cls(**json.loads(Path(os.environ[SPEC_VARIABLE]).read_text(encoding="utf-8")))
