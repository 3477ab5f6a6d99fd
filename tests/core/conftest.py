"""Small slides that tests of the engine write for themselves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

WriteSlide = Callable[..., Path]


def stained_image(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """White glass with a round piece of pink tissue that holds purple nuclei."""
    return _stained_image(width, height, seed).copy()


@lru_cache(maxsize=32)
def _stained_image(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 243.0)
    y, x = np.mgrid[:height, :width]
    radius = 0.42 * min(width, height)
    tissue = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius**2
    image[tissue] = (222, 150, 190)
    for _ in range(width * height // 900):
        cx, cy, r = rng.integers(0, width), rng.integers(0, height), rng.integers(4, 9)
        box = np.s_[max(cy - r, 0) : cy + r + 1, max(cx - r, 0) : cx + r + 1]
        disk = ((x[box] - cx) ** 2 + (y[box] - cy) ** 2 < r * r) & tissue[box]
        image[box][disk] = (92, 58, 140)
    image += rng.normal(0, 3, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_pyramid(
    path: Path,
    image: NDArray[np.uint8],
    mpp: float | None = 0.5,
    levels: int = 3,
    compression: str | None = "deflate",
) -> Path:
    """Write an image as a pyramidal OME-TIFF."""
    metadata = {"axes": "YXS"}
    if mpp is not None:
        for axis in "XY":
            metadata[f"PhysicalSize{axis}"] = mpp
            metadata[f"PhysicalSize{axis}Unit"] = "µm"
    options = {
        "tile": (256, 256),
        "photometric": "rgb",
        "compression": compression,
    }
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tiff:
        tiff.write(image, subifds=levels - 1, metadata=metadata, **options)
        for _ in range(levels - 1):
            h, w = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
            pooled = image[:h, :w].reshape(h // 2, 2, w // 2, 2, 3)
            image = np.rint(pooled.mean(axis=(1, 3))).astype(np.uint8)
            tiff.write(image, subfiletype=1, **options)
    return path


@pytest.fixture
def write_slide(tmp_path: Path) -> WriteSlide:
    """Give a function that writes an image as a pyramidal OME-TIFF."""

    def write(
        image: NDArray[np.uint8], name: str = "slide.ome.tif", **options: Any
    ) -> Path:
        return write_pyramid(tmp_path / name, image, **options)

    return write


@pytest.fixture(scope="session")
def written_tissue_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the slide that tests take copies of."""
    path = tmp_path_factory.mktemp("tissue") / "slide.ome.tif"
    return write_pyramid(path, stained_image(1200, 1000))


@pytest.fixture
def tissue_slide(written_tissue_slide: Path, tmp_path: Path) -> Path:
    """A 1,200 × 1,000 px slide at 0.5 µm per pixel, its middle full of tissue."""
    return Path(shutil.copy(written_tissue_slide, tmp_path))
