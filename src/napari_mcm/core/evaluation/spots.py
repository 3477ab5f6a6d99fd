"""Patches centred on labelled points, as on the spots of spatial transcriptomics.

They lie on no common lattice. Each point gets a block of its own, three by three patches
with the point in the middle, and a gap around the block: neighbours on this lattice are
neighbours on the slide, and no block meets another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.evaluation.config import EvaluateConfig
from napari_mcm.core.evaluation.labels import find_label_files, read_points
from napari_mcm.core.features.extraction import extract
from napari_mcm.core.features.layout import feature_path
from napari_mcm.core.grid import PatchGrid, common_mpp
from napari_mcm.core.jobs import Job, Note
from napari_mcm.core.slides import Slide

_BLOCK, _PITCH = 3, 4


def spot_grid(
    slide: Slide, centres: NDArray[np.float64], patch_size: int, mpp: float
) -> PatchGrid:
    """Lay a block of three by three patches around each point.

    Parameters
    ----------
    slide : Slide
        Open.
    centres : ndarray of float64, shape (M, 2)
        Points x, y in level-0 pixels.
    patch_size : int
        Side of a patch, in pixels of `mpp`.
    mpp : float
        Microns per pixel.

    Returns
    -------
    PatchGrid
        Those that lie wholly inside the slide; blocks whose middle does not are left
        out.
    """
    step = patch_size * mpp / np.asarray(slide.mpp)
    wide = max(int(np.ceil(np.sqrt(len(centres)))), 1)
    xy, lattice = [], []
    for number, centre in enumerate(centres):
        corner = centre - step / 2
        if _inside(corner, step, slide):
            first = np.asarray(divmod(number, wide)) * _PITCH
            for place in np.ndindex(_BLOCK, _BLOCK):
                at = corner + (np.asarray(place[::-1]) - 1) * step
                if _inside(at, step, slide):
                    xy.append(np.rint(at))
                    lattice.append(first + place)
    rows = -(-len(centres) // wide) * _PITCH
    described: dict[str, Any] = {
        "patch_size": patch_size,
        "mpp": mpp,
        "patch_size_level0": step.tolist(),
        "origin": (0.0, 0.0),
        "shape": (max(rows, 1), wide * _PITCH),
        "slide": {
            "name": slide.name,
            "fingerprint": slide.fingerprint,
            "size": list(slide.size),
            "mpp": list(slide.mpp),
            **({"icc": True} if slide.asked.icc else {}),
        },
    }
    return PatchGrid.from_description(
        described, np.reshape(xy, (-1, 2)), np.reshape(lattice, (-1, 2))
    )


def _inside(
    corner: NDArray[np.float64], step: NDArray[np.float64], slide: Slide
) -> bool:
    return bool((corner >= 0).all() and (corner + step <= slide.size).all())


def extract_spots(config: EvaluateConfig, names: Mapping[str, str]) -> Job[list[Path]]:
    """Compute the features of patches centred on points.

    Parameters
    ----------
    config : EvaluateConfig
        Slides, and their tables of points.
    names : mapping of str to str
        Folder, in ``out/centred``, of each encoder.

    Returns
    -------
    list of Path
        The feature files.

    Raises
    ------
    ConfigError
        If the labels are regions, or slides have no labels.
    """
    from napari_mcm.core.encoders import load_encoders

    assert config.out is not None
    loaded = yield from load_encoders(list(names), config.compute)
    encoders = dict(zip(names, loaded, strict=True))
    slides: list[Slide] = []
    written: list[Path] = []
    try:
        for path in config.slides:
            slides.append(config.read.open(path))
        points = _points(config, [slide.name for slide in slides])
        mpp = common_mpp(slides, config.grid)
        for slide in slides:
            if slide.name not in points:
                yield Note(f"{slide.name} has no labels and is left out", "warning")
                continue
            grid = spot_grid(slide, points[slide.name], config.grid.patch_size, mpp)
            for spec, encoder in encoders.items():
                file = feature_path(config.out / "centred" / names[spec], slide)
                yield from extract(
                    slide,
                    grid,
                    encoder,
                    file,
                    batch_size=config.batch_size,
                    workers=config.workers,
                )
                written.append(file)
    finally:
        for slide in slides:
            slide.close()
    return written


def _points(
    config: EvaluateConfig, slides: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    found = {}
    pattern = config.label_pattern or "*.csv"
    for slide, path in find_label_files(config.labels, slides, pattern).items():
        if path.suffix.lower() not in (".csv", ".tsv"):
            raise ConfigError("is no table of points", path, "Leave out --centred")
        rows = read_points(path, config.columns)
        found[slide] = np.asarray([row[:2] for row in rows if row[3]], np.float64)
        found[slide] = found[slide].reshape(-1, 2)
    return found
