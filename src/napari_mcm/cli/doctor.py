"""Check what this machine can do, and how to fix what it cannot.

Each line begins with ✓ (works), ! (limits what you can do) or ✗ (must be fixed).
Nothing is installed, fetched or changed.
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
    """Run the checks; fail if something must be fixed."""
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
    """Return whether standard output can encode a text; not all terminals can."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
