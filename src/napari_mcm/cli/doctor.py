"""Check what this machine can do, and say what to do about what it cannot.

Each line begins with ✓ (well), ! (limits what can be done) or ✗ (must be mended). Nothing
is installed, fetched or changed.
"""

from __future__ import annotations

import sys
from dataclasses import asdict

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome
from napari_mcm.core.diagnostics import Check, DoctorConfig, diagnose

OPTIONS, POSITIONAL = DoctorConfig, ""

_MARKS = {"ok": "✓", "note": "!", "problem": "✗"}
_PLAIN_MARKS = {"ok": "+", "note": "!", "problem": "x"}


def run(options: DoctorConfig) -> Outcome:
    """Check, and fail if something must be mended."""
    checks = drive(diagnose(options))
    well = all(check.state != "problem" for check in checks)
    width = max(len(check.name) for check in checks)
    return Outcome(
        {"ok": well, "checks": [asdict(check) for check in checks]},
        [line for check in checks for line in _lines(check, width)],
        status=0 if well else 1,
    )


def _lines(check: Check, width: int) -> list[str]:
    marks = _MARKS if _can_print("✓✗") else _PLAIN_MARKS
    lines = [f"{marks[check.state]} {check.name:<{width}}  {check.what}"]
    if check.hint:
        arrow = "→ " if _can_print("→") else ""
        lines.append(f"  {'':<{width}}  {arrow}{check.hint}")
    return lines


def _can_print(text: str) -> bool:
    """Tell whether standard output has some characters; not all terminals do."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
