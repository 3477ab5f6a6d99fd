"""Run what is missing of the project's own studies, and write their pages.

    python -m benchmarks.results --data DIR --work DIR [--only fine-tuning ...]

DATA holds the real slides, patches and cells (`slides/her2st`, `patches`, `wbc`). WORK keeps
all runs, so that the same command resumes where it stopped. Pages of studies that `--only`
leaves out stay as they are. The summary, `docs/results.md`, takes its figures from the pages.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

from benchmarks.results import fine_tuning, mae, mil
from benchmarks.results.pages import PICTURES, write_page, write_summary

STUDIES: dict[str, ModuleType] = {"fine-tuning": fine_tuning, "mil": mil, "mae": mae}


def main() -> None:
    """Run each study and write its pages, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("results"))
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    options = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        study = STUDIES[name]
        work = options.work.resolve() / name
        values = study.values(options.data.resolve(), work, PICTURES)
        for page in study.PAGES:
            write_page(page, values)
    write_summary()


if __name__ == "__main__":
    main()
