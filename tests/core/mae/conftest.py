"""A small ViT and pictures of many colours for tests of masked autoencoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.mae import (
    AugmentConfig,
    MaskingConfig,
    ModelConfig,
    PretrainConfig,
    RecipeConfig,
)

CPU = ComputeConfig(device="cpu", precision="float32")
SMALL = ModelConfig(model="tiny", image_size=32, vit_patch=8, depth=2)
LIGHT = MaskingConfig(decoder_width=32, decoder_depth=1, decoder_heads=2)


def smooth_picture(rng: np.random.Generator, side: int = 48) -> np.ndarray:
    """Blobs of colour: something that surroundings tell a little about."""
    coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def write_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(smooth_picture(rng)).save(folder / f"picture_{number:02d}.png")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of twelve pictures."""
    return write_pictures(tmp_path / "pictures", 12)


@pytest.fixture
def config(pictures: Path, tmp_path: Path) -> PretrainConfig:
    """A pre-training of a second."""
    return PretrainConfig(
        pictures=(pictures,),
        out=tmp_path / "run",
        model=SMALL,
        masking=LIGHT,
        augment=AugmentConfig(crop_scale=0.5),
        recipe=RecipeConfig(batch_size=4, steps=12, base_lr=0.03),
        compute=CPU,
        chunk_images=2,
    )
