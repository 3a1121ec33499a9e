"""The inputs of a run: the examples, checked before anything is loaded, and the folder that ``swift sft`` reads."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saiqa import errors
from saiqa.calibration import prompt_digest
from saiqa.cli import console
from saiqa.engines.loading import check_weights, load_tokenizer
from saiqa.files import jsonl
from saiqa.model.checkpoint_view import make_view
from saiqa.model.pixels import Preprocessing
from saiqa.training import examples, soft_labels
from saiqa.training.examples import Example
from saiqa.training.options import Options, number
from saiqa.training.plan import Plan, Run, test_files
from saiqa.training.spec import Spec
from saiqa.training.tokens import TokenCounter

_ROUND_UP = 64  # tokens; a chosen max_length is a multiple of it
_SHOWN_FAULTS = 200


@dataclass(frozen=True)
class Inputs:
    """Validated examples.

    Attributes:
        plan: the plan, with the options that depend on the examples.
        train, val, test: the examples; ``test`` only with ``--val_on_test``.
        longest: tokens of the longest example.
        digests: file name -> SHA-256 of the files that the examples were read from.
    """

    plan: Plan
    train: list[Example]
    val: list[Example]
    test: list[Example]
    longest: int
    digests: dict[str, str]

    @classmethod
    def read(cls, plan: Plan, given: Collection[str], output: console.Output) -> Inputs:
        """Read and check everything, including the base model's files.

        Args:
            given: names of the options that the user has set.

        Raises:
            InputError: examples have faults; all of them are listed first.
        """
        check_weights(plan.base)
        load_tokenizer(plan.base)
        Preprocessing.of_checkpoint(plan.base)
        everything = examples.read(plan.train, plan.data_root)
        if plan.val:
            train, val = everything, _without_images_of(examples.read(plan.val, plan.data_root), everything)
        else:
            train, val = examples.split(everything, plan.val_share)
        test = examples.read(test_files(plan), plan.data_root) if plan.val_on_test else []
        if not train:
            raise errors.InputError("there is nothing to train on", "Check --train_jsonl, or lower --val_split")
        if plan.loss == "raters":
            examples.require_marks(train)
        longest = _check([*train, *val, *test], plan, "max_length" in given, output)
        for line in examples.counts(train):
            output.note(f"train on {line}")
        for line in examples.counts(val):
            output.note(f"validate on {line}")
        options = _lengths(plan, longest, given, output) | _saves(plan, len(train), given)
        files = [*plan.train, *plan.val]
        return cls(replace(plan, options=plan.options | options), train, val, test, longest, examples.digests(files))

    def write(self, run: Run) -> None:
        """Fill the folder that ``swift sft`` reads: a view of the base model, the examples, and the ``Spec``."""
        shutil.rmtree(run.inputs, ignore_errors=True)
        make_view(self.plan.base, run.view)
        for split, members in (("train", self.train), ("test", self.test)):
            jsonl.write_jsonl(run.questions(split), map(self._line, members))
        jsonl.write_jsonl(run.questions("val"), map(_validation_line, self.val))
        plan = self.plan
        Spec(
            base=str(run.view),
            validation=str(run.questions("val")) if self.val else "",
            system=plan.options["system"][0],
            min_pixels=plan.bounds.min_pixels,
            max_pixels=plan.bounds.max_pixels,
            batch_size=int(number(plan.options, "per_device_eval_batch_size")),
        ).write(run.spec)

    def prompts(self) -> dict[str, list[str]]:
        """Group -> digests of the prompts for its images."""
        found: dict[str, set[str]] = {}
        for example in self.train:
            found.setdefault(example.group, set()).add(prompt_digest(example.query, example.answer_prefix))
        return {group: sorted(digests) for group, digests in found.items()}

    def _line(self, example: Example) -> dict[str, Any]:
        line: dict[str, Any] = {"query": example.query, "response": example.response, "images": [str(example.image)]}
        if "loss_type" in soft_labels.options(self.plan.loss):
            line["channel"] = soft_labels.target(example, self.plan.loss)
        return line


def _validation_line(example: Example) -> dict[str, Any]:
    """An example as ``validation`` reads it."""
    texts = {"image": str(example.image), "group": example.group, "query": example.query}
    return texts | {"prefix": example.answer_prefix, "word": example.word, "mos": example.mos}


def _without_images_of(val: Sequence[Example], train: Iterable[Example]) -> list[Example]:
    seen = {example.image for example in train}
    twice = next((example for example in val if example.image in seen), None)
    if twice is not None:
        raise errors.InputError(f"{twice.written} is used for training and validation", "Remove it from one of the files")
    return list(val)


def _check(everything: Sequence[Example], plan: Plan, length_given: bool, output: console.Output) -> int:
    """Tokens of the longest example. Raises ``InputError`` after listing all faults."""
    count = TokenCounter(plan.base, plan.options["system"][0], plan.bounds)
    longest_allowed = int(number(plan.options, "max_length")) if length_given else None
    faults, longest = examples.faults(everything, count, longest_allowed)
    for file, why in faults[:_SHOWN_FAULTS]:
        output.note(f"{file}: {why}")
    if len(faults) > _SHOWN_FAULTS:
        output.note(f"and {len(faults) - _SHOWN_FAULTS} more")
    if faults:
        remedy = "Correct or remove them"
        if longest_allowed is not None and longest > longest_allowed:
            remedy += f"; --max_length {_rounded(longest)} fits the longest, or set MAX_PIXELS lower"
        raise errors.InputError(f"{len(faults)} of {len(everything)} examples cannot be trained on", remedy)
    return longest


def _lengths(plan: Plan, longest: int, given: Collection[str], output: console.Output) -> Options:
    """A max_length that fits the longest example, if the release's does not and the user gave none."""
    if "max_length" in given or longest <= number(plan.options, "max_length"):
        return {}
    length = _rounded(longest)
    output.note(f"the longest example has {longest} tokens: training with --max_length {length} instead of the release's")
    return {"max_length": [str(length)]}


def _rounded(length: int) -> int:
    return math.ceil(length / _ROUND_UP) * _ROUND_UP


def _saves(plan: Plan, count: int, given: Collection[str]) -> Options:
    """Save at least once per epoch, if the release's interval is longer than that."""
    if not {"save_steps", "save_strategy"}.isdisjoint(given):
        return {}
    return {"save_steps": [str(min(int(number(plan.options, "save_steps")), plan.steps_per_epoch(count)))]}
