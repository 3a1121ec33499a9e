"""Imported by ``swift sft --custom_register_path`` before it resolves the model: makes ``ovis2_5`` the native one."""

import saiqa.model.ovis2_5  # noqa: F401
