"""The class `SectionMap`: places of one slide on the other, in level-0 pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import RegistrationError
from napari_mcm.core.registration.result import Registration
from napari_mcm.core.slides import Slide

_STEP_UM = 50.0
"""Half of the distance over which a local linear map is taken."""


@dataclass(frozen=True)
class SectionSlide:
    """One of the two slides of a registration.

    Attributes
    ----------
    name, fingerprint : str
        What identifies it.
    size : tuple of int
        Width and height in level-0 pixels.
    mpp : tuple of float
        Microns per level-0 pixel along x and y at the time of the registration.
    """

    name: str
    fingerprint: str
    size: tuple[int, int]
    mpp: tuple[float, float]


@dataclass(frozen=True, eq=False)
class SectionMap:
    """Where a place of one slide lies on the other, in level-0 pixels.

    Attributes
    ----------
    registration : Registration
        The registration, of either direction.
    source, target : SectionSlide
        The slides.
    backwards : bool
        Whether the source is the registration's second section.
    """

    registration: Registration
    source: SectionSlide
    target: SectionSlide
    backwards: bool

    @property
    def inverse(self) -> SectionMap:
        """The map from the target to the source.

        Returns
        -------
        SectionMap
        """
        return replace(
            self,
            source=self.target,
            target=self.source,
            backwards=not self.backwards,
        )

    def points(self, xy: NDArray[Any]) -> NDArray[np.float64]:
        """Map points.

        Parameters
        ----------
        xy : ndarray, shape (..., 2)
            x and y in level-0 pixels of the source.

        Returns
        -------
        ndarray of float64, shape (..., 2)
            x and y in level-0 pixels of the target; they may lie outside of it. NaN where
            no place corresponds.
        """
        um = np.asarray(xy, np.float64) * self.source.mpp
        turn = self.registration
        mapped = turn.unmap_um(um) if self.backwards else turn.map_um(um)
        return np.asarray(mapped / np.asarray(self.target.mpp))

    def linear_at(self, xy: tuple[float, float]) -> NDArray[np.float64]:
        """Return the affine map that is closest to this one around a point.

        Parameters
        ----------
        xy : tuple of float
            x and y in level-0 pixels of the source.

        Returns
        -------
        ndarray of float64, shape (2, 3)
            Level-0 pixels of the source to those of the target; exact at the point. The
            registration's affine part where no place corresponds.
        """
        centre = np.asarray(xy, np.float64)
        step = _STEP_UM / np.asarray(self.source.mpp)
        # Left, right, above, below, and the point itself.
        around = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)]) * step
        mapped = self.points(centre + around)
        slopes = np.column_stack([mapped[1] - mapped[0], mapped[3] - mapped[2]])
        linear = slopes / (2 * step)
        if not np.isfinite(mapped).all() or abs(np.linalg.det(linear)) < 1e-6:
            return self._affine()
        return np.column_stack([linear, mapped[4] - linear @ centre])

    def _affine(self) -> NDArray[np.float64]:
        affine = np.vstack([self.registration.affine, (0, 0, 1)])
        if self.backwards:
            affine = np.linalg.inv(affine)
        to_um = np.diag((*self.source.mpp, 1.0))
        return np.asarray((affine @ to_um)[:2] / np.asarray(self.target.mpp)[:, None])


def section_map(registration: Registration, source: Slide, target: Slide) -> SectionMap:
    """Return the map between two slides, in either direction.

    Parameters
    ----------
    registration : Registration
        A registration of these slides.
    source, target : Slide
        The slides, open.

    Returns
    -------
    SectionMap
        From the source to the target.

    Raises
    ------
    RegistrationError
        If the registration is of other slides.
    SlideError
        If a slide cannot be read, or its resolution is unknown.
    """
    stated = registration.first, registration.second
    marks = [one["fingerprint"] for one in stated]
    given = [source.fingerprint, target.fingerprint]
    if given not in (marks, marks[::-1]):
        raise RegistrationError(
            f"the registration is of {stated[0]['name']} and {stated[1]['name']}, not "
            f"of {source.name} and {target.name}",
            hint="Register these two slides",
        )
    backwards = given != marks
    one, other = (stated[1], stated[0]) if backwards else stated
    return SectionMap(
        registration, _slide(one, source), _slide(other, target), backwards
    )


def _slide(stated: dict[str, Any], slide: Slide) -> SectionSlide:
    # Microns are those of the registration, whatever resolution was entered since.
    x, y = stated.get("mpp") or slide.mpp
    return SectionSlide(slide.name, slide.fingerprint, slide.size, (float(x), float(y)))
