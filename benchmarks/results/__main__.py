"""Run what is not done yet of the project's own studies, and write their page.

    python -m benchmarks.results --data DIR --work DIR [--only fine-tuning ...]

DATA holds the real slides, patches and cells (`slides/her2st`, `patches`, `wbc`); WORK keeps
all runs, so that the same command goes on with what was broken off. Sections that are not
asked for stay on the page as they are.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.results import fine_tuning, mae, mil

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
PICTURES = ROOT / "docs" / "pictures"

SECTIONS: dict[str, Callable[[Path, Path, Path], str]] = {
    "fine-tuning": fine_tuning.section,
    "mil": mil.section,
    "mae": mae.section,
}

INTRODUCTION = """\
# Results

What the project's own studies gave, as it came. `make results DATA=…` runs them and writes
this page; runs that are there already are not repeated. The protocol of
the fine-tuning studies was fixed before their runs; what was chosen or added after results
had been seen is named where it stands. How figures are made: [evaluation](evaluation.md),
[studies](study.md). No figure here reproduces a table of the articles.
"""


def main() -> None:
    """Write the page anew, section by section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("results"))
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args()
    texts = sections_of(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    for name in options.only:
        work = options.work.resolve() / name
        texts[name] = SECTIONS[name](options.data.resolve(), work, PICTURES)
        write(texts)


def sections_of(page: str) -> dict[str, str]:
    """Give the sections that a page has, by name."""
    parts = re.split(r"^<!-- section: ([\w-]+) -->\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def write(texts: dict[str, str]) -> None:
    """Write the page, sections in their order."""
    body = [
        f"<!-- section: {name} -->\n{texts[name].strip()}\n"
        for name in SECTIONS
        if name in texts
    ]
    PAGE.write_text("\n".join([INTRODUCTION, *body]), encoding="utf-8")


if __name__ == "__main__":
    main()
