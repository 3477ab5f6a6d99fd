"""Prints results on standard output, and all other text on standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOME_FAILED = 3
"""Exit status if the verb finished but some slides or patches failed."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a verb.

    Attributes
    ----------
    result : mapping
        Result for programs, printed with ``--json``.
    lines : sequence of str
        Result as text, one line each.
    failed : sequence of str
        One line per failed slide or patch, if the others succeeded.
    status : int or None
        Exit status; None to derive it from ``failed``.
    """

    result: Mapping[str, Any]
    lines: Sequence[str]
    failed: Sequence[str] = ()
    status: int | None = None


class JobCancelledError(Exception):
    """Raised when the user stops a job; the message says how to resume."""


def emit(outcome: Outcome, as_json: bool) -> int:
    """Print an outcome and return the exit status.

    Parameters
    ----------
    outcome : Outcome
        Outcome of a verb.
    as_json : bool
        Whether to print JSON on standard output, and the text on standard error.
    """
    for line in outcome.failed:
        say(f"failed: {one_line(line)}")
    for line in outcome.lines:
        print(line, file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(plain(outcome.result), ensure_ascii=False))
    sys.stdout.flush()
    if outcome.status is not None:
        return outcome.status
    return SOME_FAILED if outcome.failed else 0


def say(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Join the lines of a text, and collapse white space."""
    return " ".join(text.split())


def plain(value: Any) -> Any:
    """Convert paths and numpy numbers to JSON types; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return lines with names and values in two columns."""
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {value}".rstrip() for name, value in rows]


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with columns of the same width."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
