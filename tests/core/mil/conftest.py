"""A cohort of bags whose class depends on a few of their patches."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet
from napari_mcm.core.features.interchange import save_features
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.mil import AggregatorConfig, MilConfig, TrainingConfig
from napari_mcm.core.mil.config import FiguresConfig, SplitConfig
from napari_mcm.core.mil.results import MilResult
from napari_mcm.core.mil.train import train
from napari_mcm.core.runtime.jobs import Event, run

DIM, SLIDES, MARKED = 8, 24, 3
ENCODER = {"spec": "tiny", "dim": DIM, "fingerprint": "ab", "precision": "float32"}


def make_features(
    vectors: NDArray[np.float32],
    name: str = "slide",
    columns: int = 6,
    encoder: dict[str, Any] | None = None,
) -> FeatureSet:
    """Lay vectors out on a lattice of 100 px patches."""
    lattice = np.asarray([divmod(i, columns) for i in range(len(vectors))], np.int32)
    rows = int(lattice[:, 0].max()) + 1
    slide = {"name": name, "fingerprint": f"f-{name}", "mpp": [0.5, 0.5]}
    slide |= {"size": [columns * 100, rows * 100]}
    grid = PatchGrid(
        lattice[:, ::-1].astype(np.int64) * 100,
        lattice,
        100,
        0.5,
        (100.0, 100.0),
        (0.0, 0.0),
        (rows, columns),
        slide,
    )
    status = np.zeros(len(vectors), np.uint8)
    about = encoder or {**ENCODER, "dim": vectors.shape[1]}
    return FeatureSet(vectors, grid, status, about)


def draw_bag(label: int, seed: int, patches: int | None = None) -> NDArray[np.float32]:
    """Noise; of class k > 0 the first patches stand out in direction k."""
    rng = np.random.default_rng([seed, 77])
    count = patches or int(rng.integers(12, 30))
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    if label:
        vectors[:MARKED, label] += 6
    return vectors


def write_cohort(
    folder: Path, classes: Sequence[str] = ("normal", "tumour"), slides: int = SLIDES
) -> tuple[Path, Path]:
    """Write a table of slides, two a patient, and their features."""
    table, features = folder / "cohort.csv", folder / "features"
    features.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide_id", "label", "case_id"])
        for i in range(slides):
            label = i // 2 % len(classes)
            writer.writerow([f"s{i:02d}.svs", classes[label], f"p{i // 2:02d}"])
            vectors = draw_bag(label, i)
            save_features(
                make_features(vectors, f"s{i:02d}"),
                features / f"s{i:02d}.features.zarr",
            )
    return table, features


@pytest.fixture(scope="session")
def cohort_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give a table of 24 slides of 12 patients and two classes, and features."""
    return write_cohort(tmp_path_factory.mktemp("cohort"))


def make_config(cohort_files: tuple[Path, Path], out: Path) -> MilConfig:
    """A training of a few seconds."""
    table, features = cohort_files
    return MilConfig(
        cohort=table,
        features=features,
        out=out,
        aggregator=AggregatorConfig(hidden=16, width=8, dropout=0.25),
        training=TrainingConfig(epochs=8, min_epochs=4, patience=4, lr=0.01),
        split=SplitConfig(folds=3),
        figures=FiguresConfig(resamples=20),
    )


@pytest.fixture
def config(cohort_files: tuple[Path, Path], tmp_path: Path) -> MilConfig:
    """A training of a few seconds."""
    return make_config(cohort_files, tmp_path / "run")


@pytest.fixture(scope="session")
def finished(
    cohort_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[MilResult, list[Event]]:
    """Give a finished run, only to be looked at, and what it said."""
    events: list[Event] = []
    asked = make_config(cohort_files, tmp_path_factory.mktemp("runs") / "run")
    return run(train(asked), events.append), events
