"""Weights from pairwise preferences: a Bradley-Terry model whose strengths are weighted sums of an image's scores.

The strength of an image is s = sum of b_d * score_d with all b_d >= 0. For two images, with u = (s_a - s_b) / 2 and the tie
parameter v,

    P(a) = exp(u) / Z,  P(b) = exp(-u) / Z,  P(tie) = v / Z,  Z = exp(u) + exp(-u) + v

(Bradley and Terry 1952; ties after Davidson 1970). Without ties v is 0. The log-likelihood is concave in b and log v, so there
is one best fit. Pure; numpy and scipy are imported on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saiqa.evaluate.intervals import SEED, Interval, percentile_interval, resample

if TYPE_CHECKING:
    import numpy
    from numpy.typing import ArrayLike, NDArray

    from saiqa.evaluate.figures import Floats

    Integers = NDArray[numpy.int64]

A, TIE, B = 1, 0, -1  # outcomes

FOLDS = 5
FEWEST_DECIDED = 20  # pairs: enough for four weights and for held-out folds of a few pairs each
WEIGHT_RESAMPLES = 200  # each needs a fit
RIDGE = 1e-3  # the penalty is half this times the sum of b_d squared; it keeps b finite if the pairs are separable


class FitError(ValueError):
    """Preferences from which no weights can be learned."""


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        strengths: b_d, [dimensions], per point of score.
        tie: v; 0 if there were no ties.
    """

    strengths: Floats
    tie: float

    @property
    def weights(self) -> Floats:
        """The strengths scaled to sum to 1, [dimensions]. Raises ``FitError`` if all are 0."""
        total = float(self.strengths.sum())
        if total < 1e-9:
            raise FitError("no dimension's scores agree with the preferences, all weights would be 0")
        return self.strengths / total


def fit(differences: ArrayLike, outcomes: ArrayLike) -> Fit:
    """The (penalised) maximum-likelihood model.

    Args:
        differences: scores of image a minus those of image b, float [pairs, dimensions].
        outcomes: A, TIE or B, [pairs].
    """
    import numpy
    from scipy.optimize import minimize

    differences, outcomes = numpy.asarray(differences, dtype=float), numpy.asarray(outcomes)
    ties = bool((outcomes == TIE).any())
    start = numpy.concatenate([numpy.full(differences.shape[1], 0.5), [0.0] if ties else []])
    bounds = [(0, None)] * differences.shape[1] + ([(-30, 30)] if ties else [])
    found = minimize(
        _loss, start, (differences, outcomes, ties), "L-BFGS-B", jac=True, bounds=bounds,
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 10_000, "maxfun": 100_000},
    )  # fmt: skip
    strengths = found.x[: differences.shape[1]]
    return Fit(strengths, float(numpy.exp(found.x[-1])) if ties else 0.0)


def _loss(parameters: Floats, differences: Floats, outcomes: Integers, ties: bool) -> tuple[float, Floats]:
    """Penalised negative log-likelihood and its gradient."""
    import numpy

    strengths = parameters[: differences.shape[1]]
    u = differences @ strengths / 2
    logits = numpy.stack([u, -u] + ([numpy.full_like(u, parameters[-1])] if ties else []))
    log_z = numpy.logaddexp.reduce(logits, axis=0)
    probabilities = numpy.exp(logits - log_z)
    chosen = numpy.where(outcomes == TIE, logits[-1], outcomes * u)
    slope = (probabilities[0] - probabilities[1] - outcomes) / 2
    gradient = [differences.T @ slope + RIDGE * strengths]
    if ties:
        gradient.append([probabilities[2].sum() - (outcomes == TIE).sum()])
    return float((log_z - chosen).sum() + RIDGE / 2 * strengths @ strengths), numpy.concatenate(gradient)


def is_separated(fitted: Fit, differences: ArrayLike, outcomes: ArrayLike) -> bool:
    """Whether the fit predicts every decided pair correctly: then only the penalty keeps its strengths finite."""
    import numpy

    outcomes = numpy.asarray(outcomes)
    margins = numpy.asarray(differences, dtype=float) @ fitted.strengths
    return bool((_right(margins, outcomes)[outcomes != TIE] == 1).all())


def weight_intervals(differences: ArrayLike, outcomes: ArrayLike, groups: ArrayLike) -> list[Interval | None]:
    """The percentile interval of each weight, [dimensions], from resampling distinct pairs.

    Wide intervals despite a good accuracy mean that the dimensions' scores are correlated: one can replace another.

    Args:
        differences, outcomes, groups: as ``cross_validate``.
    """
    import numpy

    differences, outcomes = numpy.asarray(differences), numpy.asarray(outcomes)
    distinct, groups = numpy.unique(groups, return_inverse=True)
    weights = []
    share = numpy.full(len(distinct), 1 / len(distinct))
    for counts in numpy.random.default_rng(SEED).multinomial(len(distinct), share, WEIGHT_RESAMPLES):
        drawn = numpy.repeat(numpy.arange(len(groups)), counts[groups])
        strengths = fit(differences[drawn], outcomes[drawn]).strengths
        weights.append(strengths / max(strengths.sum(), 1e-9))
    return [percentile_interval(column) for column in numpy.transpose(weights)]


@dataclass(frozen=True)
class HeldOut:
    """Share of held-out decided pairs that the weights predict correctly; ties are ignored.

    Attributes:
        pairs: number of decided pairs.
        fitted: accuracy of the fitted weights.
        mean: accuracy of the equal-weight mean on the same pairs.
        intervals: "fitted", "mean", "difference" -> 95% interval, by bootstrap over distinct pairs.
    """

    pairs: int
    fitted: float
    mean: float
    intervals: dict[str, Interval | None]


def cross_validate(differences: ArrayLike, outcomes: ArrayLike, groups: ArrayLike, seed: int) -> HeldOut:
    """Five-fold cross-validation: fit on four fifths of the pairs and predict the rest.

    Args:
        differences, outcomes: as in ``fit``.
        groups: index of the pair of images, [pairs]; judgements of the same two images stay in one fold.
        seed: seed of the split.
    """
    import numpy

    differences, outcomes, groups = numpy.asarray(differences), numpy.asarray(outcomes), numpy.asarray(groups)
    distinct, groups = numpy.unique(groups, return_inverse=True)
    fold_of = numpy.random.default_rng(seed).permutation(len(distinct)) % FOLDS
    margins = numpy.zeros(len(outcomes))
    for fold in range(FOLDS):
        held_out = fold_of[groups] == fold
        margins[held_out] = differences[held_out] @ fit(differences[~held_out], outcomes[~held_out]).strengths
    decided = outcomes != TIE
    right = {
        "fitted": _right(margins[decided], outcomes[decided]),
        "mean": _right(differences[decided].mean(axis=1), outcomes[decided]),
    }
    right["difference"] = right["fitted"] - right["mean"]
    intervals = {name: _interval(values, groups[decided]) for name, values in right.items()}
    return HeldOut(int(decided.sum()), float(right["fitted"].mean()), float(right["mean"].mean()), intervals)


def _right(margins: Floats, outcomes: Integers) -> Floats:
    """1 where the sign of the margin matches the outcome, 0 where it does not, 0.5 where the margin is 0."""
    import numpy

    return (1 + numpy.sign(margins) * outcomes) / 2


def _interval(values: Floats, groups: Integers) -> Interval | None:
    """The percentile interval of the mean, from resampling groups."""
    import numpy

    _, groups = numpy.unique(groups, return_inverse=True)
    sums, counts = numpy.bincount(groups, values), numpy.bincount(groups)
    return percentile_interval(resample(lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis), sums, counts))
