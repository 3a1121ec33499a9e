"""The evaluation as one self-contained HTML file: metrics, plots, largest disagreements, provenance."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saiqa import facts
from saiqa.errors import InputError, lacking
from saiqa.evaluate import page, scored_table, summary
from saiqa.evaluate.intervals import Agreement
from saiqa.evaluate.summary import Assessment, Scored
from saiqa.files import folders, ids, jsonl
from saiqa.files.jsonl import to_json
from saiqa.files.places import Place
from saiqa.model import thumbnails
from saiqa.run.record import read_run_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DISAGREEMENTS = 10
_BINS_PER_POINT = 4  # of the 1..5 scale

# From Okabe and Ito's palette, which colour-blind readers can distinguish.
_POINTS, _CURVE, _PEOPLE = "#0072B2", "#D55E00", "#E69F00"


def write(path: Path, scored: Sequence[Scored], assessments: Sequence[Assessment], data_root: Place) -> None:
    """Write the report, whole or not at all.

    Args:
        path: the HTML file.
        scored: the tables, one per dimension.
        assessments: their ``summary.assess``.
        data_root: where the images are; those behind a URL are downloaded.

    Raises:
        Failed: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise lacking("a report", error.name, "report") from None
    page.write(
        path,
        "report.html.j2",
        names=", ".join(table.dimension for table in scored),
        header=["rows", *summary.COLUMNS.values(), "n", "dropped"],  # a phone shows only the first few
        lines=list(map(_line, assessments)),
        notes=[summary.HOW, *summary.notes(assessments)],
        plots=_plots(assessments),
        **_disagreements(scored, data_root),
        provenance=_provenance(scored),
    )


# ---- figures ---------------------------------------------------------------------------------------------------------


def _line(assessment: Assessment) -> dict:
    """One line; generator and interval appear small below dimension and value."""
    n, dropped, *figures = summary.figures(assessment)
    parts = [text.partition(" [") for text in (*figures, n, dropped)]
    values = [(value, interval) for value, _, interval in parts]
    return {"dimension": assessment.dimension, "generator": assessment.generator, "figures": values}


# ---- plots -----------------------------------------------------------------------------------------------------------


def _plots(assessments: Sequence[Assessment]) -> list[dict]:
    """A scatter plot and a histogram for every dimension and for the pool; generators get none of their own."""
    whole = [assessment for assessment in assessments if assessment.generator is None]
    return [plot(assessment) for assessment in whole for plot in (_scatter, _histogram)]


def _scatter(assessment: Assessment) -> dict:
    rows = assessment.rows
    pairs = [(row.prediction, row.mos) for row in rows if row.prediction is not None and row.mos is not None]
    figure, axes = _axes()
    if pairs:
        low, high = _scale(assessment)
        size = 14 if len(pairs) < 1000 else 4
        axes.plot([low, high], [low, high], color="#999999", linewidth=1)
        scores, people = zip(*pairs, strict=True)
        axes.scatter(scores, people, s=size, alpha=0.5, color=_POINTS, linewidths=0, rasterized=True)
        _draw_curve(axes, assessment.agreement, scores)
        axes.set(xlim=(low - 0.1, high + 0.1), ylim=(low - 0.1, high + 0.1), aspect="equal")
    axes.set(xlabel="score", ylabel="MOS", title=assessment.dimension)
    return _image(figure, f"Scatter plot of MOS over score, {assessment.dimension}: {_in_words(assessment)}.")


def _draw_curve(axes: Axes, found: Agreement | str, predictions: Sequence[float]) -> None:
    import numpy

    if isinstance(found, Agreement) and found.curve:
        x = numpy.linspace(min(predictions), max(predictions), 200)
        axes.plot(x, found.curve(x), color=_CURVE, linewidth=2)


def _histogram(assessment: Assessment) -> dict:
    import numpy

    low, high = _scale(assessment)
    bins = numpy.arange(low, high + 1e-9, 1 / _BINS_PER_POINT).tolist()
    figure, axes = _axes()
    columns = {
        "MOS": ([row.mos for row in assessment.rows if row.mos is not None], _PEOPLE),
        "score": ([row.prediction for row in assessment.rows if row.prediction is not None], _POINTS),
    }
    for label, (values, colour) in columns.items():
        axes.hist(values, bins=bins, label=label, color=colour, alpha=0.55)
    axes.legend(frameon=False)
    axes.set(xlabel="score and MOS", ylabel="images", title=assessment.dimension)
    said = "; ".join(f"{label} {_spread(values)}" for label, (values, _) in columns.items())
    return _image(figure, f"Histograms of MOS and score, {assessment.dimension}: {said}.")


def _spread(values: Sequence[float]) -> str:
    import numpy

    return f"mean {numpy.mean(values):.2f}, standard deviation {numpy.std(values):.2f}" if values else "none"


def _scale(assessment: Assessment) -> tuple[float, float]:
    """The range of both axes: 1 to 5, widened to whole points if a value lies outside."""
    import math

    values = [v for row in assessment.rows for v in (row.mos, row.prediction) if v is not None]
    scale = facts.WORD_VALUES.values()
    return math.floor(min([*values, *scale])), math.ceil(max([*values, *scale]))


def _in_words(assessment: Assessment) -> str:
    found = assessment.agreement
    if isinstance(found, str):
        return found
    return f"PLCC {found.figures.plcc:.3f}, SRCC {found.figures.srcc:.3f}, {found.figures.n} images"


def _axes() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _image(figure: Figure, alt: str) -> dict:
    file = io.BytesIO()
    figure.savefig(file, format="svg", dpi=200, metadata={"Date": None})
    return {"source": thumbnails.data_address("image/svg+xml", file.getvalue()), "alt": alt}


# ---- largest disagreements -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Disagreement:
    table: Scored
    row: scored_table.ScoredRow
    before: int  # number of earlier rows with the same id
    file: Place | None  # if the table has it

    @property
    def size(self) -> float:
        return abs(self.difference)

    @property
    def difference(self) -> float:
        """Score minus MOS; every row here has both."""
        assert self.row.prediction is not None and self.row.mos is not None
        return self.row.prediction - self.row.mos


def _disagreements(scored: Sequence[Scored], data_root: Place) -> dict:
    found = [
        _Disagreement(table, row, before, file)
        for table in scored
        for row, (_, before), file in zip(
            table.rows,
            ids.numbered(row.id for row in table.rows),
            table.files or itertools.repeat(None, len(table.rows)),
            strict=True,
        )
        if row.mos is not None and row.prediction is not None
    ]
    largest = sorted(found, key=lambda disagreement: -disagreement.size)[:DISAGREEMENTS]
    paths = {id(d.table): _image_paths(d.table) for d in largest}
    cards = [_card(d, d.file or _file_of(d, paths[id(d.table)], data_root)) for d in largest]
    return {"cards": cards, "rows": len(found)}


def _image_paths(table: Scored) -> dict[str, list[str]]:
    """Image id -> its paths as written in the ratings, in their order; empty if there are no ratings."""
    if table.ratings is None or not table.ratings.is_file():
        return {}
    paths: dict[str, list[str]] = {}
    for path, _ in jsonl.stream_images(table.ratings):
        paths.setdefault(folders.image_id(path), []).append(path)
    met = ids.same_number((row.id for row in table.rows), paths)
    return paths | {image_id: paths[rated] for image_id, rated in met.items()}


def _file_of(disagreement: _Disagreement, paths: dict[str, list[str]], data_root: Place) -> Place:
    """The image's file: the path in its rating, else its place in the benchmark. It need not exist."""
    image_id = disagreement.row.id
    if image_id in paths:
        found = paths[image_id]
        return folders.resolve_image(found[min(disagreement.before, len(found) - 1)], data_root)
    folder = Path(facts.DATA_FOLDER, facts.IMAGES_FOLDER.format(dimension=disagreement.table.dimension))
    names = [str(folder / f"{image_id}{suffix}") for suffix in facts.IMAGE_SUFFIXES]
    files = [folders.resolve_image(name, data_root) for name in names]
    with suppress(InputError):  # a store that does not answer
        return next((file for file in files if file.is_file()), files[0])
    return files[0]


def _card(disagreement: _Disagreement, file: Place) -> dict:
    row, dimension = disagreement.row, disagreement.table.dimension
    numbers = f"score {row.prediction:.2f}, MOS {row.mos:.2f}"
    said = {"difference": f"{disagreement.difference:+.2f}", "numbers": f"{dimension}: {numbers}", "id": row.id}
    return said | page.picture(file) | {"alt": f"Image {row.id}, {dimension}: {numbers}"}


# ---- provenance ------------------------------------------------------------------------------------------------------


def _provenance(scored: Sequence[Scored]) -> dict:
    """What all tables have in common, and what is specific to each."""
    records = [read_run_record(table.path) for table in scored]
    terms = [_terms(record, table.dimension) for table, record in zip(scored, records, strict=True) if record]
    common = {name: value for name, value in terms[0].items() if all(one.get(name) == value for one in terms)} if terms else {}
    tables = []
    for table, record in zip(scored, records, strict=True):
        own = {name: value for name, value in _terms(record, table.dimension).items() if name not in common}
        name = folders.run_record_path(table.path).name
        said = {"dimension": table.dimension, "path": folders.shown(table.path), "record_name": name, "own": own}
        tables.append(said | {"record": to_json(record) if record else None})
    return {"common": common, "tables": tables}


def _terms(record: Mapping[str, Any], dimension: str) -> dict[str, Any]:
    """How scores were made, as a few name-value pairs; those missing in the record are left out."""
    engine = record.get("engine") or {}
    prompts = record.get("prompts") or {}  # of one dimension, or by dimension
    asked = prompts.get(dimension) if isinstance(prompts, Mapping) else prompts[0]
    parts = {
        "checkpoint": record.get("model_path"),
        "fingerprint": record.get("model_fingerprint"),
        "engine": ", ".join(f"{key} {value}" for key, value in engine.items() if isinstance(value, str | int | float)),
        "command": record.get("command"),
        "images rated": record.get("n"),
        "prompt": asked.get("query") if asked else None,
    }
    return {name: value for name, value in parts.items() if value}
