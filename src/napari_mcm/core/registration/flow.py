"""The smooth flow: what an affine transform cannot follow, as a field of displacements.

Serial sections stretch, fold and tear, and pieces of one block drift apart on the glass.
From coarse to fine, the displacement u(x) is corrected by Lucas-Kanade steps: in a
Gaussian window around each pixel,

    δu = (Σ w ∇T ∇Tᵀ + λ 1)⁻¹ Σ w ∇T (T₁ - T₂(x + u)),

where w counts only what is tissue in both sections, so that glass and held-out blocks
have no say. A window's mean of u then replaces u, which keeps the field smooth.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.registration.affine import apply_affine
from napari_mcm.core.registration.rough import Affine
from napari_mcm.core.registration.section import Image, SectionImage, sample

Flow = NDArray[np.float32]
"""Displacements (x, y) in microns, in the first section's frame; shape (height, width, 2)."""

_BLUR = 1.0

_RIGID = 0.05
"""λ over the mean of the diagonal: where a window holds no texture, nothing moves."""

_LONGEST_STEP = 2.0
"""Pixels that one step may move; beyond that the linear model does not hold."""


def resize_flow(flow: Flow, shape: tuple[int, int]) -> Flow:
    """Return a flow on another lattice that covers the same section.

    Parameters
    ----------
    flow : ndarray of float32, shape (height, width, 2)
        Displacements in microns.
    shape : tuple of int
        Rows and columns of the result.

    Returns
    -------
    ndarray of float32, shape (rows, columns, 2)
        Bilinear.
    """
    height, width = flow.shape[:2]
    rows = np.clip((np.arange(shape[0]) + 0.5) * height / shape[0] - 0.5, 0, height - 1)
    columns = np.clip(
        (np.arange(shape[1]) + 0.5) * width / shape[1] - 0.5, 0, width - 1
    )
    at = np.meshgrid(rows, columns, indexing="ij")
    parts = [ndimage.map_coordinates(flow[..., i], at, order=1) for i in (0, 1)]
    return np.asarray(np.stack(parts, axis=-1), np.float32)


def fit_flow(
    first: SectionImage,
    second: SectionImage,
    affine: Affine,
    start: Flow,
    window_um: float,
    steps: int,
    use: NDArray[np.bool_] | None = None,
) -> Generator[None, None, Flow]:
    """Refine the displacement field at one resolution.

    Parameters
    ----------
    first, second : SectionImage
        At the same resolution.
    affine : ndarray of float64, shape (2, 3)
        Microns in the first to microns in the second, before the flow.
    start : ndarray of float32, shape (height, width, 2)
        Displacements to start from, on any lattice.
    window_um : float
        Standard deviation of the window in microns.
    steps : int
        Number of steps.
    use : ndarray of bool, shape (height, width), optional
        Pixels of the first section that count; by default all.

    Yields
    ------
    None
        After each step.

    Returns
    -------
    ndarray of float32, shape (height, width, 2)
        Displacements in microns; a point x of the first section lies at
        ``affine(x + u(x))`` in the second.
    """
    shape = first.texture.shape
    flow = resize_flow(start, shape)
    fixed = ndimage.gaussian_filter(first.texture, _BLUR)
    moving = ndimage.gaussian_filter(second.texture, _BLUR)
    counts = first.tissue if use is None else first.tissue * use
    places = first.places_um()
    sigma = max(window_um / first.mpp[0], 2.0)
    for _ in range(steps):
        moved = apply_affine(affine, places + flow)
        weight = counts * sample(second.tissue, second.mpp, moved)
        step = _step(fixed, sample(moving, second.mpp, moved), weight, sigma)
        yield
        flow = _smooth(flow + step * first.mpp[0], counts, sigma / 2)
        yield
    return flow


def _step(fixed: Image, moved: Image, weight: Image, sigma: float) -> Flow:
    """Return one correction in pixels, shape (height, width, 2)."""
    # The mean of both slopes is unbiased to second order.
    y, x = np.gradient((fixed + moved) / 2)
    gap = fixed - moved
    products = (x * x, y * y, x * y, x * gap, y * gap)
    xx, yy, xy, xg, yg = (
        _window(np.asarray(weight * product, np.float32), sigma) for product in products
    )
    share: Image = np.maximum(_window(weight, sigma), 1e-6)
    typical = (
        float((weight * (x * x + y * y)).sum()) / max(float(weight.sum()), 1.0) / 2
    )
    ridge = np.asarray(_RIGID * typical * np.maximum(share, 0.05) + 1e-12, np.float32)
    xx += ridge
    yy += ridge
    determinant = xx * yy - xy * xy
    step = np.stack([yy * xg - xy * yg, xx * yg - xy * xg], axis=-1)
    step /= np.maximum(determinant, 1e-20)[..., None]
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    return np.asarray(
        step * np.minimum(1, _LONGEST_STEP / np.maximum(length, 1e-9)), np.float32
    )


def _window(image: Image, sigma: float) -> Image:
    # Beyond 2.5 deviations a Gaussian weighs under 5 %; the cost grows with its width.
    return np.asarray(ndimage.gaussian_filter(image, sigma, truncate=2.5), np.float32)


def _smooth(flow: Flow, tissue: Image, sigma: float) -> Flow:
    """Average over tissue nearby; far out on glass, over all of it."""
    share = _window(tissue, sigma)[..., None]
    total = max(float(tissue.sum()), 1.0)
    whole = (flow * tissue[..., None]).sum(axis=(0, 1)) / total
    parts = [_window(flow[..., i] * tissue, sigma) for i in (0, 1)]
    # A little of the section's mean keeps far glass, where all weights vanish, finite.
    return np.asarray(
        (np.stack(parts, axis=-1) + 1e-3 * whole) / (share + 1e-3), np.float32
    )
