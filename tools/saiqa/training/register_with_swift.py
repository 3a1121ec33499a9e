"""Imported by ``swift sft --custom_register_path`` before it resolves the model: registers our code with ms-swift."""

import os

import saiqa.model.ovis2_5
import saiqa.training.callback
import saiqa.training.losses  # noqa: F401
from saiqa.training.spec import GLOO_VARIABLE

if os.environ.get(GLOO_VARIABLE) and os.environ.get("WORLD_SIZE"):
    # ZeRO-3 shards the weights during loading, and on a CPU the process group does not exist by then.
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo")
