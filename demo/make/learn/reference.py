"""Scores of the demo's test rooms by its checkpoint: the reference set of ``score_images.py --reference demo``."""

from __future__ import annotations

import os

from saiqa import Scorer, facts
from saiqa.files import checkpoint_folders, csv_files, folders
from saiqa.run.record import write_run_record

DIGITS = 4


def main() -> None:
    """Score them and write the table, with a record of the checkpoint next to it."""
    scorer = Scorer(demo=True, dtype="float32")
    table = folders.demo_folder() / facts.REFERENCE_NAME
    columns = ["image", *facts.DIMENSIONS, "overall"]
    rows = (
        {
            "image": os.path.relpath(result.name, table.parent),
            **{name: f"{value:.{DIGITS}f}" for name, value in result.scores.items()},
            "overall": f"{result.overall:.{DIGITS}f}",
        }
        for result in scorer.score(folders.demo_test_rooms(), progress=True)
    )
    csv_files.write_csv(table, columns, rows)
    write_run_record(table, {"identity": {"model": checkpoint_folders.fingerprint(scorer.model.checkpoint)}})


if __name__ == "__main__":
    main()
