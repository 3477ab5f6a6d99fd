"""The jobs that `cancel.py` presses Cancel in, and what they need before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from napari_mcm.core.cells.config import ClassifyConfig, FitConfig
from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mae.config import PretrainConfig, RecipeConfig
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mil.config import (
    FiguresConfig,
    MilConfig,
    SplitConfig,
    TrainingConfig,
)
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.slides import Slide, open_slide
from napari_mcm.core.studies.ablation_config import AblationConfig
from napari_mcm.viewer.app.commands import reserve_gui_core
from napari_mcm.viewer.app.features import find_mask
from napari_mcm.viewer.cells.controller import classify_boxes
from napari_mcm.viewer.cells.training_controller import (
    ablate_run,
    classify_run,
    resume_classifier,
)
from napari_mcm.viewer.features.jobs import extract_run
from napari_mcm.viewer.finetune.controller import finetune_run, resume_run
from napari_mcm.viewer.mae.controller import pretrain_run, resume_pretraining
from napari_mcm.viewer.mil.controller import resume_run as resume_mil_run
from napari_mcm.viewer.mil.controller import train_run
from napari_mcm.viewer.mil.prediction import PredictionRequest, predict_slide

STUDENT, TEACHER = "offline:efficientnet_lite0", "offline:efficientnet_lite2"
SLIDES_OF_A_COHORT, PATCHES_OF_A_BAG, BOXES = 12, 5000, 400
Make = Callable[[], Job[Any]]


@dataclass(frozen=True)
class Place:
    """Where all lies that the jobs need."""

    root: Path
    slide: Path
    cells: Path

    def run(self, name: str) -> Path:
        """Name a run's folder."""
        return self.root / name


def nothing() -> None:
    """No mask is being written."""


@cache
def opened(path: Path) -> Slide:
    """Open a slide as a layer has it, once for all."""
    return open_slide(path)


def tissue(at: Place, _: Path) -> Make:
    slide = opened(at.slide)
    return lambda: find_mask(slide)


def extraction(at: Place, out: Path) -> Make:
    config = ExtractConfig(
        slides=(at.slide,), encoder=(STUDENT,), out=out, compile="off"
    )
    return lambda: extract_run(config, at.slide, "lite0", nothing)


def fine_tuning(at: Place, out: Path) -> Make:
    if (out / "config.json").exists():
        return lambda: resume_run(out)
    config = FinetuneConfig(
        preset="mcm-kd",
        slides=(at.slide,),
        student=STUDENT,
        teacher=TEACHER,
        out=out,
        # A quarter of the patches: as long a step, but fewer of them.
        grid=GridConfig(mpp=1.0),
    )
    return lambda: finetune_run(config, nothing)


def mil(at: Place, out: Path) -> Make:
    if (out / "config.json").exists():
        return lambda: resume_mil_run(out)
    config = MilConfig(
        cohort=at.root / "cohort.csv",
        features=at.root / "bags",
        out=out,
        training=TrainingConfig(epochs=6, min_epochs=6, patience=6),
        split=SplitConfig(folds=2),
        figures=FiguresConfig(resamples=200),
    )
    return lambda: train_run(reserve_gui_core(config))


def attention(at: Place, _: Path) -> Make:
    with open_slide(at.slide) as slide:
        name = slide.name
    folders = (at.root / "features",)
    request = PredictionRequest(at.run("mil model"), name, at.slide, None, folders)
    return lambda: predict_slide(request)


def pretraining(at: Place, out: Path, model: str = "small") -> Make:
    if (out / "config.json").exists():
        return lambda: resume_pretraining(out)
    config = PretrainConfig(
        pictures=(at.cells,),
        out=out,
        model={"model": model},
        recipe=RecipeConfig(batch_size=8 if model == "base" else 16, steps=8),
    )
    return lambda: pretrain_run(config, nothing)


def large_pretraining(at: Place, out: Path) -> Make:
    """Pre-train the reference's ViT-Base, whose checkpoint has 1.3 GB."""
    return pretraining(at, out, "base")


def classifier(at: Place, out: Path) -> Make:
    if (out / "config.json").exists():
        return lambda: resume_classifier(out)
    config = ClassifyConfig(data=at.cells, out=out, fit=FitConfig(steps=8))
    return lambda: classify_run(config)


def ablation(at: Place, out: Path) -> Make:
    config = AblationConfig(
        data=at.cells, out=out, percent=(10, 100), seeds=1, fit=FitConfig(steps=4)
    )
    return lambda: ablate_run(config)


def boxes(at: Place, _: Path) -> Make:
    slide = opened(at.slide)
    rng, (width, height) = np.random.default_rng(0), slide.size
    corners = rng.integers(0, (width - 80, height - 80), (BOXES, 2)).tolist()
    marked = [(x, y, x + 80, y + 80) for x, y in corners]
    run = at.run("cell model")
    return lambda: classify_boxes(
        run, lambda b: slide.read_level(0, b[0], b[1], 80, 80), marked, COMPUTE
    )


COMPUTE = ComputeConfig()
JOBS: dict[str, Callable[[Place, Path], Make]] = {
    "tissue": tissue,
    "extraction": extraction,
    "fine-tuning": fine_tuning,
    "mil": mil,
    "attention": attention,
    "mae": pretraining,
    "mae-base": large_pretraining,
    "classifier": classifier,
    "ablation": ablation,
    "boxes": boxes,
}
RESUMED = (
    "extraction",
    "fine-tuning",
    "mil",
    "mae",
    "mae-base",
    "classifier",
    "ablation",
)


def bags(at: Place, _: Path) -> Make:
    """Write a cohort of random bags, beside features of the slide."""

    def make() -> Job[None]:
        yield from extraction(at, at.run("features"))()
        write_bags(at)

    return make


def write_bags(at: Place) -> None:
    """Write random bags as the encoder of the slide would have made them."""
    from napari_mcm.core.features.feature_set import FeatureSet
    from napari_mcm.core.features.interchange import read_foreign, save_features
    from napari_mcm.core.grid import PatchGrid

    (file,) = (at.root / "features").glob("*.features.zarr")
    with open_slide(at.slide) as slide:
        encoder = read_foreign(file, slide=slide).encoder
    side, lines = 71, ["slide_id,label,case_id"]
    for number in range(SLIDES_OF_A_COHORT):
        rng, name = np.random.default_rng(number), f"s{number:02d}"
        vectors = rng.standard_normal((PATCHES_OF_A_BAG, encoder["dim"]), np.float32)
        lattice = np.stack(divmod(np.arange(PATCHES_OF_A_BAG), side), 1)
        about = {"name": name, "fingerprint": f"f-{name}", "mpp": [0.5, 0.5]}
        grid = PatchGrid(
            lattice[:, ::-1].astype(np.int64) * 100,
            lattice.astype(np.int32),
            100,
            0.5,
            (100.0, 100.0),
            (0.0, 0.0),
            (side, side),
            {**about, "size": [side * 100, side * 100]},
        )
        status = np.zeros(len(vectors), np.uint8)
        bag = FeatureSet(vectors, grid, status, encoder)
        save_features(bag, at.root / "bags" / f"{name}.features.zarr")
        lines.append(f"{name}.svs,{'ab'[number % 2]},p{number:02d}")
    (at.root / "cohort.csv").write_text("\n".join(lines) + "\n")


def generated(root: Path) -> tuple[Path, Path]:
    """Make a slide, and pieces of it in two classes as if they were cells."""
    from PIL import Image

    from napari_mcm.core.runtime.jobs import run
    from napari_mcm.core.synthetic import SampleConfig, generate_cohort

    made = run(generate_cohort(root / "samples", SampleConfig(slides=1, size=6000)))
    path, cells = Path(made.slides[0]), root / "cells"
    rng = np.random.default_rng(0)
    with open_slide(path) as slide:
        for number in range(200):
            x, y = rng.integers(0, np.asarray(slide.size) - 100).tolist()
            folder = cells / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = slide.read_level(0, x, y, 100, 100)
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return path, cells


NEEDED: dict[str, dict[str, Callable[[Place, Path], Make]]] = {
    "mil": {"cohort.csv": bags},
    "attention": {"cohort.csv": bags, "mil model": mil},
    "boxes": {"cell model": classifier},
}
"""What is made before a job, by where it lies."""
