"""The run itself: ``swift sft`` under supervision, its progress, and the checkpoint made from what it saved."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from saiqa import errors
from saiqa.cli import console
from saiqa.files import folders
from saiqa.files.checkpoint_folders import step_number
from saiqa.progress import Progress
from saiqa.training import curves, runs, supervise
from saiqa.training.checkpoints import (
    CURVES_FILE,
    best_step,
    drop_states,
    install,
    is_trained,
    promote,
    remove_broken,
    steps_of,
)
from saiqa.training.inputs import Inputs
from saiqa.training.options import is_full
from saiqa.training.plan import Run
from saiqa.training.spec import PROGRESS_FILE

_LOOK_EVERY_SECONDS = 0.2
_SHOWN_LINES = 15  # of the log of a failed run
_SHOWN_BYTES = 20_000
_MERGED = ".merged"  # folder of a checkpoint with merged adapters
_FOR_TORCHRUN = ("NPROC_PER_NODE", "NNODES", "NODE_RANK")  # if one of these is set, ms-swift starts torchrun


class Work:
    """One run, from its inputs to its checkpoint.

    Args:
        run: plan and folder.
        inputs: the training inputs.
        record: the content of ``training.json``.
        output: receives messages.
    """

    def __init__(self, run: Run, inputs: Inputs, record: dict[str, Any], output: console.Output):
        self._run, self._inputs, self._record, self._output = run, inputs, record, output
        self._folder = run.folder
        self._first = run.plan.nodes.rank == 0
        self._log = run.folder / (runs.LOG_FILE if self._first else f"node{run.plan.nodes.rank}-{runs.LOG_FILE}")

    def run(self) -> bool:
        """Train, and make a checkpoint from the best or last step; returns whether it is on this machine.

        The results of earlier runs are kept until this one has succeeded.

        Raises:
            Failed: ``swift sft`` failed, or ended without a checkpoint.
        """
        if self._first:
            runs.write(self._folder, self._record)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._inputs.write(self._run)
            if not is_trained(self._folder):
                self._train()
            if self._first:
                self._keep()
        finally:
            shutil.rmtree(self._run.inputs, ignore_errors=True)
        return self._first

    # --- training ----------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        if self._first:
            remove_broken(self._folder)
        steps = steps_of(self._folder)
        resume = steps[-1] if steps else None
        if resume is not None:
            self._output.note(f"resuming from {folders.shown(resume)}")
        self._output.note(f"ms-swift's log: {folders.shown(self._log)}")
        code = self._supervised(self._run.command(resume), meanwhile=self._follow)
        if code != 0:
            left = "; the same command resumes from its last checkpoint" if steps_of(self._folder) else ""
            what = f"swift sft ended with exit code {code}{left}"
            raise errors.Failed(what, f"Its own message is above, the full log in {folders.shown(self._log)}")

    def _follow(self, process: subprocess.Popen) -> None:
        """Show progress until the process has ended."""
        lines = _lines(self._folder / PROGRESS_FILE, process)
        progress = None
        with contextlib.ExitStack() as open_until_here:
            for line in lines:
                if progress is None:
                    progress = open_until_here.enter_context(Progress(line["steps"], "training", unit="steps"))
                    progress.done = line.get("begins", 0)
                progress.advance(max(0, line["step"] - progress.done))
                if "validation" in line:
                    self._output.note(f"step {line['step']}: {in_words(line['validation'])}")

    def _supervised(
        self,
        command: Sequence[str],
        meanwhile: Callable[[subprocess.Popen], object] = subprocess.Popen.wait,
        without: Collection[str] = (),
    ) -> int:
        """Run a command with its output going to the log; returns its exit code. If it fails, the end of the log is shown.

        Args:
            meanwhile: called to do work until the command has ended.
            without: environment variables that it does not get.
        """
        environment = {**os.environ, **self._run.environment()}
        environment = {name: value for name, value in environment.items() if name not in without}
        with open(self._log, "ab") as file:
            begun = file.tell()
            process = supervise.start(command, environment, file.fileno())
            try:
                meanwhile(process)
            finally:
                process.terminate()  # the supervisor ends what it started, and then itself
                process.wait()
        if process.returncode != 0:
            self._show_end(begun)
        return process.returncode

    def _show_end(self, begun: int) -> None:
        with open(self._log, "rb") as file:
            file.seek(max(begun, file.seek(0, os.SEEK_END) - _SHOWN_BYTES))
            said = file.read().decode("utf-8", "replace").splitlines()
        for line in [line for line in said if line.strip()][-_SHOWN_LINES:]:
            self._output.note(line[:500])

    # --- the checkpoint ----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        run, plan = self._folder, self._run.plan
        step = best_step(run)
        if step is None:
            raise errors.Failed(f"swift sft saved no checkpoint in {folders.shown(run)}", f"See {runs.LOG_FILE} there")
        source = step if is_full(plan.options) else self._merged(step)
        bounds = {"min_pixels": plan.bounds.min_pixels, "max_pixels": plan.bounds.max_pixels}
        lines = list(read_progress(run / PROGRESS_FILE))
        self._record["step"] = step_number(step)
        self._record["validation"] = next(
            (line["validation"] for line in reversed(lines) if "validation" in line and line["step"] == self._record["step"]),
            None,
        )
        curves.draw(lines, run / CURVES_FILE)
        runs.write(run, self._record)
        promote(source, run, self._run.view, bounds)
        if self._record["takes_output"]:
            install(run, plan.output)
        shutil.rmtree(run / _MERGED, ignore_errors=True)
        if "save_only_model" not in plan.options:
            drop_states(run)
        runs.mark_finished(run)

    def _merged(self, step: Path) -> Path:
        """A checkpoint with its adapters merged by ms-swift."""
        merged = self._folder / _MERGED
        shutil.rmtree(merged, ignore_errors=True)
        if self._supervised(self._run.merge_command(step, merged), without=_FOR_TORCHRUN) != 0:
            raise errors.Failed(f"the adapters of {folders.shown(step)} could not be merged", "The message is above")
        return merged


def _lines(path: Path, process: subprocess.Popen) -> Iterator[dict[str, Any]]:
    """New lines of the progress as they arrive, until the process has ended."""
    at = path.stat().st_size if path.exists() else 0
    while True:
        ended = process.poll() is not None
        if path.exists():
            with open(path, "rb") as file:
                file.seek(at)
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            at += len(whole)
            yield from map(json.loads, whole.splitlines())
        if ended:
            return
        time.sleep(_LOOK_EVERY_SECONDS)


def read_progress(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's progress; a step that was repeated after a restart has several."""
    if path.exists():
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # a line truncated by a kill
                yield json.loads(line)


def in_words(figures: dict[str, Any]) -> str:
    """The validation metrics as text."""
    parts = [
        f"{name} PLCC {found['plcc']:.3f} SRCC {found['srcc']:.3f}" if "plcc" in found else f"{name} (too few)"
        for name, found in figures["groups"].items()
    ]
    return f"{', '.join(parts)}; -log p of the word {figures['all']['nll']:.3f}"
