"""A picture as a query: its features, made as those of the slides were.

The picture is read like a slide, at the resolution of the features, cut into patches of
their size around its middle, and encoded by their encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.format import attributes_of
from napari_mcm.core.features.patches import read_patches
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.slides import ReadConfig, Slide
from napari_mcm.core.slides.slide import SAME_RESOLUTION

if TYPE_CHECKING:
    from napari_mcm.core.encoders import ComputeConfig, Encoder

MOST_PATCHES = 1024
"""Patches of one picture, at most."""

_FITS = 1.0
"""Pixels by which a picture may be too small: its size was rounded."""


def encode_picture(
    path: Path, like: Path, encoder: Encoder, read: ReadConfig
) -> FeatureSet:
    """Compute the features of a picture's patches.

    Parameters
    ----------
    path : Path
        Picture or slide.
    like : Path
        Feature file whose resolution and patch size are used.
    encoder : Encoder
        Its encoder.
    read : ReadConfig
        How the picture is read, and its resolution where the file states none.

    Returns
    -------
    FeatureSet
        Of all patches that fit into the picture, around its middle.

    Raises
    ------
    SlideError
        If the picture cannot be read or states no resolution.
    FeatureError
        If it is coarser than the features, smaller than a patch, too large, or blank.
    """
    described: Mapping[str, Any] = attributes_of(like)["grid"]
    if described["slide"].get("icc"):
        read = read.model_copy(update={"icc": True})
    with read.open(path) as slide:
        grid = _grid_of(slide, int(described["patch_size"]), float(described["mpp"]))
        patches = read_patches(slide, grid, range(len(grid)))
    status = np.array([patch.status for patch in patches], np.uint8)
    pixels = [patch.pixels for patch in patches if patch.pixels is not None]
    if not pixels:
        reason = next((patch.problem for patch in patches if patch.problem), "")
        raise FeatureError(reason or "shows no tissue: all its patches are blank", path)
    values = np.full((len(grid), encoder.dim), np.nan, np.float32)
    values[status == Status.OK] = encoder.encode(np.stack(pixels))
    return FeatureSet(values, grid, status, encoder.describe())


def load_encoder_of(
    like: Path, spec: str | None, compute: ComputeConfig
) -> Job[Encoder]:
    """Load the encoder that made a feature file, as a job.

    Parameters
    ----------
    like : Path
        The feature file.
    spec : str, optional
        The encoder as the user names it; by default as the file does.
    compute : ComputeConfig
        Device; the precision is the file's, unless one is set.

    Yields
    ------
    Event
        While it is loaded.

    Returns
    -------
    Encoder
        The same weights and preprocessing.

    Raises
    ------
    WeightsError
        If it cannot be loaded.
    FeatureError
        If its weights or preprocessing differ.
    """
    from napari_mcm.core.encoders import load_encoder

    described = attributes_of(like).get("encoder", {})
    name = spec or str(described.get("spec") or "")
    if compute.precision == "auto" and described.get("precision"):
        compute = compute.model_copy(update={"precision": described["precision"]})
    if not name:
        raise FeatureError("does not name its encoder", like, "Name it with --encoder")
    encoder = yield from run_in_thread(
        "Loading the encoder", load_encoder, name, compute
    )
    if encoder.fingerprint != fingerprint_of(described):
        raise FeatureError(
            f"was made with another encoder (fingerprint {fingerprint_of(described)}) than "
            f"{name} (fingerprint {encoder.fingerprint})",
            like,
            "Name its encoder with --encoder",
        )
    return encoder


def picture_features(
    paths: tuple[Path, ...],
    like: Path,
    spec: str | None,
    read: ReadConfig,
    compute: ComputeConfig,
) -> Job[list[FeatureSet]]:
    """Compute the features of several pictures, as a job.

    Parameters
    ----------
    paths : tuple of Path
        Pictures or slides.
    like : Path
        Feature file whose encoder, resolution and patch size are used.
    spec : str, optional
        The encoder as the user names it.
    read : ReadConfig
        How the pictures are read.
    compute : ComputeConfig
        Device and precision.

    Yields
    ------
    Event
        Progress in pictures.

    Returns
    -------
    list of FeatureSet
        One per picture.

    Raises
    ------
    McmError
        As for :func:`encode_picture` and :func:`load_encoder_of`.
    """
    encoder = yield from load_encoder_of(like, spec, compute)
    found = []
    for number, path in enumerate(paths):
        progress = Progress("Encoding the query", number, len(paths), "pictures")
        features = yield from run_in_thread(
            progress, encode_picture, path, like, encoder, read, abandon=True
        )
        count = int(features.ok.sum())
        plural = "" if count == 1 else "es"
        yield Note(
            f"{path.name}: {count} patch{plural} of {features.grid.patch_um:.4g} µm"
        )
        found.append(features)
    return found


def _grid_of(slide: Slide, patch_size: int, mpp: float) -> PatchGrid:
    """Lay patches around the middle of a picture, without looking for tissue."""
    own, (width, height) = slide.mpp, slide.size
    columns, rows = _check_size(slide, patch_size, mpp)
    step = (patch_size * mpp / own[0], patch_size * mpp / own[1])
    origin = (
        max((width - columns * step[0]) / 2, 0.0),
        max((height - rows * step[1]) / 2, 0.0),
    )
    lattice = np.indices((rows, columns)).reshape(2, -1).T.astype(np.int32)
    corners = np.asarray(origin) + lattice[:, ::-1] * np.asarray(step)
    identity = {
        "name": slide.name,
        "fingerprint": slide.fingerprint,
        "size": list(slide.size),
        "mpp": list(own),
    }
    return PatchGrid(
        np.rint(corners).astype(np.int64),
        lattice,
        patch_size,
        mpp,
        step,
        origin,
        (rows, columns),
        identity,
    )


def _check_size(slide: Slide, patch_size: int, mpp: float) -> tuple[int, int]:
    """Return how many patches fit along a picture's width and height.

    Raises
    ------
    FeatureError
        If the picture is too coarse, too small or too large.
    """
    own, (width, height) = slide.mpp, slide.size
    if max(own) > mpp * (1 + SAME_RESOLUTION):
        raise FeatureError(
            f"has {max(own):.4g} µm per pixel, coarser than the features' {mpp:.4g}",
            slide.path,
            "Use a picture of higher magnification; --mpp-override corrects a wrong value",
        )
    step = (patch_size * mpp / own[0], patch_size * mpp / own[1])
    columns, rows = int((width + _FITS) / step[0]), int((height + _FITS) / step[1])
    if not columns or not rows:
        raise FeatureError(
            f"is {width * own[0]:.4g} × {height * own[1]:.4g} µm, smaller than a patch of "
            f"{patch_size * mpp:.4g} µm",
            slide.path,
            "Use a larger picture; --mpp-override corrects a wrong resolution",
        )
    if columns * rows > MOST_PATCHES:
        raise FeatureError(
            f"has room for {columns * rows:,} patches, the most is {MOST_PATCHES:,}",
            slide.path,
            "Crop it to the tissue that you look for",
        )
    return columns, rows
