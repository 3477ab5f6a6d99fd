"""Native libraries that cannot share a process."""

from __future__ import annotations

import sys
from pathlib import Path

_MAPPED = Path("/proc/self/maps")


def keep_triton_out() -> None:
    """Have PyTorch do without Triton where the graphics driver has brought its LLVM.

    Mesa draws (in software, and on AMD) with LLVM. Triton brings another one in, with
    the same symbols, and importing it then ends the process by a segmentation fault.
    Only compiled models need Triton, and no job of the viewer compiles one. Where
    Triton is loaded already, or Mesa is not, nothing is done.
    """
    if "triton" in sys.modules or not _MAPPED.exists():
        return
    if "libLLVM" in _MAPPED.read_text(errors="replace"):
        # Python's own way to say that a module is not to be found.
        sys.modules["triton"] = None  # type: ignore[assignment]
