"""Imported by ``swift sft --custom_register_path`` before it resolves the model: registers what is ours with ms-swift."""

import os

import saiqa.model.ovis2_5
import saiqa.training.callback
import saiqa.training.losses  # noqa: F401
from saiqa.training.spec import GLOO_VARIABLE

if os.environ.get(GLOO_VARIABLE) and os.environ.get("WORLD_SIZE"):
    # ZeRO-3 divides the weights while they are loaded, and on a CPU nobody has made the group of processes by then.
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo")
