"""Plots a run's curves: the loss, and PLCC and SRCC on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the progress of a run into a PNG; does nothing if there is none.

    Args:
        lines: the lines of ``spec.PROGRESS_FILE``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}  # for a repeated step, the last
    validations = {line["step"]: line["validation"]["groups"] for line in lines if "validation" in line}
    if not losses and not validations:
        return
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(losses.keys(), losses.values())
    left.set(xlabel="step", ylabel="training loss")
    for group in dict.fromkeys(name for groups in validations.values() for name in groups):
        points = {step: groups[group] for step, groups in validations.items() if "plcc" in groups.get(group, {})}
        (line,) = right.plot(points.keys(), [found["plcc"] for found in points.values()], marker="o", label=group)
        right.plot(points.keys(), [found["srcc"] for found in points.values()], marker="x", ls=":", color=line.get_color())
    right.set(xlabel="step", ylabel="validation: PLCC (line), SRCC (dots)")
    if right.has_data():
        right.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})
