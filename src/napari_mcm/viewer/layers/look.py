"""How maps are drawn: style, colours, opacity, and whether they are smooth.

One look is valid for the maps of all slides, also for those made later. What the user
changes in napari's own layer controls stays as it is in that layer, until the same thing
is chosen for all maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from psygnal import Signal

from napari_mcm.core.heatmaps.interpolation import SmoothRaster
from napari_mcm.viewer.layers import colormaps
from napari_mcm.viewer.layers.metadata import place
from napari_mcm.viewer.layers.outlines import OutlineLayers
from napari_mcm.viewer.layers.timers import single_shot

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.utils.colormaps import Colormap
    from numpy.typing import NDArray

    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.layers.manager import LayerManager

Style = Literal["overlay", "spotlight", "outline"]
STYLES: tuple[Style, ...] = ("overlay", "spotlight", "outline")
SIMILARITY_SLOTS = ("first", "second", "third")
"""Slots whose maps are of similarity; other maps keep colours of their own."""
OPACITY = 0.7
"""Initial opacity of maps."""
_LEAST_SHARE = 0.01
"""Least width of the spotlight's ramp, as a share of the colour range."""
OUTLINE_MS = 4000
"""How long what passes stays outlined after the user moved the threshold."""
MOST_PIXELS = 2_500_000
"""Most pixels of a smooth map."""
MOST_SMOOTH = 8
"""Most pixels along the side of a patch in a smooth map; the GPU does the rest."""


@dataclass(frozen=True)
class LookValues:
    """What is remembered of a look.

    Attributes
    ----------
    style : {"overlay", "spotlight", "outline"}
        Colours over the tissue; dissimilar tissue dimmed; or only an outline of what is
        above the threshold.
    colormap : str
        Name of the colour map of similarity maps, see :func:`colormaps.faded`.
    opacity : float
        Opacity of maps, 0 to 1.
    smooth : bool
        Whether values are interpolated between the centres of patches.
    outline_moves : bool
        Whether what passes is outlined while the user moves the threshold.
    """

    style: Style = "overlay"
    colormap: str = colormaps.DEFAULT
    opacity: float = OPACITY
    smooth: bool = False
    outline_moves: bool = True


@dataclass(eq=False)
class _Map:
    """What a layer shows, and which of its properties the user changed."""

    slide: Layer
    slot: str
    heatmap: Heatmap | None
    own: set[str]
    colormap: str = ""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of a heatmap for its layer.

    Attributes
    ----------
    raster : ndarray of float32, shape (height, width)
        Values; NaN is transparent.
    step : tuple of float
        Width and height of a pixel in level-0 pixels.
    """

    raster: NDArray[np.float32]
    step: tuple[float, float]


class MapLook:
    """How all maps of a viewer are drawn.

    Parameters
    ----------
    layers : LayerManager
        Layers of the viewer.

    Attributes
    ----------
    values : LookValues
        Style, colour map, opacity and smoothness.
    threshold : float
        Similarity threshold of the spotlight and of outlines; NaN for none.
    changed : Signal
        Emitted when `values` changed, or a map was hidden or shown.
    """

    changed = Signal()

    def __init__(self, layers: LayerManager) -> None:
        self._layers = layers
        self.values = LookValues()
        self.threshold = float("nan")
        self._maps: WeakKeyDictionary[Image, _Map] = WeakKeyDictionary()
        self._enlarge: SmoothRaster | None = None
        self._hidden: WeakSet[Image] = WeakSet()
        self._without_bar: WeakSet[Image] = WeakSet()
        self._outlines = OutlineLayers(layers)
        self._outlined: WeakSet[Layer] = WeakSet()
        self._moving = single_shot(OUTLINE_MS, self._draw_outlines)
        self._applying = False

    @property
    def style(self) -> Style:
        """Colours over tissue, dimmed surroundings, or an outline."""
        return self.values.style

    @property
    def colormap(self) -> str:
        """Name of the colour map of similarity maps."""
        return self.values.colormap

    @property
    def opacity(self) -> float:
        """Opacity of maps, 0 to 1."""
        return self.values.opacity

    @property
    def smooth(self) -> bool:
        """Whether values are interpolated between the centres of patches."""
        return self.values.smooth

    @property
    def visible(self) -> bool:
        """Whether any map of a visible slide is visible."""
        return any(layer.visible for layer in self._on_screen())

    def use(self, values: LookValues) -> None:
        """Use another look for all maps, also where the user changed a layer.

        Parameters
        ----------
        values : LookValues
            The look. Only what differs from the present one is applied.
        """
        before, self.values = self.values, values
        if before == values:
            return
        released = {
            attribute
            for field, attributes in _DRAWN_BY.items()
            if getattr(before, field) != getattr(values, field)
            for attribute in attributes
        }
        for layer, shown in list(self._maps.items()):
            shown.own -= released
            self._paint(layer, shown)
        self._draw_outlines()
        self.changed.emit()

    def use_style(self, style: Style) -> None:
        """Draw maps as colours, as a spotlight or as outlines."""
        self.use(replace(self.values, style=style))

    def use_colormap(self, colormap: str) -> None:
        """Draw similarity maps in another colour map, by its name."""
        self.use(replace(self.values, colormap=colormap))

    def use_opacity(self, opacity: float) -> None:
        """Draw maps with another opacity, 0 to 1."""
        self.use(replace(self.values, opacity=float(np.clip(opacity, 0, 1))))

    def use_smooth(self, smooth: bool) -> None:
        """Interpolate between the centres of patches, or draw squares."""
        self.use(replace(self.values, smooth=smooth))

    def use_visible(self, visible: bool) -> None:
        """Hide the visible maps, or show those again that were hidden by this."""
        if visible == self.visible:
            return
        layers = self._on_screen()
        if not visible:
            self._hidden = WeakSet(layer for layer in layers if layer.visible)
        chosen = [layer for layer in layers if layer in self._hidden] or layers[-1:]
        for layer in chosen:
            layer.visible = visible

    def is_hidden(self, layer: Image) -> bool:
        """Return whether a map was hidden by :meth:`use_visible`, and still is."""
        return layer in self._hidden and not layer.visible

    def release(self, *attributes: str) -> None:
        """Forget what the user changed in layers.

        Parameters
        ----------
        *attributes : str
            Of ``colormap``, ``opacity``, ``interpolation2d`` and ``contrast_limits``.
        """
        for layer, shown in list(self._maps.items()):
            shown.own -= set(attributes)
            self._paint(layer, shown)

    def use_threshold(self, threshold: float) -> None:
        """Set the threshold of the spotlight and of outlines.

        Parameters
        ----------
        threshold : float
            A cosine similarity; NaN for none.
        """
        if threshold == self.threshold:
            return
        self.threshold = threshold
        for layer, shown in list(self._maps.items()):
            self._paint_limits(layer, shown)
        self._draw_outlines()

    def outline_for_a_while(self) -> None:
        """Outline what is above the threshold for some seconds: it is being moved."""
        if not self.values.outline_moves:
            return
        begins = not self._moving.isActive()
        self._moving.start()
        if begins:
            self._draw_outlines()

    def outline_area(self, slide: Layer, outlined: bool = True) -> None:
        """Outline what is above the threshold on a slide, in any style.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        outlined : bool
            False to outline it in the style `outline` only.
        """
        if outlined:
            self._outlined.add(slide)
        else:
            self._outlined.discard(slide)
        self._draw_outlines()

    def picture_of(self, heatmap: Heatmap) -> Picture:
        """Return the picture of a heatmap, smooth or with one pixel per patch.

        Parameters
        ----------
        heatmap : Heatmap
            The heatmap.
        """
        raster, step = heatmap.raster, heatmap.grid.patch_size_level0
        if heatmap.detail is not None:
            finer = heatmap.detail.shape[0] / raster.shape[0]
            raster, step = heatmap.detail, (step[0] / finer, step[1] / finer)
        if not self.smooth or colormaps.is_flat(heatmap.colormap):
            return Picture(raster, step)
        mask = np.isfinite(raster)
        known = self._enlarge
        if known is None or not np.array_equal(known.mask, mask):
            fitting = int(np.sqrt(MOST_PIXELS / max(raster.size, 1)))
            factor = min(max(fitting, 1), MOST_SMOOTH)
            known = self._enlarge = SmoothRaster(mask, factor)
        factor = known.factor
        return Picture(known.enlarge(raster), (step[0] / factor, step[1] / factor))

    def heatmap_in(self, layer: Image) -> Heatmap | None:
        """Return the heatmap that a layer shows; None if it is no map."""
        shown = self._maps.get(layer)
        return shown.heatmap if shown is not None else None

    def show(self, layer: Image, slide: Layer, slot: str, heatmap: Heatmap) -> None:
        """Note what a map's layer shows, and draw it accordingly.

        Parameters
        ----------
        layer : Image
            Layer of the map, which already has the picture.
        slide : Layer
            Layer of the slide.
        slot : str
            Slot of the map.
        heatmap : Heatmap
            What it shows.
        """
        shown = self._maps.get(layer)
        if shown is None:
            shown = self._maps[layer] = _Map(
                slide, slot, heatmap, set(), heatmap.colormap
            )
            self._paint(layer, shown)
            self._listen(layer, shown)
        else:
            shown.heatmap = heatmap
            if shown.colormap != heatmap.colormap:
                # Another map, in colours of its own.
                shown.colormap = heatmap.colormap
                shown.own.discard("colormap")
                self._paint(layer, shown)
            self._paint_limits(layer, shown)
        self._draw_outline(slide)

    def clear(self, layer: Image) -> None:
        """Note that a map's layer shows nothing."""
        if (shown := self._maps.get(layer)) is not None:
            shown.heatmap = None
            self._draw_outline(shown.slide)

    def limits_of(self, slot: str, heatmap: Heatmap) -> tuple[float, float]:
        """Return the contrast limits of a map.

        Under the spotlight they go with the threshold, where the shade ends.

        Parameters
        ----------
        slot : str
            Slot of the map.
        heatmap : Heatmap
            The map.
        """
        low, high = heatmap.limits
        if self._style_of(slot) != "spotlight" or np.isnan(self.threshold):
            return low, high
        low = min(low, self.threshold - (high - low) * _LEAST_SHARE)
        return low, low + (self.threshold - low) / colormaps.SPOTLIGHT_FROM

    def _draw_outlines(self) -> None:
        for slide in {id(x.slide): x.slide for x in self._maps.values()}.values():
            self._draw_outline(slide)

    def _draw_outline(self, slide: Layer) -> None:
        """Outline the uppermost similarity map of a slide, or hide its outline."""
        order = self._layers.viewer.layers.index
        maps = [
            (layer.visible, order(layer), shown)
            for layer, shown in self._maps.items()
            if shown.slide is slide
            and shown.slot in SIMILARITY_SLOTS
            and layer in self._layers
        ]
        seen, _, shown = max(maps, key=lambda one: one[:2], default=(False, 0, None))
        passing = self.style == "outline" or self._moving.isActive()
        wanted = slide in self._outlined or (passing and seen)
        heatmap = shown.heatmap if shown is not None else None
        if heatmap is None or not wanted:
            self._outlines.hide(slide)
            return
        with np.errstate(invalid="ignore"):
            above = heatmap.raster >= self.threshold
        grid, top = heatmap.grid, self._layers.top_of(slide)
        self._outlines.draw(slide, above, grid.origin, grid.patch_size_level0, top)

    def _style_of(self, slot: str) -> Style:
        """Return how a map is drawn: only similarity has a threshold."""
        return self.style if slot in SIMILARITY_SLOTS else "overlay"

    def _on_screen(self) -> list[Image]:
        """Return the maps of visible slides, from the bottom up."""
        maps = [(x, shown) for x, shown in self._maps.items() if x in self._layers]
        layers = [layer for layer, shown in maps if shown.slide.visible]
        return sorted(layers, key=self._layers.viewer.layers.index)

    def _paint(self, layer: Image, shown: _Map) -> None:
        """Set all properties of a layer that the user did not change."""
        style = self._style_of(shown.slot)
        wanted: dict[str, Any] = {
            "opacity": self.opacity,
            "colormap": self._colormap_of(shown),
            "interpolation2d": self._interpolation_of(shown),
        }
        with self._painting():
            for attribute, value in wanted.items():
                if attribute not in shown.own and getattr(layer, attribute) != value:
                    setattr(layer, attribute, value)
        self._paint_picture(layer, shown)
        self._paint_limits(layer, shown)
        self._switch_bar(layer, style != "outline")

    def _paint_picture(self, layer: Image, shown: _Map) -> None:
        """Replace the picture if it has become smooth, or stopped to be so."""
        if shown.heatmap is None:
            return
        picture = self.picture_of(shown.heatmap)
        if layer.data.shape != picture.raster.shape:
            place(layer, shown.slide, shown.heatmap.grid.origin, picture.step)
            layer.data = picture.raster

    def _paint_limits(self, layer: Image, shown: _Map) -> None:
        if shown.heatmap is None or "contrast_limits" in shown.own:
            return
        limits = self.limits_of(shown.slot, shown.heatmap)
        if tuple(layer.contrast_limits) != limits:
            with self._painting():
                layer.contrast_limits = limits

    def _colormap_of(self, shown: _Map) -> Colormap:
        style = self._style_of(shown.slot)
        if shown.slot == "difference":
            return colormaps.diverging()
        if shown.slot not in SIMILARITY_SLOTS:
            return colormaps.named(shown.colormap)
        if style == "spotlight":
            return colormaps.spotlight()
        return (
            colormaps.nothing()
            if style == "outline"
            else colormaps.faded(self.colormap)
        )

    def _interpolation_of(self, shown: _Map) -> str:
        smooth = self.smooth and not colormaps.is_flat(shown.colormap)
        return "linear" if smooth else "nearest"

    def _switch_bar(self, layer: Image, visible: bool) -> None:
        """Hide the colour bar of a map without colours; show it again later."""
        if not visible and layer.colorbar.visible:
            layer.colorbar.visible = False
            self._without_bar.add(layer)
        elif visible and layer in self._without_bar:
            layer.colorbar.visible = True
            self._without_bar.discard(layer)

    def _listen(self, layer: Image, shown: _Map) -> None:
        """Note what the user changes in a layer from now on."""
        for attribute in ("opacity", "colormap", "interpolation2d", "contrast_limits"):

            def changed(_event: Any, attribute: str = attribute) -> None:
                if not self._applying:
                    shown.own.add(attribute)

            getattr(layer.events, attribute).connect(changed)
        layer.events.visible.connect(self._visibility_changed)

    def _visibility_changed(self, _event: Any) -> None:
        self._draw_outlines()
        self.changed.emit()

    @contextmanager
    def _painting(self) -> Iterator[None]:
        """Tell changes of this class from those of the user."""
        before, self._applying = self._applying, True
        try:
            yield
        finally:
            self._applying = before


_DRAWN_BY: dict[str, tuple[str, ...]] = {
    "style": ("colormap", "contrast_limits"),
    "colormap": ("colormap",),
    "opacity": ("opacity",),
    "smooth": ("interpolation2d",),
}
"""Field of the look to the properties of a layer that it sets."""


class HasLayers(Protocol):
    """What :func:`look_of` takes: the session of a viewer."""

    layers: LayerManager


def look_of(session: HasLayers) -> MapLook:
    """Return the look of a session's maps.

    Parameters
    ----------
    session : Session
        Session of a viewer.
    """
    return session.layers.look
