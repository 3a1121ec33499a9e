"""From the flags of ``infer.py`` to jobs: one dimension with all its files. Only looks at names; opens no files."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path

from saiqa import facts
from saiqa.cli.console import names_of
from saiqa.errors import OR_DEMO, UsageError
from saiqa.files import checkpoint_folders, folders
from saiqa.files.job_files import Job
from saiqa.files.places import Place

ALL = "all"
TEST = "test"
SPLITS = (TEST, "val", "train")

# Flags that name a file for a single dimension.
_INPUT_FLAGS = ("test_jsonl", "input_csv")
FILE_FLAGS = (*_INPUT_FLAGS, "output_jsonl", "output_csv")


def model_path(args: Namespace) -> Path:
    """The checkpoint folder: as typed, else the one tuned on the prompt version."""
    if args.model_path:
        return folders.input_path(args.model_path)
    return folders.roots(args.demo).models / facts.tuned_model(args.prompt_version)


def add_dimension(add: Callable[..., object], default: str) -> None:
    """The flag ``--dimension``; ``add`` is the ``add_argument`` of a group."""
    what = f"{', '.join(facts.DIMENSIONS)} or {ALL}; several: comma-separated or repeated; default: {default}"
    add("--dimension", type=_names, action="extend", metavar="NAME", help=what)


def _names(text: str) -> list[str]:
    names = names_of(text)
    unknown = [name for name in names if name not in (*facts.DIMENSIONS, ALL)]
    if unknown or not names:
        raise ArgumentTypeError(f"{text!r} is not among {', '.join((*facts.DIMENSIONS, ALL))}")
    return names


def chosen_dimensions(args: Namespace) -> list[str]:
    """The dimensions given with ``--dimension``, in their usual order; empty if it is not given."""
    named = args.dimension or ()
    return [name for name in facts.DIMENSIONS if name in named or ALL in named]


def data_root(args: Namespace) -> Place:
    """The benchmark folder: as typed, else the default or the demo's. It is not checked whether it exists."""
    return folders.data_path(args.data_root) if args.data_root else folders.roots(args.demo).data


def named_pictures(args: Namespace) -> list[str]:
    """The pictures given, else with ``--demo`` the demo's rooms. Raises ``UsageError`` if there are neither."""
    if not args.paths and not args.demo:
        raise UsageError("no pictures given", f"Name files, folders or lists{OR_DEMO}")
    return args.paths or [os.path.relpath(room) for room in folders.demo_rooms()]


def make_jobs(args: Namespace) -> list[Job]:
    """The jobs that the flags ask for, in the order of the dimensions.

    Raises:
        UsageError: the dimension is unknown, a file of one dimension is given for several, or an output is also an input.
    """
    jobs = [_job(args, dimension) for dimension in dimensions(args)]
    for job in jobs:
        _check_apart(job)
    return jobs


def dimensions(args: Namespace) -> list[str]:
    """The dimensions asked for: from ``--dimension``, else from the names of the input files, else all."""
    given = [flag for flag in FILE_FLAGS if getattr(args, flag)]
    chosen = chosen_dimensions(args)
    if len(chosen) == 1 or not given:
        return chosen or list(facts.DIMENSIONS)
    if chosen:
        raise UsageError(f"--{given[0]} names a file for one dimension", "Give a single --dimension")
    named = {folders.dimension_in_name(getattr(args, flag)) for flag in given if flag in _INPUT_FLAGS} - {None}
    if len(named) == 1:
        return [name for name in named if name]
    untold = f"the file name of --{given[0]} does not start with a dimension"
    why = "the file names are for different dimensions" if named else untold
    raise UsageError(why, f"Add --dimension, one of {', '.join(facts.DIMENSIONS)}")


def _job(args: Namespace, dimension: str) -> Job:
    data = data_root(args)
    results = (
        folders.output_path(args.results_dir) if args.results_dir else default_results(folders.roots(args.demo), args.split)
    )
    name = checkpoint_folders.model_name(model_path(args))

    def given_input(text: str | None, default: Place) -> Place:
        return folders.data_path(text) if text else default

    def output(text: str | None, suffix: str) -> Path:
        default = results / facts.result_name(dimension, args.prompt_version, name, suffix)
        return folders.output_path(text) if text else folders.limited(default, args.limit)

    questions = folders.annotation_jsonl(data, dimension, args.split, args.prompt_version)
    return Job(
        dimension=dimension,
        version=args.prompt_version,
        data_root=data,
        test_jsonl=given_input(args.test_jsonl, questions),
        output_jsonl=output(args.output_jsonl, ".jsonl"),
        input_csv=given_input(args.input_csv, folders.annotation_csv(data, dimension, args.split)),
        output_csv=output(args.output_csv, ".csv"),
        gt_column=(args.gt_column or facts.MOS_COLUMN).replace("{dimension}", dimension),
        limit=args.limit,
    )


def default_results(roots: folders.Roots, split: str) -> Path:
    """The results folder of a split; the test split uses the release's folder."""
    return roots.results if split == TEST else roots.results / split


def _check_apart(job: Job) -> None:
    """Refuse to overwrite an input, or to write two outputs to the same file."""
    files = [job.test_jsonl, job.input_csv, job.output_jsonl, job.output_csv]
    if len({path.resolve() for path in files}) < len(files):
        raise UsageError("two of the files read and written are the same", "Give other --output_jsonl and --output_csv")
