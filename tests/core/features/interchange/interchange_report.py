"""The tables of docs/interchange.md, made by writing files and reading them.

    python -m tests.core.features.interchange.interchange_report docs/interchange.md

Rows of tools that are not installed stay as they are in the page.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.features.interchange import read_foreign, write_foreign
from tests.core.features.interchange.consumers import CONSUMERS, PRODUCERS
from tests.core.features.interchange.foreign_files import MPP, corners, numbers, ours

# Not more than a few seconds, and more rows than one chunk has.
STEP, DIM = 168, 64
BACK: dict[str, tuple[str, str, dict[str, Any]]] = {
    "trident": ("TRIDENT, `.h5`", "a.h5", {}),
    "clam": ("CLAM, `.h5`", "a.h5", {"patch_size_level0": STEP, "mpp": MPP}),
    "stamp": ("STAMP, `.h5`", "a.h5", {"mpp": MPP}),
    "anndata": ("AnnData, `.h5ad`", "a.h5ad", {}),
}
HEADS = {
    "back": "format | patches written | read back | corners | features",
    "consumers": "tool | format | patches read | corners | features",
    "producers": "tool | format | patches read | corners | features",
}


def back() -> list[str]:
    """One row for each format that goes out and comes back."""
    before = ours(STEP, patch=STEP, dim=DIM)
    ok = before.ok
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, (label, name, given) in BACK.items():
            path = Path(folder) / name
            written = write_foreign(before, path, kind)
            after = read_foreign(path, **given)
            found = (after.grid.xy, after.features)
            expected = (before.grid.xy[ok], before.features[ok])
            rows.append(
                f"| {label} | {written.patches:,} of {len(before):,} | "
                f"{len(after):,} | {_differences(found, expected)} |"
            )
    return rows


def consumers() -> list[str]:
    """One row for each tool that reads what we write."""
    before = ours(dim=DIM)
    ok = before.ok
    rows = []
    for consumer in CONSUMERS:
        start = f"| {consumer.tool} | {consumer.kind} | "
        if not _there(consumer.needs):
            rows.append(start)
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = consumer.export_and_load(before, Path(folder))
        expected = (before.grid.xy[ok], before.features[ok])
        rows.append(f"{start}{len(found[0]):,} | {_differences(found, expected)} |")
    return rows


def producers() -> list[str]:
    """One row for each tool whose files we read."""
    xy = corners(30, 20)
    features = numbers(len(xy), DIM)
    rows = []
    for producer in PRODUCERS:
        start = f"| {producer.tool} | {producer.kind} | "
        if not _there(producer.needs):
            rows.append(start)
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = producer.write(Path(folder), xy, features)
            read = read_foreign(path, mpp=MPP)
        found = (read.grid.xy, read.features)
        rows.append(f"{start}{len(read):,} | {_differences(found, (xy, features))} |")
    return rows


def update(page: str) -> str:
    """Bring a page's tables up to date, as far as tools are installed."""
    makers: dict[str, Callable[[], list[str]]]
    makers = {"back": back, "consumers": consumers, "producers": producers}
    for name, make in makers.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        old, _, after = rest.partition(end)
        known = {_key(line): line for line in old.splitlines() if line.count("|") > 3}
        rows = [line if line.endswith("|") else _old(line, known) for line in make()]
        head = f"| {HEADS[name]} |", "|---" * (HEADS[name].count("|") + 1) + "|"
        page = before + begin + "\n".join([*head, *rows]) + "\n" + end + after
    return page


def _old(line: str, known: dict[str, str]) -> str:
    return known.get(_key(line), f"{line}not tried | | |")


def _key(line: str) -> str:
    return "|".join(line.split("|")[:3])


def _there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _differences(found: Sequence[Any], expected: Sequence[Any]) -> str:
    """Say how far corners (px) and features (relative) are from what went out."""
    if found[0].shape != expected[0].shape or found[1].shape != expected[1].shape:
        return "another number | "
    apart = float(np.abs(found[0] - expected[0]).max())
    off = np.abs(found[1] - expected[1]) / np.maximum(np.abs(expected[1]), 1e-3)
    return f"{_said(apart, ' px')} | {_said(float(off.max()), ', relative')}"


def _said(value: float, unit: str) -> str:
    return "identical" if value == 0 else f"within {value:.1g}{unit}"


def main() -> None:
    """Write the tables into the page."""
    path = Path(sys.argv[1])
    page = update(path.read_text(encoding="utf-8"))
    path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
