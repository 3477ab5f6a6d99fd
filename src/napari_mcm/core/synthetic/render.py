"""Drawing a planned slide one square at a time, so that memory use stays small.

A square is rendered as two images, the amounts of haematoxylin and eosin: stroma, cell
sheets and fat are painted from the plan's signed depths, nuclei are pasted as stamps,
and :func:`~napari_mcm.core.synthetic.stain.develop` turns the dyes into colour.
Collagen is drawn by line integral convolution [1]_.

References
----------
.. [1] B. Cabral, L. C. Leedom, "Imaging vector fields using line integral
   convolution", SIGGRAPH 1993.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_mcm.core.synthetic.cells import Cells, Palette, Points, pack, place_cells
from napari_mcm.core.synthetic.chart import Chart
from napari_mcm.core.synthetic.field_effect import FieldEffect
from napari_mcm.core.synthetic.layout import SEPTUM, Layout
from napari_mcm.core.synthetic.stain import Stain, develop, draw_stain
from napari_mcm.core.synthetic.textures import Field, enlarge, soften
from napari_mcm.core.synthetic.variation import BUNDLES, EOSIN, Variation

BLOCK = 512
"""Side of a square in level-0 pixels, small enough for a processor's cache."""


@dataclass(frozen=True)
class Stroma:
    """Fibres and fat cells, which serial sections of a block share.

    Attributes
    ----------
    fibres : tuple of ndarray of float32, shape (rows, columns)
        Direction of collagen, see :func:`lay_fibres`.
    adipocytes : ndarray, shape (n, 2)
        Centres of fat cells in µm (x, y).
    """

    fibres: tuple[Field, Field]
    adipocytes: Points


@dataclass(frozen=True)
class Scene:
    """A slide that is ready to be drawn.

    Attributes
    ----------
    layout : Layout
        The plan.
    palette : Palette
        Stamps and textures of the cohort.
    stain : Stain
        How the slide is stained.
    fibres : tuple of ndarray of float32, shape (rows, columns)
        Direction of collagen, see :func:`lay_fibres`.
    adipocytes : ndarray, shape (n, 2)
        Centres of fat cells in µm (x, y).
    cells : dict of str to Cells
        Stamps to paste, by kind.
    ground : ndarray of float32, shape (rows, columns)
        Relative thickness of the section.
    shade : ndarray of float32, shape (rows, columns)
        Fraction of the light that the optics transmit.
    shift : tuple of int
        Offset (y, x) of the textures in pixels.
    field_effect : FieldEffect or None
        What the tumour changes in the tissue around it.
    variation : Variation or None
        How the tissue varies from place to place.
    """

    layout: Layout
    palette: Palette
    stain: Stain
    fibres: tuple[Field, Field]
    adipocytes: Points
    cells: dict[str, Cells]
    ground: Field
    shade: Field
    shift: tuple[int, int]
    field_effect: FieldEffect | None = None
    variation: Variation | None = None


def lay_stroma(layout: Layout) -> Stroma:
    """Lay the fibres and the fat cells of a plan.

    Parameters
    ----------
    layout : Layout
        The plan; its chart supplies the randomness.

    Returns
    -------
    Stroma
        Fibres and fat cells.
    """
    chart = layout.chart
    guide = np.maximum(layout.sheets, np.maximum(layout.lobules, layout.fat))
    guide = np.maximum(guide, np.maximum(layout.vessels, layout.glands))
    fibres = lay_fibres(chart, np.maximum(guide, -layout.tissue))
    return Stroma(fibres, pack(chart, layout.fat, 58.0, -60.0))


def set_scene(
    layout: Layout,
    palette: Palette,
    stroma: Stroma | None = None,
    field_effect: FieldEffect | None = None,
    variation: Variation | None = None,
) -> Scene:
    """Place what a plan leaves open: fibres, fat cells, nuclei and stain.

    Parameters
    ----------
    layout : Layout
        The plan; its chart supplies the randomness.
    palette : Palette
        Stamps and textures of the cohort.
    stroma : Stroma, optional
        Fibres and fat cells, where an earlier section of the block has laid them.
    field_effect : FieldEffect, optional
        What the tumour changes in the tissue around it; by default nothing.
    variation : Variation, optional
        How the tissue varies from place to place; by default not at all.

    Returns
    -------
    Scene
        The slide, ready for :func:`draw_block`.
    """
    chart = layout.chart
    stroma = stroma or lay_stroma(layout)
    middle = chart.extent / 2
    corner = np.hypot(chart.x - middle, chart.y - middle) / (chart.extent * 0.7)
    across, down = (int(v) for v in chart.rng.integers(0, 1024, 2))
    return Scene(
        layout,
        palette,
        draw_stain(chart.rng),
        stroma.fibres,
        stroma.adipocytes,
        place_cells(layout, palette, stroma.fibres, stroma.adipocytes, variation),
        # Sections are never evenly thick, nor evenly stained.
        1 + 0.07 * chart.noise(120) + 0.05 * chart.noise(30),
        (1 - 0.016 * np.square(corner)).astype(np.float32),
        (across, down),
        field_effect,
        variation,
    )


def draw_block(scene: Scene, y: int, x: int) -> NDArray[np.uint8]:
    """Draw one square of a slide.

    Parameters
    ----------
    scene : Scene
        The slide.
    y, x : int
        Upper left corner in level-0 pixels, multiples of `BLOCK`.

    Returns
    -------
    ndarray of uint8, shape (BLOCK, BLOCK, 3)
        RGB pixels.
    """
    return _Square(scene, y, x).draw()


class _Square:
    """One square and the margin that stamps and blurring need."""

    def __init__(self, scene: Scene, y: int, x: int) -> None:
        self.scene, self.chart = scene, scene.layout.chart
        self.mpp = self.chart.pitch / self.chart.step
        self.margin = self.chart.step
        self.y, self.x = y - self.margin, x - self.margin
        self.side = BLOCK + 2 * self.margin
        self.shape = (self.side, self.side)

    def draw(self) -> NDArray[np.uint8]:
        layout = self.scene.layout
        tissue = self.field(layout.tissue)
        inner = slice(self.margin, self.margin + BLOCK)
        h = e = np.zeros((BLOCK, BLOCK), np.float32)
        if tissue.max() > -6:
            h, e = (_blur(dye)[inner, inner] for dye in self._dyes(tissue))
        ink = None
        if layout.pen is not None:
            amount = self.field(layout.pen.amount)[inner, inner]
            ink = (amount, layout.pen.colour) if amount.any() else None
        shade = self.field(self.scene.shade)[inner, inner]
        white = self.scene.palette.white
        grain = 1.3 * white.window(7 * self.y, 3 * self.x, (BLOCK + 3, BLOCK))
        return develop(self.scene.stain, h, e, ink, shade, grain)

    def field(self, field: Field) -> Field:
        """Interpolate a field of the chart to full resolution, shape (side, side)."""
        return enlarge(field, self.y, self.x, self.side, self.chart.step)

    def texture(self, name: str) -> Field:
        """Return a window, shape (side, side), of one of the palette's textures."""
        dy, dx = self.scene.shift
        texture = getattr(self.scene.palette, name)
        window: Field = texture.window(self.y + dy, self.x + dx, self.shape)
        return window

    def _dyes(self, tissue: Field) -> tuple[Field, Field]:
        layout = self.scene.layout
        fine, mid = self.texture("fine"), self.texture("mid")
        ragged = 0.5 * mid + 0.3 * fine
        sheets = self.field(layout.sheets) + ragged
        if sheets.max() > 0:
            septa = np.abs(self.field(layout.nests)) - SEPTUM + 0.3 * mid
            sheets = np.minimum(sheets, septa)
        glands = self.field(layout.glands) + ragged
        lumens = self.field(layout.lumens) + 0.6 * mid
        vessels = self.field(layout.vessels)
        h, e = self._stroma(sheets, mid, fine)
        self._line(e, sheets, glands, vessels)
        self._epithelium(h, e, np.maximum(sheets, glands), mid, fine)
        hollow = soften(lumens, 1.6)
        secretion = soften(self.field(self.scene.ground) - 1.03 + 0.02 * mid, 0.1)
        h *= 1 - hollow
        e *= 1 - hollow * (1 - 0.3 * secretion * (vessels < 0))
        fat = self.field(layout.fat) + 1.2 * mid
        if fat.max() > -2:
            self._fat(h, e, fat)
        cover = soften(tissue + 0.8 * mid + 0.8 * fine, 4.5)
        h *= cover
        e *= cover
        self._paste_nuclei(h, e)
        ground = self.field(self.scene.ground)
        h *= ground
        e *= ground * (1 + 0.05 * fine)
        if self.scene.variation is not None:
            e *= 1 + np.float32(EOSIN) * self.field(self.scene.variation.eosin)
        if self.scene.field_effect is not None:
            amount = self.field(self.scene.field_effect.amount)
            if amount.any():
                e *= 1 + amount * self.scene.field_effect.ripple(self.y, self.x, mid)
        return h, e

    def _stroma(self, sheets: Field, mid: Field, fine: Field) -> tuple[Field, Field]:
        """Draw collagen: fibres in bundles, pale cracks between, loose near lobules."""
        thin, thick = self._fibres()
        if self.scene.variation is not None:
            coarse = np.float32(BUNDLES) * self.field(self.scene.variation.bundles)
            thin, thick = thin * (1 - coarse), thick * (1 + coarse)
        broad = self.field(self.scene.ground)
        loose = soften(self.field(self.scene.layout.lobules), 30) * 0.4
        e = 0.40 + 0.085 * thin + 0.10 * thick + 0.02 * mid
        e *= (1 - loose) * (0.3 + 0.7 * broad)
        crack = soften(-thick - 1.15 + 1.2 * (broad - 1) + 0.3 * mid, 0.5)
        # Nests shrink away from the stroma here and there.
        cleft = soften(3.2 - np.abs(sheets + 4.5), 2.0)
        cleft *= soften(mid * 0.2 + 3 * (broad - 1.10), 0.15)
        e *= 1 - 0.88 * np.maximum(crack, cleft)
        np.maximum(e, 0, out=e)
        h = 0.018 + 0.05 * loose + 0.012 * thin
        return np.maximum(h, 0).astype(np.float32), e.astype(np.float32)

    def _fibres(self) -> tuple[Field, Field]:
        """Draw thin fibres and thick bundles at half resolution."""
        edge = -(-REACH // self.chart.step) * self.chart.step
        step, side = self.chart.step // 2, self.side // 2 + 2 * edge
        y, x = self.y // 2 - edge, self.x // 2 - edge
        twice = [enlarge(part, y, x, side, step) for part in self.scene.fibres]
        angle = 0.5 * np.arctan2(twice[1], twice[0])
        cos, sin = np.cos(angle), np.sin(angle)
        dy, dx = self.scene.shift
        drawn = []
        for texture, gain in (
            (self.scene.palette.white, 4.2),
            (self.scene.palette.bundles, 2.2),
        ):
            noise = texture.window(y + dy, x + dx, (side, side))
            fibres = gain * draw_out(noise, cos, sin)
            inner = slice(edge, edge + self.side // 2 + 1)
            drawn.append(enlarge(fibres[inner, inner], 0, 0, self.side, 2))
        return drawn[0], drawn[1]

    def _line(self, e: Field, sheets: Field, glands: Field, vessels: Field) -> None:
        """Draw basement membranes and vessel walls: thin dense lines."""
        border = np.minimum(np.abs(sheets + 0.8), np.abs(glands + 0.8))
        e += 0.10 * soften(0.9 - border, 1.2)
        e += 0.22 * soften(2.2 - np.abs(vessels - 1.0), 2.0)

    def _epithelium(
        self, h: Field, e: Field, inside: Field, mid: Field, fine: Field
    ) -> None:
        """Draw the cytoplasm of sheets and acini, paler where cells meet."""
        if inside.max() < -2:
            return
        cover = soften(inside, 1.4)
        bodies = np.zeros(self.shape, np.float32)
        for at, _, (cone,) in self._stamps("bodies", self.scene.palette.bodies):
            np.maximum(bodies[at], cone, out=bodies[at])
        border = soften(0.27 - bodies + 0.03 * mid, 0.12)
        cytoplasm = 0.31 + 0.05 * mid + 0.05 * fine
        cytoplasm *= 1 - 0.38 * border
        h += cover * (0.12 + 0.02 * mid + 0.015 * fine - h)
        e += cover * (cytoplasm - e)

    def _fat(self, h: Field, e: Field, fat: Field) -> None:
        """Draw fat cells: empty, with thin membranes that thicken where three meet."""
        coarse = 4
        line = (np.arange(self.side // coarse + 1) * coarse).astype(np.float64)
        gx, gy = np.meshgrid(line + self.x, line + self.y)
        tree = cKDTree(self.scene.adipocytes)
        points = np.stack([gx.ravel(), gy.ravel()], axis=1) * self.mpp
        points += 3.5 * np.sin(points[:, ::-1] / 17)
        near, _ = tree.query(points, k=3)
        second = np.maximum(near[:, 1] - near[:, 0], 1e-3)
        third = np.maximum(near[:, 2] - near[:, 0], 1e-3)
        # A harmonic mean rounds the corners, as surface tension does.
        wall = (1 / (1 / second + 1 / third)).reshape(gx.shape).astype(np.float32)
        wall = enlarge(wall, 0, 0, self.side, coarse)
        membrane = soften(1.7 - wall, 1.6)
        cover = soften(fat, 2.0)
        e += cover * (0.42 * membrane - e)
        h -= cover * h

    def _paste_nuclei(self, h: Field, e: Field) -> None:
        covered = np.zeros(self.shape, np.float32)
        for at, gain, (disc,) in self._stamps(
            "red_cells", self.scene.palette.red_cells
        ):
            np.maximum(e[at], gain * disc, out=e[at])
        for kind, bank in self.scene.palette.nuclei.items():
            for at, gain, (dye, cover) in self._stamps(kind, bank.stain, bank.cover):
                under = covered[at]
                # Overlapping nuclei are darker, but not twice as dark.
                h[at] += dye * (gain - 0.6 * under)
                np.maximum(under, cover, out=under)
        e *= 1 - 0.45 * covered

    def _stamps(
        self, kind: str, *stamps: Field
    ) -> Iterator[tuple[tuple[slice, slice], float, list[Field]]]:
        """Yield where each stamp of a kind lies on the square, its strength, its pixels."""
        half, side = stamps[0].shape[1] // 2, self.side
        low, high = -half, side + half
        if kind not in self.scene.cells:
            return
        cells = self.scene.cells[kind].within(
            self.x + low, self.y + low, self.x + high, self.y + high
        )
        left, top = cells.x - self.x - half, cells.y - self.y - half
        for x, y, which, gain in zip(
            left.tolist(),
            top.tolist(),
            cells.stamp.tolist(),
            cells.gain.tolist(),
            strict=True,
        ):
            rows = slice(max(y, 0), min(y + 2 * half + 1, side))
            cols = slice(max(x, 0), min(x + 2 * half + 1, side))
            part = (
                slice(rows.start - y, rows.stop - y),
                slice(cols.start - x, cols.stop - x),
            )
            yield (rows, cols), gain, [stamp[which][part] for stamp in stamps]


def _blur(field: Field) -> Field:
    """Blur as the microscope does, with a 1-2-1 kernel along both axes."""
    out = field.copy()
    out[1:-1] = 0.5 * field[1:-1] + 0.25 * (field[:-2] + field[2:])
    done = out.copy()
    done[:, 1:-1] = 0.5 * out[:, 1:-1] + 0.25 * (out[:, :-2] + out[:, 2:])
    return done


STAGES = (1, 2, 4, 8, 16)

REACH = sum(STAGES) + len(STAGES)


def draw_out(noise: Field, cos: Field, sin: Field) -> Field:
    """Smear noise along streamlines, as line integral convolution does.

    Each stage averages two copies moved along the direction, twice as far as the
    previous stage: five stages sum 32 samples of a curved line at the cost of ten.

    Parameters
    ----------
    noise : ndarray of float32, shape (height, width)
        Noise of unit variance; pixels within `REACH` of its border become invalid.
    cos, sin : ndarray of float32, shape (height, width)
        Unit vectors along x and y.

    Returns
    -------
    ndarray of float32, shape (height, width)
        Fibres, of roughly unit variance.
    """
    width = noise.shape[1]
    here = np.arange(noise.size, dtype=np.int32).reshape(noise.shape)
    fibres = noise.ravel()
    last = noise.size - 1
    for length in STAGES:
        move = _offsets(cos, sin, length, width)
        ahead = np.clip(here + move, 0, last)
        behind = np.clip(here - move, 0, last)
        fibres = (fibres.take(ahead) + fibres.take(behind)).ravel()
        fibres *= np.float32(0.5)
    return fibres.reshape(noise.shape)


def _offsets(cos: Field, sin: Field, length: int, width: int) -> NDArray[np.int32]:
    dy = np.rint(sin * np.float32(length)).astype(np.int32)
    dx = np.rint(cos * np.float32(length)).astype(np.int32)
    offsets: NDArray[np.int32] = dy * np.int32(width) + dx
    return offsets


def lay_fibres(chart: Chart, guide: Field) -> tuple[Field, Field]:
    """Choose the direction of collagen everywhere: wavy, and around structures.

    Parameters
    ----------
    chart : Chart
        The grid, and the randomness.
    guide : ndarray of float32, shape (rows, columns)
        Signed depth in µm inside the structures that fibres surround.

    Returns
    -------
    cos2, sin2 : ndarray of float32, shape (rows, columns)
        Unit vectors of twice the angle: fibres have no direction along their axis,
        so only these can be interpolated.
    """
    # Slow waves, with crimp on a shorter wave.
    swing = np.pi * (0.35 * chart.noise(150) + 0.13 * chart.noise(28))
    swing += chart.rng.uniform(0, np.pi)
    dy, dx = np.gradient(ndimage.gaussian_filter(guide, 2.0))
    around = np.arctan2(dx, -dy)
    pull = np.exp(-np.square(guide / 38)) * np.clip(np.hypot(dy, dx) * 0.4, 0, 1)
    cos2 = pull * np.cos(2 * around) + (1 - pull) * np.cos(2 * swing)
    sin2 = pull * np.sin(2 * around) + (1 - pull) * np.sin(2 * swing)
    length = np.maximum(np.hypot(cos2, sin2), 1e-3)
    return (cos2 / length).astype(np.float32), (sin2 / length).astype(np.float32)
