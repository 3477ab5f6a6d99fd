"""Serial sections of one generated block: the same structures, moved and cut anew.

Two sections of a block, a few µm apart, show the same ducts, lobules and vessels, but not
the same nuclei. On the slide the second one lies turned and shifted, and the knife has
stretched it a little. A point p (in µm) of the first section lies in the second at

    M(p) = c + R (p + u(p) - c) + t,    u(p) = Σ_i a_i sin(k_i · p + φ_i)

with a rotation R about the slide's centre c, a shift t, and a smooth displacement u. The
map is known exactly, so that a registration can be judged by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.runtime.files import write_json
from napari_mcm.core.synthetic.cells import Points
from napari_mcm.core.synthetic.chart import FAR, Blob, Chart
from napari_mcm.core.synthetic.layout import Layout
from napari_mcm.core.synthetic.render import Stroma
from napari_mcm.core.synthetic.textures import Field
from napari_mcm.core.synthetic.variation import Variation

MOST_TURN = math.radians(8)
"""Largest angle between two sections."""

MOST_SHIFT = 0.03
"""Largest shift along either axis, as a fraction of the slide's side."""

STRETCH = 8.0
"""Standard deviation in µm of the amplitude of each wave of the displacement."""

STEP_UM = 200.0
"""Distance in µm between the points of the truth that is written."""


@dataclass(frozen=True)
class SectionMap:
    """Where the points of one section lie in the next.

    Attributes
    ----------
    turn : float
        Rotation in radians, from x towards y.
    shift : tuple of float
        Shift (x, y) in µm.
    centre : float
        Both coordinates of the slide's centre in µm.
    amplitudes : ndarray of float64, shape (waves, 2)
        Displacement (x, y) in µm at the crest of each wave.
    frequencies : ndarray of float64, shape (waves, 2)
        Wave vectors in radians per µm.
    phases : ndarray of float64, shape (waves,)
        Phases in radians.
    """

    turn: float
    shift: tuple[float, float]
    centre: float
    amplitudes: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    phases: NDArray[np.float64]

    def map_um(self, points: Points) -> NDArray[np.float64]:
        """Return where points of the first section lie in the second.

        Parameters
        ----------
        points : ndarray, shape (n, 2)
            Points (x, y) in µm.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            Points (x, y) in µm.
        """
        moved = points + self._displacement(points) - self.centre
        turned = moved @ self._rotation().T
        return np.asarray(turned + self.centre + np.asarray(self.shift), np.float64)

    def unmap_um(self, points: Points) -> NDArray[np.float64]:
        """Return where points of the second section lie in the first.

        Parameters
        ----------
        points : ndarray, shape (n, 2)
            Points (x, y) in µm.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            Points (x, y) in µm, exact to a thousandth.
        """
        straight = (points - np.asarray(self.shift) - self.centre) @ self._rotation()
        straight = straight + self.centre
        origin = straight.copy()
        # p = s - u(p): the displacement is smooth, so each round divides the error by 5.
        for _ in range(8):
            origin = straight - self._displacement(origin)
        return np.asarray(origin, np.float64)

    def _rotation(self) -> NDArray[np.float64]:
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return np.array([[cos, -sin], [sin, cos]])

    def _displacement(self, points: Points) -> NDArray[np.float64]:
        waves = np.sin(points @ self.frequencies.T + self.phases)  # (n, waves)
        return np.asarray(waves @ self.amplitudes, np.float64)


def draw_section_map(extent: float, rng: np.random.Generator) -> SectionMap:
    """Draw how the second section of a block lies relative to the first.

    Parameters
    ----------
    extent : float
        Side of the slide in µm.
    rng : Generator
        Source of the randomness.

    Returns
    -------
    SectionMap
        Turned by up to 8°, shifted by up to 3 % of the side, stretched by tens of µm.
    """
    waves = 4
    # Waves are never short: tissue stretches over millimetres, or a good part of a slide.
    length = rng.uniform(0.5, 1.0, waves) * max(extent, 1200.0)
    angle = rng.uniform(0, 2 * math.pi, waves)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x, y = rng.uniform(-MOST_SHIFT, MOST_SHIFT, 2) * extent
    return SectionMap(
        float(rng.uniform(-MOST_TURN, MOST_TURN)),
        (float(x), float(y)),
        extent / 2,
        rng.normal(0, STRETCH, (waves, 2)),
        direction * (2 * math.pi / length)[:, None],
        rng.uniform(0, 2 * math.pi, waves),
    )


def cut_section(
    layout: Layout,
    stroma: Stroma,
    section: SectionMap,
    chart: Chart,
    variation: Variation | None = None,
) -> tuple[Layout, Stroma, Variation | None]:
    """Cut the second section of a block.

    Structures keep their place in the block, and their outlines move by a few µm. Nuclei,
    thickness and stain are left to :func:`~napari_mcm.core.synthetic.render.set_scene`,
    which draws them from the new chart's randomness.

    Parameters
    ----------
    layout, stroma : Layout, Stroma
        Plan of the first section.
    section : SectionMap
        Where its points lie in the second.
    chart : Chart
        Grid of the second section, of the same size, with its own randomness.
    variation : Variation, optional
        How the block varies, in the first section.

    Returns
    -------
    layout, stroma, variation : Layout, Stroma, Variation or None
        Plan of the second section; it has no pen mark.
    """
    places = np.stack([chart.x.ravel(), chart.y.ravel()], axis=1).astype(np.float64)
    origin = section.unmap_um(places) / chart.pitch  # columns and rows of the first
    at = origin[:, ::-1].T.reshape(2, *chart.shape)

    def move(field: Field, outside: float) -> Field:
        moved = ndimage.map_coordinates(field, at, order=1, cval=outside)
        return np.asarray(moved, np.float32)

    names = ("tissue", "tumour", "ducts", "glands", "lumens", "lobules", "fat")
    fields = {name: move(getattr(layout, name), -FAR) for name in (*names, "vessels")}
    # A structure is cut a few µm deeper: its outline is nearly, not quite, the same.
    fields["tumour"] += 2 * chart.noise(30)
    fields["ducts"] += 2 * chart.noise(30)
    cos2, sin2 = (move(part, 0.0) for part in stroma.fibres)
    cos, sin = np.float32(math.cos(2 * section.turn)), math.sin(2 * section.turn)
    fibres = cos2 * cos - sin2 * np.float32(sin), sin2 * cos + cos2 * np.float32(sin)
    plan = Layout(
        chart=chart,
        nests=move(layout.nests, 0.0),
        lymph=move(layout.lymph, 0.0),
        acini=tuple(_move_blob(blob, section) for blob in layout.acini),
        vessel_blobs=tuple(_move_blob(blob, section) for blob in layout.vessel_blobs),
        pen=None,
        **fields,
    )
    moved = variation and variation.moved(lambda field: move(field, 0.0))
    return plan, Stroma(fibres, section.map_um(stroma.adipocytes)), moved


def _move_blob(blob: Blob, section: SectionMap) -> Blob:
    """Move a small round structure; over its few µm the map is a rotation."""
    ((x, y),) = section.map_um(np.array([[blob.x, blob.y]]))
    return replace(blob, x=float(x), y=float(y), turn=blob.turn + section.turn)


def write_truth(
    path: Path, first: Path, second: Path, section: SectionMap, size_um: float
) -> Path:
    """Write where points of the first section lie in the second, as JSON.

    Parameters
    ----------
    path : Path
        File to write.
    first, second : Path
        The slides of the two sections.
    section : SectionMap
        The map.
    size_um : float
        Side of both slides in µm.

    Returns
    -------
    Path
        The file.
    """
    line = np.arange(STEP_UM / 2, size_um, STEP_UM)
    x, y = np.meshgrid(line, line)
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    content: Mapping[str, Any] = {
        "first": first.name,
        "second": second.name,
        "unit": "µm",
        "turn_degrees": round(math.degrees(section.turn), 4),
        "shift": [round(v, 3) for v in section.shift],
        # Both in µm from the slide's upper left corner: x and y in the first section,
        # x and y of the same place in the second.
        "points": np.hstack([points, section.map_um(points)]).round(3).tolist(),
    }
    write_json(path, dict(content))
    return path
