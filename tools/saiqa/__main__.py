"""``python -m saiqa``, the same as the command ``saiqa``."""

import sys

from saiqa.cli.main import start

sys.exit(start())
