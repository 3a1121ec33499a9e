"""The name that scripts around the release import: every public name of ``saiqa.facts``."""

from saiqa.facts import *  # noqa: F403
