"""How much a sweep covers: enough for each change, or all of it (``make test-long``)."""

from __future__ import annotations

import os

LONG = os.environ.get("NAPARI_MCM_TEST_LONG", "") not in ("", "0")


def length(short: int, long: int) -> int:
    """Choose how many examples of a sweep are tried."""
    return long if LONG else short
