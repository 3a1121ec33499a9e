"""``python -m saiqa``, which is the command ``saiqa``."""

import sys

from saiqa.cli.main import start

sys.exit(start())
