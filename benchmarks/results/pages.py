"""Templates of the pages, and how values get into them.

A page of one study has `<<name>>` where a value of that study goes. The summary has
`<<page / heading / row / column>>`, which is a cell of a table on another page, and
`<<page / heading>>`, which is the table, so that it never disagrees with it. With ` / mean`
at its end it is the cell without its interval. A row is named by its first cell, or by its
first cells with ` + ` between them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "results"
PICTURES = DOCS / "pictures"
TEMPLATES = Path(__file__).parent / "templates"
SUMMARY = DOCS / "results.md"


def template(name: str) -> str:
    """Read the template of a page."""
    return (TEMPLATES / f"{name}.md").read_text(encoding="utf-8")


def write_page(name: str, values: Mapping[str, str]) -> None:
    """Write a page of one study, in `docs/results/`."""
    text = re.sub(r"<<([\w-]+)>>", lambda found: values[found[1]], template(name))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")


def summary() -> str:
    """Fill the summary from the pages as they are now."""
    return re.sub(r"<<(.+?)>>", lambda found: _fill(found[1]), template("results"))


def _fill(name: str) -> str:
    parts = name.split(" / ")
    if len(parts) == 2:
        return table(*parts)
    if parts[-1] == "mean":
        return cell(*parts[:-1]).split(" [")[0]
    return cell(*parts)


def write_summary() -> None:
    """Write `docs/results.md`."""
    SUMMARY.write_text(summary(), encoding="utf-8")


def cell(page: str, heading: str, row: str, column: str) -> str:
    """Find a cell of a table below a heading of a page.

    Raises
    ------
    LookupError
        If the page has no such heading, row or column.
    """
    wanted = row.split(" + ")
    header: list[str] = []
    for line in _section(page, heading):
        cells = [text.strip() for text in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells
        elif cells[: len(wanted)] == wanted and column in header:
            return cells[header.index(column)]
    raise LookupError(f"{page}.md has no cell {row} / {column} below '{heading}'")


def table(page: str, heading: str) -> str:
    """Find the first table below a heading of a page.

    Raises
    ------
    LookupError
        If the page has no such heading, or no table below it.
    """
    lines: list[str] = []
    for line in _section(page, heading):
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            break
    if not lines:
        raise LookupError(f"{page}.md has no table below '{heading}'")
    return "\n".join(lines)


def _section(page: str, heading: str) -> list[str]:
    """Give the lines below a heading, up to the next one."""
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    parts = re.split(r"^#+ (.+)\n", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if heading not in sections:
        raise LookupError(f"{page}.md has no heading '{heading}'")
    return sections[heading].splitlines()
