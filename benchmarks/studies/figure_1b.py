"""CLAM on the generated cohort: slide AUROC relative to the teacher, and its cost.

    python -m benchmarks.studies.figure_1b --out ~/studies
    python -m benchmarks.studies.figure_1b --out ~/studies --field-effect

Encoders learn from the first slides, without labels. Slide classifiers are trained and
tested on the others by cross-validation, leaving out patients. The table beside the
study's own gives what the source's Figure 1b shows: AUROC relative to the teacher, beside
parameters, multiply-adds per patch and the time of a patch on one thread.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.studies.prepare import HERE, with_arms
from threadpoolctl import threadpool_limits

from napari_mcm.cli.drive import drive
from napari_mcm.core.encoders import load_encoder
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.mil.train import resume_train
from napari_mcm.core.mil.train import train as train_classifier
from napari_mcm.core.runtime.files import write_text
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.studies.study import run_study
from napari_mcm.core.studies.study_config import StudyConfig, StudySlide
from napari_mcm.core.studies.study_differences import Row, by_trial, rows_of
from napari_mcm.core.studies.study_evaluation import extract_study
from napari_mcm.core.synthetic import SampleConfig, generate_cohort

TEACHER = "B"
_TIMED = 64


class MilEvaluator:
    """Measures an encoder by slide classifiers on slides outside its training set."""

    def __init__(
        self, slides: Sequence[Path], table: Path, options: Mapping[str, Any]
    ) -> None:
        self._slides, self._table, self._options = slides, table, options

    def __call__(
        self,
        encoder: str,
        train: Sequence[StudySlide],
        test: Sequence[StudySlide],
        folder: Path,
        config: FinetuneConfig,
        study: StudyConfig,
    ) -> Job[dict[int, dict[str, float]]]:
        """Extract features once, and train classifiers at each context radius."""
        yield from extract_study(encoder, self._slides, folder, config)
        milliseconds = patch_milliseconds(encoder, config)
        found = {}
        for radius in study.radii:
            run = folder.with_name(f"{folder.name}-mil-r{radius}")
            options = MilConfig.model_validate(
                {
                    **self._options,
                    "cohort": self._table,
                    "features": folder,
                    "out": run,
                    "neighbourhood": {"radius": radius},
                }
            )
            started = (run / "config.json").exists()
            with threadpool_limits(config.compute.threads):
                result = (
                    yield from resume_train(run)
                    if started
                    else train_classifier(options)
                )
            pooled = result.figures["pooled"]
            found[radius] = {
                "mil_auroc": float(pooled["auroc"]),
                "mil_balanced_accuracy": float(pooled["balanced_accuracy"]),
                "milliseconds_per_patch": milliseconds,
            }
        return found


def patch_milliseconds(encoder: str, config: FinetuneConfig) -> float:
    """Time the encoder on random patches; the fastest of three batches counts."""
    loaded = load_encoder(encoder, config.compute)
    side = config.grid.patch_size
    pixels = np.random.default_rng(0).integers(
        0, 256, (_TIMED, side, side, 3), np.uint8
    )
    times = []
    for _ in range(3):
        began = time.perf_counter()
        loaded.encode(pixels)
        times.append(time.perf_counter() - began)
    return 1000 * min(times) / _TIMED


def make_study(
    out: Path, field_effect: bool, protocol: Mapping[str, Any] | None = None
) -> tuple[StudyConfig, MilEvaluator]:
    """Generate the cohort, and divide it into slides to learn from and to classify."""
    if protocol is None:
        protocol = json.loads((HERE / "figure-1b.json").read_text(encoding="utf-8"))
    assert protocol is not None
    name = "figure-1b-field" if field_effect else "figure-1b"
    cohort = out / f"{name}-cohort"
    options = SampleConfig(**protocol["cohort"], field_effect=field_effect)
    drive(generate_cohort(cohort, options))
    with (cohort / "cohort.csv").open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    learned, rest = rows[: protocol["train"]], rows[protocol["train"] :]
    files = {p.name.split(".")[0]: p for p in sorted(cohort.glob("*.ome.tif"))}
    table = out / name / "mil.csv"
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rest)
    table.parent.mkdir(parents=True, exist_ok=True)
    write_text(table, text.getvalue())
    study = with_arms(protocol["study"], protocol["arms"])
    study["slides"] = [
        {"slide": str(files[_key(row)]), "label": row["label"]} for row in learned
    ]
    study["out"] = str(out / name)
    config = StudyConfig.model_validate(study)
    slides = [files[_key(row)] for row in rest]
    return config, MilEvaluator(slides, table, protocol["mil"])


def _key(row: Mapping[str, str]) -> str:
    return Path(row["slide_id"]).name.split(".")[0]


def relative_table(config: StudyConfig) -> str:
    """Write each arm's AUROC relative to the teacher's, beside what it costs."""
    assert config.out is not None
    rows: list[Row] = []
    for path in sorted(config.out.glob("cells/*/*/*/summary.json")):
        rows += rows_of(json.loads(path.read_text(encoding="utf-8")))
    lines = [
        "| arm | radius | AUROC | relative to the teacher | parameters (M) "
        "| multiply-adds (G) | ms per patch |",
        "|---" * 7 + "|",
    ]
    for arm in config.arms:
        for radius in config.radii:
            own = _mean(rows, arm, "mil_auroc", radius)
            # The teacher as it is used today: without context.
            teacher = _mean(rows, TEACHER, "mil_auroc", 0)
            costs = (("parameters", 1e6), ("multiply_adds", 1e9))
            cost = [f"{_mean(rows, arm, n, radius) / unit:.2f}" for n, unit in costs]
            spent = _mean(rows, arm, "milliseconds_per_patch", radius)
            lines.append(
                f"| {arm} | {radius} | {own:.3f} | {own / teacher:.3f} "
                f"| {' | '.join(cost)} | {spent:.1f} |"
            )
    return "\n".join(lines) + "\n"


def _mean(rows: Sequence[Row], arm: str, figure: str, radius: int) -> float:
    values = list(by_trial(rows, arm, figure, radius).values())
    return float(np.mean(values)) if values else float("nan")


def main() -> None:
    """Run what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--field-effect", action="store_true")
    parser.add_argument("--arms", nargs="*", default=[], help="arms to run")
    given = parser.parse_args()
    config, evaluator = make_study(given.out.resolve(), given.field_effect)
    result = drive(run_study(config, evaluator, given.arms))
    print(*result.failed, sep="\n")
    table = relative_table(config)
    write_text(result.out / "figure-1b.md", table)
    print(table)


if __name__ == "__main__":
    main()
