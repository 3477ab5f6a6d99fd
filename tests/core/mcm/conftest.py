"""Tiny encoders and windows for tests of the method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mcm import ContextConfig, FinetuneConfig, OptimiserConfig
from napari_mcm.core.mcm.window_pixels import Window
from napari_mcm.core.tissue import TissueConfig

STUDENT = "random:test_efficientnet"
TEACHER = "random:test_resnet"


@pytest.fixture
def student() -> Encoder:
    """A student of half a million weights."""
    return load_encoder(STUDENT, ComputeConfig(precision="float32"))


@pytest.fixture
def teacher() -> Encoder:
    """A frozen teacher of another architecture."""
    return load_encoder(TEACHER, ComputeConfig(precision="float32"))


@pytest.fixture
def config(tissue_slide: Path, tmp_path: Path) -> FinetuneConfig:
    """A fine-tuning of seconds: 32 px patches, 2-deep Transformer."""
    return FinetuneConfig(
        slides=(tissue_slide,),
        student=STUDENT,
        teacher=TEACHER,
        out=tmp_path / "run",
        grid=GridConfig(patch_size=32, mpp=1.0),
        tissue=TissueConfig(tissue_mpp=4),
        context=ContextConfig(
            context_mode="masked", s=3, depth=2, heads=4, width=64, predictor_width=64
        ),
        optimiser=OptimiserConfig(
            batch_windows=4,
            student_lr=1e-4,
            head_lr=5e-4,
            lr_scaling="none",
            head_epochs=1,
        ),
    )


def make_window(
    seed: int,
    masked: list[int],
    empty: tuple[int, ...] = (),
    s: int = 3,
    side: int = 32,
) -> Window:
    """A window of patches of many colours, with given masked and tissue-free places."""
    rng = np.random.default_rng(seed)

    def patches(count: int) -> np.ndarray:
        colour = rng.integers(0, 206, (count, 1, 1, 3))
        return (colour + rng.integers(0, 50, (count, side, side, 3))).astype(np.uint8)

    hidden = np.zeros(s * s, bool)
    hidden[masked] = True
    visible = ~hidden
    visible[list(empty)] = False
    return Window(
        visible,
        hidden,
        patches(visible.sum()),
        patches(hidden.sum()),
    )
