"""Folders of coloured squares: classes that a small network tells apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_mcm.core.cells import ClassifyConfig, FitConfig
from napari_mcm.core.mae import AugmentConfig
from tests.core.mae.conftest import CPU, SMALL

COLOURS = {"Eosinophil": (220, 90, 90), "Lymphocyte": (90, 90, 220)}
COLOURS |= {"Neutrophil": (90, 200, 110), "Basophil": (40, 20, 60)}
COLOURS |= {"Monocyte": (200, 200, 90)}


def write_cell(path: Path, label: str, seed: int, side: int = 40) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 15, (side, side, 3)) + COLOURS[label]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)


def write_classes(
    folder: Path, counts: Mapping[str, int], first_second: int = 0
) -> Path:
    """Write images with names as Raabin-WBC has them, each of its own second."""
    number = first_second
    for label, count in counts.items():
        for _ in range(count):
            name = f"20190531_{number:06d}_0.png"
            write_cell(folder / label / name, label, number)
            number += 1
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes, one of them common."""
    counts = {"Eosinophil": 8, "Lymphocyte": 8, "Neutrophil": 24}
    return write_classes(tmp_path / "cells", counts)


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> ClassifyConfig:
    """A training of a second or two."""
    return ClassifyConfig(
        data=folder,
        out=tmp_path / "classifier",
        model=SMALL,
        fit=FitConfig(steps=24, batch_size=8, base_lr=0.03),
        augment=AugmentConfig(crop_scale=0.5),
        compute=CPU,
        chunk_images=4,
    )
