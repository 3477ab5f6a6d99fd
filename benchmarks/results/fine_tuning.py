"""Is the fine-tuned encoder better, and why: HER2ST, the generated cohort, held-out loss."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.mcm_step import split_step
from benchmarks.results import tables
from benchmarks.results.ceiling import ceiling

from napari_mcm.cli.drive import drive
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.studies.study import run_study
from napari_mcm.core.studies.study_config import StudyConfig, StudySlide
from napari_mcm.core.studies.study_differences import Row
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.training import Run

HERE = Path(__file__).parent
PAGES = ("mcm-kd", "tables-mcm-kd")
SECTIONS = {
    "C2": "her2st_C2.svs",
    "C3": "her2st_C3.tiff",
    "C4": "her2st_C4.ome.tiff",
    "C5": "her2st_C5_dicom",
}
COHORT = SampleConfig(slides=18, size=4000, seed=7)
CURVE = (1, 4, 16)
"""Placements of the windows over the four sections, for the learning curve."""
NAMES = {
    "A": "A untouched student",
    "B": "B teacher",
    "C": "C batch-norm statistics only",
    "D": "D per-patch distillation",
    "D-bn": "D, batch norm trained",
    "E": "E no teacher",
    "F": "F MCM-KD",
    "F-bn": "F, batch norm trained",
    "G": "G shuffled positions",
    "head": "head only",
}
PAIRS = {
    ("F", "D"): "context (the registered comparison)",
    ("F-bn", "D-bn"): "context, batch norm trained",
    ("F", "A"): "everything together",
    ("D", "A"): "distillation without context",
    ("F", "E"): "the teacher",
    ("F", "G"): "the layout",
    ("E", "A"): "fine-tuning without a teacher",
    ("F-bn", "F"): "batch-norm statistics trained",
    ("C", "A"): "batch-norm statistics alone",
}
PRIMARY = ("few_shot_auroc", "similarity_auroc")
COMPARED = (*PRIMARY, "probe_auroc", "neighbour_gain")


def values(data: Path, work: Path, pictures: Path) -> dict[str, str]:
    """Run the studies; give what their pages have room for, by name."""
    her2st = study("her2st", her2st_slides(data), work)
    context = study("context", cohort_slides(work), work)
    curve = learning_curve(data, work)
    for name in ("her2st", "context"):
        shutil.copy(work / name / "study.png", pictures / f"results-{name}.png")
    return {
        **report("her2st", *her2st),
        **report("context", *context),
        "ceiling": ceiling_text(ceiling(context[0], work)["scores"], *context),
        "curve": curve_table(curve),
        "cost": cost(),
    }


def her2st_slides(data: Path) -> list[StudySlide]:
    """Four sections, each a fold."""
    folder = data / "slides" / "her2st"
    return [
        StudySlide(
            slide=folder / file, labels=folder / f"{name}_regions.geojson", fold=name
        )
        for name, file in SECTIONS.items()
    ]


def cohort_slides(work: Path) -> list[StudySlide]:
    """A generated cohort in three folds; both slides of a patient are in one."""
    folder = work / "cohort"
    if not (folder / "cohort.csv").exists():
        drive(generate_cohort(folder, COHORT))
    return [
        StudySlide(
            slide=path,
            labels=folder / f"{path.name.split('.')[0]}.geojson",
            fold=f"part{1 + 3 * number // COHORT.slides}",
        )
        for number, path in enumerate(sorted(folder.glob("*.ome.tif")))
    ]


def study(
    name: str, slides: list[StudySlide], work: Path
) -> tuple[StudyConfig, list[Row]]:
    """Run what is not done yet of a study; give its configuration and figures."""
    content: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    config = StudyConfig.model_validate(
        {**content, "slides": [s.model_dump() for s in slides], "out": work / name}
    )
    drive(run_study(config))
    return config, rows_of(work / name)


def rows_of(out: Path) -> list[Row]:
    """Read the figures of all finished trials."""
    return [
        Row.of_summary(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(out.glob("cells/*/*/*/summary.json"))
    ]


def report(name: str, config: StudyConfig, rows: list[Row]) -> dict[str, str]:
    """Write a study's tables, and in words what the primary figures say."""
    present = {row.arm for row in rows}
    pairs = {pair: text for pair, text in PAIRS.items() if set(pair) <= present}
    constants = {row.fold: row.figures.get("held_out_constant") for row in rows}
    verdicts = [
        f"- {tables.verdict(rows, arm, control, figure)}"
        for arm, control in (("F", "D"), ("F", "G"))
        for figure in PRIMARY
        if {arm, control} <= present
    ]
    constant = [c for c in constants.values() if c is not None]
    return {
        f"{name}-arms": tables.arms(rows, config, NAMES),
        f"{name}-seeds": tables.arms(rows, config, NAMES, seeds=True),
        f"{name}-differences": tables.differences(rows, pairs, COMPARED),
        f"{name}-verdicts": "\n".join(verdicts),
        f"{name}-constant": f"The loss of the best constant on the held-out windows is "
        f"{min(constant):.3f} to {max(constant):.3f}, by fold."
        if constant
        else "",
    }


def ceiling_text(
    scores: Mapping[str, float], config: StudyConfig, rows: list[Row]
) -> str:
    """Say what labels on patches alone teach, beside the untouched student's probe."""
    first = config.slides[0].fold
    own = next(row.figures for row in rows if (row.arm, row.fold) == ("A", first))
    return (
        f"an accuracy of {scores['accuracy']:.3f} (balanced "
        f"{scores['balanced_accuracy']:.3f}) on the patches of the first fold, where a "
        f"linear probe of the untouched student reaches {own['probe_accuracy']:.3f}; with "
        f"features averaged over the neighbours that probe's AUROC rises from "
        f"{own['probe_auroc']:.3f} to {own['surroundings_auroc']:.3f}"
    )


def learning_curve(data: Path, work: Path) -> list[dict[str, float]]:
    """Fine-tune on more and more windows, with and without the student moving."""
    base = json.loads((HERE / "her2st.json").read_text())["base"]
    found = []
    for placements in CURVE:
        row: dict[str, float] = {}
        for arm in ("head", "mcm-kd"):
            options = json.loads(json.dumps(base))
            options["optimiser"] |= {"placements": placements}
            out = work / "curve" / f"{placements}-{arm}"
            config = FinetuneConfig.model_validate(
                {
                    **options,
                    "preset": arm,
                    "slides": [slide.slide for slide in her2st_slides(data)],
                    "out": out,
                }
            )
            there = (out / "config.json").exists()
            drive(resume_finetune(out) if there else finetune(config))
            summary = Run.open(out).summary() or {}
            losses = Run.open(out).metrics()["held_out_loss"]
            row |= {
                "windows": summary["windows"],
                "constant": summary["held_out"]["constant"],
                "started": losses[0],
                arm: summary["held_out"]["loss"],
            }
        found.append(row)
    return found


def curve_table(curve: list[dict[str, float]]) -> str:
    """Write the loss on held-out windows against the number of training windows."""
    body = [
        [
            f"{row['windows']:.0f}",
            *(f"{row[name]:.4f}" for name in ("constant", "head", "mcm-kd")),
            f"{row['mcm-kd'] - row['head']:+.4f}",
        ]
        for row in curve
    ]
    header = ["windows", "best constant", "head only", "F", "F − head only"]
    return tables.markdown(header, body)


def cost() -> str:
    """Write what a step spends its time on."""
    shares = split_step("lite", windows=2, rounds=3)
    return ", ".join(f"{part} {share:.0%}" for part, share in shares.items())
