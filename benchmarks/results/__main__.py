"""Run what is missing of the project's own studies, and write their pages.

    python -m benchmarks.results --data DIR --work DIR [--only fine-tuning ...]
    python -m benchmarks.results --studies DIR --only context

DATA holds the real slides, patches and cells (`slides/her2st`, `patches`, `wbc`). WORK keeps
all runs, so that the same command resumes where it stopped. Pages of studies that `--only`
leaves out stay as they are. The summary, `docs/results.md`, takes its figures from the pages.

The studies of context are registered in `benchmarks/studies` and take hours, so they are run
from there. STUDIES holds their folders, finished or not; without any, their page stays.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

from benchmarks.results import context_studies, fine_tuning, mae, mil
from benchmarks.results.pages import PICTURES, write_page, write_summary

STUDIES: dict[str, ModuleType] = {
    "context": context_studies,
    "fine-tuning": fine_tuning,
    "mil": mil,
    "mae": mae,
}


def main() -> None:
    """Run each study and write its pages, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("results"))
    parser.add_argument("--studies", type=Path, default=Path("studies"))
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    options = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        study = STUDIES[name]
        work = options.work.resolve() / name
        if study is context_studies:
            work = options.studies.resolve()
            if not context_studies.there(work):
                print(f"{work}: no finished trial, the page of context stays as it is")
                continue
        values = study.values(options.data.resolve(), work, PICTURES)
        for page in study.PAGES:
            write_page(page, values)
    write_summary()


if __name__ == "__main__":
    main()
