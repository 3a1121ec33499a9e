"""Imported by ``swift sft --custom_register_path`` before it resolves the model: registers what is ours with ms-swift."""

import saiqa.model.ovis2_5
import saiqa.training.callback
import saiqa.training.losses  # noqa: F401
