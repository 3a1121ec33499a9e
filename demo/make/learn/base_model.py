"""Builds the demo's small base model: the released architecture in miniature, pretrained.

The vision tower is pretrained on the train split and on practice rooms; test images and series are never read. It learns to
predict the labels of ``labels.py`` for every place of a picture, and the quality of the picture, both from the tower's output
and from the visual embeddings that the language model will read. Then the language model learns to answer the prompts about
practice rooms. ``tools/train_sft.sh --demo`` continues from there with the ratings of the train split.

    python -m make.learn.base_model [--output DIR] [--data_root DIR] [--practice DIR] [--labels DIR] [--steps N]
        [--reading_steps N] [--held_out N]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # drawing and training share the cores: no long spinning

import torch

from make.learn.lessons import Pretraining
from make.learn.miniature import PROCESSOR, new_model, small_tokenizer
from make.learn.room_data import read_rooms
from make.learn.teaching import pretrain, teach_reading
from make.render import render_rooms
from saiqa import facts
from saiqa.files import folders

FOLDER = Path(__file__).resolve().parents[2]  # demo/
STEPS, READING_STEPS = 12_000, 1500


def main() -> None:
    demo = folders.roots(demo=True)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=demo.models / facts.DEMO_BASE_MODEL_FOLDER)
    parser.add_argument("--data_root", type=Path, default=demo.data)
    parser.add_argument("--practice", type=Path, default=FOLDER / render_rooms.PRACTICE)
    parser.add_argument("--labels", type=Path, default=FOLDER / "labels")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--reading_steps", type=int, default=READING_STEPS)
    parser.add_argument("--held_out", type=int, default=0, help="train pictures per dimension to hold out for evaluation")
    arguments = parser.parse_args()

    if shutil.which("g++") is None:
        raise SystemExit("g++ is not installed; torch.compile needs it for the vision tower")
    torch.set_num_threads(os.cpu_count() or 1)  # the workers that draw pictures use one each
    tokenizer = small_tokenizer()
    model = new_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", file=sys.stderr)
    rooms = read_rooms(arguments.data_root, arguments.practice, arguments.labels, arguments.held_out)
    training = Pretraining(model, rooms)
    training.compile()
    pretrain(training, arguments.steps)
    teach_reading(training, tokenizer, arguments.reading_steps)
    # It is only a starting point for training, for which bfloat16 is enough.
    model.to(torch.bfloat16).save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    PROCESSOR.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
