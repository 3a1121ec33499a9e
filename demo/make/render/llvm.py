"""LLVM for drjit: from DRJIT_LIBLLVM_PATH, else an installed one, else Debian's package, unpacked in a cache."""

from __future__ import annotations

import glob
import os

from make.render import debian

PACKAGE = "libllvm19"  # 14 and 15 fail
LIBRARY = "usr/lib/*/libLLVM*.so*"
VARIABLE = "DRJIT_LIBLLVM_PATH"


def provide() -> None:
    """Point drjit to a usable library."""
    if VARIABLE not in os.environ:
        installed = sorted(glob.glob("/usr/lib/*/libLLVM*19*.so*"))
        os.environ[VARIABLE] = installed[0] if installed else str(debian.unpacked(PACKAGE, LIBRARY))
