"""Registration of two serial sections, as a job.

Both sections become tissue masks and textures at low resolution. A search over all
angles, both sides and all shifts gives candidates; each is refined to an affine
transform and the best is kept; a smooth flow follows what remains, from coarse to fine.
The error is measured on squares of tissue that further fits of the flow leave out.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import binom

from napari_mcm.core.errors import RegistrationError
from napari_mcm.core.registration.affine import apply_affine, fit_affine
from napari_mcm.core.registration.config import RegistrationConfig
from napari_mcm.core.registration.edges import measure_edges
from napari_mcm.core.registration.flow import Flow, fit_flow, resize_flow
from napari_mcm.core.registration.residual import (
    BlockMatcher,
    Match,
    choose_blocks,
    outside_blocks,
    summarise,
)
from napari_mcm.core.registration.result import Registration, Residual
from napari_mcm.core.registration.rough import Affine, search_rigid
from napari_mcm.core.registration.section import (
    Section,
    SectionImage,
    correlate,
    read_section,
    sample,
)
from napari_mcm.core.runtime.jobs import Job, Progress
from napari_mcm.core.runtime.overall import weighed
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import TissueConfig, TissueMask

_COARSE = 100
"""Pixels along the longer side at which angles are searched."""

_FINE, _LARGE = 256, 1500
"""Least and largest number of pixels along the longer side of the last step."""

_CANDIDATES = 8

_STEPS = 10
"""Flow corrections per resolution."""

_WINDOW = 16.0
"""Standard deviation of the flow's window in pixels of each resolution."""

_FLOW = 3 * 2 * _STEPS
"""Steps that a fit of the flow reports: two for each correction at each resolution."""

_ANGLES, _GUESSED_STEPS = 240, 150
"""Steps that the search reports: one per angle and side, then those of affine fits, of
which there are as many as it takes."""

_READING = ("Reading the first section", "Reading the second section")

_SEARCHING, _MEASURING = "Searching shift and angle", "Measuring the error"

_FITTING, _CHECKING = "Fitting the smooth flow", "Checking the result"

_SHARES = {
    **dict.fromkeys(_READING, 1.0),
    _SEARCHING: 3.0,
    _MEASURING: 6.0,
    _FITTING: 1.0,
    _CHECKING: 0.2,
}
"""Expected durations of the stages."""

_BY_ACCIDENT, _SURE = 1 / 9, 0.05
"""Squares within 60 µm of their place where nothing corresponds (a circle of 60 µm in a
square of 320 µm), and the probability below which that is no explanation."""

_LEAST_BLOCKS, _LEAST_CORRELATION = 4, 0.6
"""With fewer squares than that, the textures must correlate as much instead."""


def register_sections(
    first: Slide,
    second: Slide,
    config: RegistrationConfig | None = None,
    tissue: TissueConfig | None = None,
    masks: tuple[TissueMask | None, TissueMask | None] = (None, None),
) -> Job[Registration]:
    """Register two serial sections of one block.

    Parameters
    ----------
    first, second : Slide
        The sections, with known resolutions. The second may be shifted, turned by any
        angle, mirrored, stretched and in pieces that moved a little on their own.
    config : RegistrationConfig, optional
        Resolution, and squares for the error.
    tissue : TissueConfig, optional
        How tissue is found.
    masks : tuple of TissueMask or None, optional
        Tissue of each section where it is known already.

    Yields
    ------
    Progress
        Several times a second.

    Returns
    -------
    Registration
        Map from the first section to the second, with its error.

    Raises
    ------
    RegistrationError
        If a slide has no tissue, or the sections do not correspond.
    SlideError
        If a resolution is unknown, or a slide cannot be read.
    """
    config, tissue = config or RegistrationConfig(), tissue or TissueConfig()
    job = _register((first, second), masks, config, tissue)
    return (yield from weighed(job, _SHARES))


def _register(
    slides: tuple[Slide, Slide],
    masks: tuple[TissueMask | None, TissueMask | None],
    config: RegistrationConfig,
    tissue: TissueConfig,
) -> Job[Registration]:
    extent = max(n * m for s in slides for n, m in zip(s.size, s.mpp, strict=True))
    fine = max(min(config.registration_mpp, extent / _FINE), extent / _LARGE)
    sections = []
    for slide, mask, stage in zip(slides, masks, _READING, strict=True):
        read = partial(read_section, slide, fine, tissue, mask)
        section = yield from run_in_thread(f"{stage}: {slide.name}", read, abandon=True)
        sections.append(section)
    fit = _Fit(slides, (sections[0], sections[1]), fine, extent / _COARSE)
    turns = fit.turns(config)
    squares = sum(len(corners) for corners in turns)
    yield from _counted(_SEARCHING, fit.search(), _ANGLES + _GUESSED_STEPS)
    yield from _counted(_MEASURING, fit.measure(turns), len(turns) * _FLOW + squares)
    yield from _counted(_FITTING, fit.fit(), _FLOW)
    return (yield from run_in_thread(_CHECKING, fit.result, config, abandon=True))


def _counted(stage: str, work: Generator[object, None, None], total: int) -> Job[None]:
    """Report the steps of a stage as its progress."""
    for done, _ in enumerate(work, 1):
        yield Progress(stage, min(done, total), total, unit="steps")


class _Fit:
    """The state of one registration; its methods are called in their order."""

    def __init__(
        self,
        slides: tuple[Slide, Slide],
        sections: tuple[Section, Section],
        fine: float,
        coarse: float,
    ) -> None:
        self._slides, self._sections = slides, sections
        self._fine, self._coarse = fine, coarse
        self._affine: Affine = np.eye(2, 3)
        self._flow: Flow = np.zeros((1, 1, 2), np.float32)
        self._residual = summarise([])

    def search(self) -> Generator[object, None, None]:
        """Find the affine transform."""
        candidates = yield from search_rigid(*self._at(self._coarse))
        first, second = self._at(self._coarse / 1.5)
        best = -np.inf
        for candidate in candidates[:_CANDIDATES]:
            # A wide blur first: candidates are up to half a step of the angle off.
            affine, _ = yield from fit_affine(first, second, candidate.affine, 2.0)
            affine, score = yield from fit_affine(first, second, affine, 1.0)
            if score > best:
                self._affine, best = affine, score
        for mpp in (4 * self._fine, 2 * self._fine):
            if mpp < self._coarse:
                images = self._at(mpp)
                self._affine, _ = yield from fit_affine(*images, self._affine, 1.0)

    def turns(self, config: RegistrationConfig) -> list[NDArray[np.float64]]:
        """Choose the squares of tissue that the fit leaves out in turns."""
        image = self._sections[0].at(self._fine)
        return choose_blocks(image, config.error_blocks, config.registration_seed)

    def measure(
        self, turns: list[NDArray[np.float64]]
    ) -> Generator[object, None, None]:
        """Fit the flow without some squares, in turns, and measure the error on them."""
        found: list[Match] = []
        for corners in turns:
            flow = yield from self._fit_flow(corners)
            matcher = BlockMatcher(
                self._slides, self._sections, self._affine, flow, self._flow_mpp(flow)
            )
            found += yield from matcher.measure(corners)
        self._residual = summarise(found)

    def fit(self) -> Generator[object, None, None]:
        """Fit the flow on all tissue."""
        self._flow = yield from self._fit_flow(np.zeros((0, 2)))

    def result(self, config: RegistrationConfig) -> Registration:
        """Return the registration.

        Raises
        ------
        RegistrationError
            If the sections do not correspond.
        """
        first, second = self._at(self._fine)
        places = first.places_um() + resize_flow(self._flow, first.texture.shape)
        places = apply_affine(self._affine, places)
        weight = first.tissue * sample(second.tissue, second.mpp, places)
        moved = sample(ndimage.gaussian_filter(second.texture, 1), second.mpp, places)
        fixed = ndimage.gaussian_filter(first.texture, 1)
        rho = correlate(fixed, moved, weight)
        _check(self._slides, rho, self._residual)
        return Registration(
            self._affine,
            self._flow,
            self._flow_mpp(self._flow),
            rho,
            float(weight.sum() / first.tissue.sum()),
            self._residual,
            _identity(self._slides[0]),
            _identity(self._slides[1]),
            config.model_dump(mode="json"),
            measure_edges(
                self._sections, self._affine, self._flow, self._flow_mpp(self._flow)
            ),
        )

    def _fit_flow(self, left_out: NDArray[np.float64]) -> Generator[object, None, Flow]:
        flow: Flow = np.zeros((1, 1, 2), np.float32)
        for mpp in (4 * self._fine, 2 * self._fine, self._fine):
            first, second = self._at(mpp)
            use = outside_blocks(first, left_out)
            window = _WINDOW * first.mpp[0]
            flow = yield from fit_flow(
                first, second, self._affine, flow, window, _STEPS, use
            )
        return flow

    def _at(self, mpp: float) -> tuple[SectionImage, SectionImage]:
        first, second = (section.at(mpp) for section in self._sections)
        return first, second

    def _flow_mpp(self, flow: Flow) -> tuple[float, float]:
        height, width = flow.shape[:2]
        section = self._sections[0]
        rows, columns = section.density.shape
        return section.mpp[0] * columns / width, section.mpp[1] * rows / height


def _identity(slide: Slide) -> dict[str, Any]:
    return {
        "name": slide.name,
        "fingerprint": slide.fingerprint,
        "size": list(slide.size),
        "mpp": list(slide.mpp),
    }


def _check(slides: tuple[Slide, Slide], correlation: float, residual: Residual) -> None:
    """Refuse sections that do not correspond.

    Raises
    ------
    RegistrationError
        If too few squares match, or the textures are not alike.
    """
    found = round(residual.near * residual.blocks)
    if residual.blocks >= _LEAST_BLOCKS:
        # P(at least `found` of the squares are near by accident).
        chance = float(binom.sf(found - 1, residual.blocks, _BY_ACCIDENT))
        counted = f"{found} of {residual.blocks} squares of tissue match in place"
    else:
        chance = float(correlation < _LEAST_CORRELATION)
        counted = f"their textures correlate by {correlation:.2f}"
    if chance < _SURE:
        return
    raise RegistrationError(
        f"does not correspond to {slides[1].name}: {counted}",
        slides[0].path,
        "Give two neighbouring sections of one block",
    )
