"""Training loop of the small base model: steps that minimise the loss of a lesson, and their optimizers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from transformers import Qwen2TokenizerFast

from make.learn.lessons import Pretraining, Reading
from saiqa.progress import Progress

LEARNING_RATE, LAYERS_LEARNING_RATE = 1e-3, 2e-3
WEIGHT_DECAY, LAYERS_WEIGHT_DECAY = 0.2, 0.1  # relative to the learning rate


class Lesson(Protocol):
    """A training task: a batch of tensors, and for these the loss and its parts."""

    def batch(self) -> tuple[torch.Tensor, ...]: ...

    def error(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, list[float]]: ...


def pretrain(training: Pretraining, steps: int) -> None:
    """Pretrain the tower and the visual embeddings; reports progress on stderr."""
    model = training.model
    learned = nn.ModuleList([model.visual_tokenizer, model.vte, training.probes])
    for step, (read, seen, labels) in _descend(training, learned, steps, "pretraining the vision tower"):
        told = f"step {step}: error {read:.3f} as read, {seen:.3f} as seen, {labels:.3f} in the labels"
        print(told + training.held_out(), file=sys.stderr)


def teach_reading(training: Pretraining, tokenizer: Qwen2TokenizerFast, steps: int) -> None:
    """Train the language model to answer from the output of the frozen tower; reports progress on stderr."""
    lesson = Reading(training, tokenizer)
    for step, (wording, word, score) in _descend(lesson, training.model.llm, steps, "training the language model"):
        told = f"step {step}: error {wording:.3f} in the wording, {word:.3f} in the word, {score:.3f} of the score"
        print(told, file=sys.stderr)


def _descend(lesson: Lesson, learned: nn.Module, steps: int, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Minimise ``lesson.error`` of ``lesson.batch``; every 500 steps, yields the step and the recent mean of the parts."""
    optimizers = _optimizers(learned)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer, optimizer.defaults["lr"], total_steps=steps, pct_start=0.05, cycle_momentum=False
        )
        for optimizer in optimizers
    ]
    errors = []
    # The next batch is drawn meanwhile by a single thread, hence always in the same order.
    one_thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    with Progress(steps, name, unit="steps") as progress, one_thread as drawing:
        batch = drawing.submit(lesson.batch)
        for step in range(1, steps + 1):
            drawn, batch = batch.result(), drawing.submit(lesson.batch)
            error, parts = lesson.error(*drawn)
            learned.zero_grad()
            error.backward()
            nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            for schedule in schedules:
                schedule.step()
            errors.append(parts)
            progress.advance()
            if step % 500 == 0 or step == steps:
                yield step, np.mean(errors[-200:], 0)


def _optimizers(learned: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer's layers, which learn faster with it, and AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, values in learned.named_parameters():
        (matrices if ".layers." in name and values.dim() == 2 else others).append(values)
    groups = [
        {"params": [values for values in others if values.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [values for values in others if values.dim() <= 1], "weight_decay": 0.0},
    ]
    muon = torch.optim.Muon(matrices, lr=LAYERS_LEARNING_RATE, weight_decay=LAYERS_WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)]
