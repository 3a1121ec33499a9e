"""Fit the weights of the overall score to pairwise preferences, and add that score to scored images."""

from __future__ import annotations

import argparse
import hashlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from saiqa import facts, overall
from saiqa.cli.console import ArgumentParser, Output, add_output
from saiqa.errors import Incomplete, InputError, UsageError, lacking
from saiqa.evaluate import intervals, tables
from saiqa.files import folders, text_files
from saiqa.files.jsonl import to_json
from saiqa.preferences import bradley_terry
from saiqa.preferences.pairs import Pairs, read_pairs, read_scored, write_with_overall
from saiqa.run import record

DESCRIPTION = {
    "fit": "Fit the weights of the four dimensions to pairs of images of which people preferred one.",
    "apply": "Add the overall score to a file of scored images: the weighted mean, or without weights the plain mean.",
}

EXAMPLES = """
python tools/fuse_scores.py fit renders.csv preferences.csv --output weights.json
python tools/fuse_scores.py apply renders.csv --weights weights.json --output renders_overall.csv
"""

MODEL = "Bradley-Terry on weighted scores, weights not negative, ties after Davidson (1970)"


def parser() -> ArgumentParser:
    """The flags of the command."""
    flags = ArgumentParser(description=__doc__, examples=EXAMPLES)
    actions = flags.add_subparsers(dest="action", required=True, metavar="fit|apply")
    fit, apply = (
        actions.add_parser(name, help=DESCRIPTION[name], description=DESCRIPTION[name], examples=example)
        for name, example in zip(DESCRIPTION, EXAMPLES.strip().splitlines(), strict=True)
    )
    scored = "scored images: a CSV with image (or id) and one column per dimension, or a JSONL from score_images.py"
    for each in (fit, apply):
        each.add_argument("scored", metavar="SCORED", help=scored)
        add_output(each.add_argument)
    pairs = "CSV with image_a,image_b,winner; the winner is a, b, tie or the image's name"
    fit.add_argument("preferences", metavar="PREFERENCES", help=pairs)
    fit.add_argument("--output", default="weights.json", metavar="FILE", help="default: weights.json")
    fit.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the held-out split (default: 0)")
    apply.add_argument("--weights", metavar="FILE", help="weights.json from fit; default: equal weights")
    apply.add_argument("--output", required=True, metavar="FILE", help="SCORED with the column overall")
    return flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises ``errors.UserError``."""
    args = parser().parse_args(argv)
    out = Output(args.json, args.quiet)
    output = folders.output_path(args.output)
    inputs = [folders.input_path(text) for text in (args.scored, getattr(args, "preferences", None)) if text is not None]
    if output.resolve() in [path.resolve() for path in inputs]:
        raise UsageError("--output is also an input", "Give it another name")
    text_files.check_writable(output)
    if args.action == "fit":
        fit(inputs[0], inputs[1], output, args, out)
    else:
        apply(inputs[0], output, args, out)


# ---- fit -------------------------------------------------------------------------------------------------------------


def fit(scored_path: Path, pairs_path: Path, output: Path, args: argparse.Namespace, out: Output) -> None:
    """Fit weights and write them. Raises ``InputError``, and ``Incomplete`` if pairs had to be left out."""
    scored = read_scored(scored_path)
    missing = [dimension for dimension in facts.DIMENSIONS if dimension not in scored.dimensions]
    if missing:
        what = f"{folders.shown(scored_path)} has no scores of {', '.join(missing)}"
        raise InputError(what, "Weights are fitted for all four dimensions: score them too")
    pairs = read_pairs(pairs_path, scored)
    try:
        fitted = bradley_terry.fit(pairs.differences, pairs.outcomes)
        weights = dict(zip(facts.DIMENSIONS, map(float, fitted.weights), strict=True))
        spans = bradley_terry.weight_intervals(pairs.differences, pairs.outcomes, pairs.groups)
        held_out = bradley_terry.cross_validate(pairs.differences, pairs.outcomes, pairs.groups, args.seed)
    except bradley_terry.FitError as error:
        raise InputError(f"{folders.shown(pairs_path)}: {error}", "Check that the winners are the right way round") from None
    except ModuleNotFoundError as error:
        raise lacking("the fit", error.name) from None
    if bradley_terry.is_separated(fitted, pairs.differences, pairs.outcomes):
        out.warn("these weights predict every decided pair correctly. So do others: more pairs would narrow them down")
    found = {
        "weights": weights,
        "weight_intervals": dict(zip(facts.DIMENSIONS, spans, strict=True)),
        "model": MODEL,
        "scale": float(fitted.strengths.sum()),
        "tie": fitted.tie,
        "pairs": pairs.counts,
        "held_out": {"folds": bradley_terry.FOLDS, "seed": args.seed, **asdict(held_out)},
        "made_from": {"scored": _source(scored_path), "preferences": _source(pairs_path)},
        "packages": record.package_versions(),
        "command": shlex.join(sys.argv),
    }
    text_files.write_text(output, to_json(found) + "\n")
    say_fit(weights, spans, pairs, held_out, out)
    out.note(f"weights: {folders.shown(output)}")
    out.finish({**found, "output": output})
    if pairs.unscored:
        raise Incomplete(f"{len(pairs.unscored)} pairs were left out", list(pairs.unscored.items()), "Score their images")


def _source(path: Path) -> dict[str, str]:
    return {"path": str(path.resolve()), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def say_fit(
    weights: dict[str, float],
    spans: Sequence[intervals.Interval | None],
    pairs: Pairs,
    held_out: bradley_terry.HeldOut,
    out: Output,
) -> None:
    """Weights and held-out accuracy on stdout, the numbers of pairs on stderr."""
    out.result("weights, 95% intervals:")
    for (dimension, weight), span in zip(weights.items(), spans, strict=True):
        out.result(f"{dimension:<12}{tables.figure(weight, span)}")
    out.result(f"held-out pair accuracy, {held_out.pairs} decided pairs, {bradley_terry.FOLDS} folds, 95% intervals:")
    difference = held_out.fitted - held_out.mean
    for name, value in (("fitted", held_out.fitted), ("mean", held_out.mean), ("difference", difference)):
        out.result(f"{name:<12}{tables.figure(value, held_out.intervals[name])}")
    counts = pairs.counts
    said = f"{counts['n']} judgements of {counts['distinct']} pairs: {counts['a']} for a, {counts['b']} for b"
    out.note(f"{said}, {counts['tie']} ties (in the fit, not in the accuracy), {counts['left_out']} left out")


# ---- apply -----------------------------------------------------------------------------------------------------------


def apply(scored_path: Path, output: Path, args: argparse.Namespace, out: Output) -> None:
    """Write the scored file with ``overall``. Raises ``InputError``, and ``Incomplete`` if images have none."""
    weights = overall.read_weights(folders.input_path(args.weights)) if args.weights else None
    scored = read_scored(scored_path)
    if len(scored.dimensions) < len(facts.DIMENSIONS):
        out.warn(f"{folders.shown(scored_path)} has only {', '.join(scored.dimensions)}; overall covers just these")
    if scored.has_overall:
        out.note(f"{folders.shown(scored_path)} has an overall score, which is replaced in the output")
    failures = write_with_overall(scored, weights, output)
    n = len(scored.names) - len(failures)
    out.result(f"overall for {n} image{'' if n == 1 else 's'}: {folders.shown(output)}")
    failed = [{"image": name, "reason": reason} for name, reason in failures.items()]
    out.finish({"n": n, "weights": weights, "failed": failed, "output": output})
    if failures:
        raise Incomplete(f"{len(failures)} images have no overall score", list(failures.items()), "Score them again")
