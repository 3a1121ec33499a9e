"""The name that scripts around the release import: every public name of ``saiqa.progress``."""

from saiqa.progress import *  # noqa: F403
