"""What every training process does besides training: validation, complete checkpoints, progress. Registers with ms-swift.

The launcher describes it in a file named by the environment variable ``SPEC_VARIABLE``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch.distributed
from swift.callbacks import TrainerCallback, callbacks_map

from saiqa.files.checkpoint_folders import step_number
from saiqa.training.checkpoints import mark_whole, steps_of
from saiqa.training.spec import CALLBACK, PROGRESS_FILE, Spec
from saiqa.training.validation import Validator

if TYPE_CHECKING:
    from swift.trainers import Trainer, TrainingArguments
    from transformers import TrainerControl, TrainerState


class SaiqaCallback(TrainerCallback):
    """Validates before every save, marks complete checkpoints, and reports progress."""

    def __init__(self, args: TrainingArguments, trainer: Trainer):
        super().__init__(args, trainer)
        self.spec = Spec.of_environment()
        self.limit: int | None = None
        self.validator: Validator | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        # Delete a checkpoint only when the next one is complete; the trainer's own rotation does not wait for that.
        self.limit, args.save_total_limit = args.save_total_limit, None
        if self.spec.validation:
            self.validator = Validator(self.trainer, self.spec)
        self._say(state, {"begins": state.global_step})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: object,
    ) -> None:
        logs = logs or {}
        self._say(state, {name: logs[name] for name in ("loss", "learning_rate", "grad_norm") if name in logs})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if control.should_save:
            self._validate(state)

    on_epoch_end = on_step_end

    def _validate(self, state: TrainerState) -> None:
        if self.validator is None:
            return
        figures = self.validator.figures()
        if state.best_metric is None or figures["quality"] >= state.best_metric:
            # The trainer stores this in its state and keeps the checkpoint of this step.
            state.best_metric, state.best_global_step = figures["quality"], state.global_step
        self._say(state, {"validation": figures})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if args.local_process_index != 0:
            return
        run = Path(args.output_dir)
        mark_whole(run / f"checkpoint-{state.global_step}")
        if args.should_save and self.limit:
            whole = [folder for folder in steps_of(run) if step_number(folder) != state.best_global_step]
            for folder in whole[: -self.limit]:
                shutil.rmtree(folder, ignore_errors=True)

    def _say(self, state: TrainerState, what: dict) -> None:
        if state.is_world_process_zero and what:
            line = {"step": state.global_step, "steps": state.max_steps, "epoch": round(state.epoch or 0, 4), **what}
            with open(os.path.join(self.args.output_dir, PROGRESS_FILE), "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


callbacks_map[CALLBACK] = SaiqaCallback
