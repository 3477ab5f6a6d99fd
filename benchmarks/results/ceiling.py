"""Measure what a patch alone shows: the student, trained with labels on patches.

If supervised training on single patches cannot separate two classes, their pixels hold no
cue that fine-tuning without labels could strengthen.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results.commands import once, train
from PIL import Image

from napari_mcm.core.evaluation.labels import label_patches
from napari_mcm.core.features import read_features
from napari_mcm.core.slides import open_slide
from napari_mcm.core.studies.study_config import StudyConfig, StudySlide

STEPS, BATCH = 300, 32


def ceiling(config: StudyConfig, work: Path) -> dict[str, dict[str, float]]:
    """Train on all folds but the first, and test there.

    Returns
    -------
    dict
        Of ``classify evaluate``: ``scores`` holds accuracy, balanced accuracy, ...
    """
    folder = work / "ceiling"
    table = folder / "patches.csv"
    if not table.exists():
        export(config, folder, table)
    run_dir = folder / "run"
    size = config.base["grid"]["patch_size"]
    train(run_dir, "classify", "train", table, "--init", config.student,
          "--image-size", size, "--steps", STEPS, "--batch-size", BATCH,
          "--crop-scale", 1)  # fmt: skip
    scores = folder / "scores"
    once(scores / "scores.json", "classify", "evaluate", run_dir, table,
         "--split", "test", "--out", scores)  # fmt: skip
    figures: dict[str, dict[str, float]] = json.loads(
        (scores / "scores.json").read_text()
    )
    return figures


def export(config: StudyConfig, folder: Path, table: Path) -> None:
    """Write the labelled patches as pictures, and the table that names them."""
    first = config.slides[0].fold
    classes = config.evaluation["classes"]
    rows: list[Sequence[object]] = [("path", "label", "split", "group")]
    for slide in config.slides:
        split = "test" if slide.fold == first else "train"
        for path, label in _patches(slide, config, folder, classes):
            rows.append((path.relative_to(folder), label, split, slide.slide.name))
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _patches(
    slide: StudySlide, config: StudyConfig, folder: Path, classes: Sequence[str]
) -> list[tuple[Path, str]]:
    assert config.out is not None and slide.labels is not None
    name = slide.slide.name.split(".")[0]
    grid = read_features(config.out / "features" / "A" / f"{name}.features.zarr").grid
    side = grid.patch_size
    found = []
    with open_slide(slide.slide) as opened:
        for number, label in enumerate(label_patches(slide.labels, grid)):
            if label not in classes:
                continue
            path = folder / "patches" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = opened.read(grid.xy[number], (side, side), grid.mpp)
            Image.fromarray(pixels).save(path)
            found.append((path, label))
    return found
