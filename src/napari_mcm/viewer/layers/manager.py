"""Slides, the maps and pictures over them, and the marks: all layers of the plugin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from psygnal import Signal

from napari_mcm.viewer.layers.markers import MARKER, TOP_PATCH, Markers
from napari_mcm.viewer.layers.metadata import (
    KEY,
    SlideMetadata,
    kind_of,
    metadata_of,
    on_slide,
    place,
    slide_of,
    with_mpp,
)
from napari_mcm.viewer.layers.stack import LayerStack

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.heatmaps import Heatmap
    from napari_mcm.viewer.layers.metadata import LayerData

__all__ = ["MARKER", "TOP_PATCH", "LayerManager", "Overlay"]

OPACITY = 0.6
RANGE = (-1.0, 1.0)
"""What limits can be chosen from by hand: all that a cosine can be."""
COLOUR_BAR_PX = (20, 200)
UNDER_MAPS = ("tissue", "grid", "overlay")
"""What a map goes over, where it lies on the slide when the map is made."""


@dataclass(frozen=True, eq=False)
class Overlay:
    """A small picture over a slide, in two colours or its own; NaN is transparent.

    Attributes
    ----------
    name : str
        Of a new layer.
    raster : ndarray of float32, or of uint8, shape (height, width, 3)
        Values from 0 to 1, or a picture.
    origin, step : tuple of float
        Upper left corner (x, y), and a pixel's width and height, in level-0 pixels.
    colours : tuple of tuple of float
        RGBA of 0 and of 1; none of a picture.
    """

    name: str
    raster: Any
    origin: tuple[float, float]
    step: tuple[float, float]
    colours: tuple[tuple[float, ...], tuple[float, ...]] | None = None


class LayerManager(LayerStack):
    """Adds, updates and finds the plugin's layers of one viewer.

    Layers are identified by object, not by name: renamed ones keep their place, and those
    that the user deleted are made again when there is something to show.

    Attributes
    ----------
    slides_changed, changed : Signal
        There are other slides, or other layers of any kind.
    """

    slides_changed = Signal()
    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(viewer)
        self._maps: dict[tuple[int, str], Image] = {}
        self._overlays: dict[str, Image] = {}
        self._barless: WeakSet[Image] = WeakSet()
        self._markers, self._top = Markers(self), Markers(self, TOP_PATCH)
        layers = viewer.layers.events
        layers.inserted.connect(self._added)
        layers.removed.connect(self._removed)
        for slide in self.slides():
            slide.events.name.connect(self._renamed)

    def slides(self) -> list[Layer]:
        """Return the slide layers, from the bottom up."""
        return [layer for layer in self.viewer.layers if SlideMetadata.of_layer(layer)]

    def pictures(self) -> list[Layer]:
        """Return slides and other layers of coloured pixels, but for the plugin's own."""
        return [
            layer
            for layer in self.viewer.layers
            if SlideMetadata.of_layer(layer)
            or (getattr(layer, "rgb", False) and _is_other(layer))
        ]

    def annotations(self) -> list[Layer]:
        """Return layers of boxes and points that are not the plugin's own."""
        return [
            layer
            for layer in self.viewer.layers
            if hasattr(layer, "selected_data") and _is_other(layer)
        ]

    def add_slide(self, read: list[LayerData]) -> None:
        """Add what the reader made of a slide, and have it looked at."""
        from napari.layers import Layer

        for data in read:
            self.activate(self.add(Layer.create(*data)))

    def state_mpp(self, slide: Layer, mpp: float) -> None:
        """Return a slide that states no resolution the one that the user knows."""
        opened = slide_of(slide)
        assert opened is not None
        slide.metadata = {**slide.metadata, **metadata_of(with_mpp(opened, mpp))}
        slide.scale = (mpp, mpp)
        slide.units = ("um", "um")
        self.viewer.reset_view()
        self.slides_changed.emit()

    def show_map(
        self,
        slide: Layer,
        slot: str,
        name: str,
        heatmap: Heatmap,
        thumbnail: bool = True,
    ) -> Image:
        """Draw a heatmap over its slide, in the layer of its slot.

        Colour map, opacity and visibility belong to the user once the layer is there;
        only values, limits and place are set again.

        Parameters
        ----------
        slide : Layer
            The slide's layer.
        slot : str
            Which of the maps of the slide this is.
        name : str
            Name for a new layer.
        heatmap : Heatmap
            What to show.
        thumbnail : bool
            Whether the list of layers shows it at once, too, which takes a while.
        """
        layer = self.map_of(slide, slot)
        if layer is None:
            return self._add_map(slide, slot, name, heatmap)
        limits_stay = tuple(layer.contrast_limits) == heatmap.limits
        grid, raster = heatmap.grid, heatmap.raster
        moved = place(layer, slide, grid.origin, grid.patch_size_level0)
        if moved or layer.data.shape != raster.shape:
            layer.data = raster
        else:
            # New data would have the viewer work out the extent of all layers again,
            # which takes longer than the query itself.
            layer.data[:] = raster
            shown = thumbnail and limits_stay
            layer.refresh(extent=False, thumbnail=shown, highlight=False)
        if not limits_stay:
            layer.contrast_limits = heatmap.limits
        return layer

    def empty_map(self, slide: Layer, slot: str) -> None:
        """Show nothing in a slot's layer, where there is one."""
        if (layer := self.map_of(slide, slot)) is not None:
            layer.data[:] = np.nan
            layer.refresh(extent=False, highlight=False)

    def map_of(self, slide: Layer, slot: str) -> Image | None:
        """Find the layer of a slide's slot; None where there is none, or no longer."""
        return self.alive(self._maps.get((id(slide), slot)))

    def top_of(self, slide: Layer) -> Layer:
        """Find what lies highest of a slide and its maps: areas go over it."""
        maps = [
            self.map_of(slide, slot) for owner, slot in self._maps if owner == id(slide)
        ]
        there = [layer for layer in (slide, *maps) if layer in self]
        return max(there, key=self.viewer.layers.index, default=slide)

    def show_only(self, slide: Layer, slot: str) -> None:
        """Show one of a slide's maps and hide the others."""
        for owner, other in list(self._maps):
            if owner == id(slide) and (layer := self.map_of(slide, other)) is not None:
                layer.visible = other == slot

    def show_bars_of(self, slide: Layer | None) -> None:
        """Show the colour bars of one slide's maps only: others lie under it, or aside."""
        for (owner, _), layer in list(self._maps.items()):
            if owner != id(slide) and layer.colorbar.visible:
                layer.colorbar.visible = False
                self._barless.add(layer)
            elif owner == id(slide) and layer in self._barless:
                layer.colorbar.visible = True
                self._barless.discard(layer)

    def draw(self, slide: Layer, key: str, overlay: Overlay) -> Image:
        """Draw an overlay, in place of the one that was drawn last under its key."""
        layer = self._put(slide, key, overlay)
        layer.visible = True
        return layer

    def drawn(self, key: str) -> Image | None:
        """Find the layer of an overlay; None where there is none, or no longer."""
        return self.alive(self._overlays.get(key))

    def show_pictures(
        self, slide: Layer | None, pictures: Sequence[Overlay], visible: Sequence[bool]
    ) -> list[Image]:
        """Show pictures on a slide, or without one by themselves, each under its name.

        Parameters
        ----------
        slide : Layer or None
            In whose pixels they lie; None for pixels of their own.
        pictures : sequence of Overlay
            From the bottom up.
        visible : sequence of bool
            Whether a picture is seen when it is first shown.
        """
        fresh = [self.drawn(picture.name) is None for picture in pictures]
        layers = [self._put(slide, picture.name, picture) for picture in pictures]
        for layer, new, seen in zip(layers, fresh, visible, strict=True):
            if new:
                layer.visible = seen
        if any(fresh) and not self.slides():
            self.viewer.reset_view()
        return layers

    def _put(self, slide: Layer | None, key: str, overlay: Overlay) -> Image:
        layer = self.drawn(key)
        if layer is None:
            layer = self._overlays[key] = self._add_overlay(slide, key, overlay)
        else:
            layer.data = overlay.raster
            place(layer, slide, overlay.origin, overlay.step)
        return layer

    def hide(self, key: str) -> None:
        """Hide an overlay, where it is drawn."""
        if (layer := self.drawn(key)) is not None:
            layer.visible = False

    def look_at(
        self, slide: Layer, centre: tuple[float, float], side: float, px: float
    ) -> None:
        """Have the viewer look at a place of a slide, near enough to see it.

        Parameters
        ----------
        slide : Layer
            The slide's layer.
        centre : tuple of float
            Level-0 pixels (x, y).
        side : float
            How much there is to see, in level-0 pixels.
        px : float
            That is at least so large on the screen, in pixels.
        """
        camera = self.viewer.scene.camera
        camera.center = slide.data_to_world(centre[::-1])
        camera.zoom = max(camera.zoom, px / (side * float(slide.scale[-1])))

    def bring_up(self, slide: Layer) -> None:
        """Show a slide, and hide the other slides with their maps."""
        for other in self.slides():
            other.visible = other is slide
        for owner, slot in list(self._maps):
            if owner != id(slide):
                self._maps[owner, slot].visible = False

    def mark(self, slide: Layer, grid: PatchGrid, patch: int) -> None:
        """Frame a patch that was gone to, beside those of the query."""
        self._top.mark(slide, grid, [patch])

    def mark_examples(
        self, slide: Layer, grid: PatchGrid, like: Sequence[int], unlike: Sequence[int]
    ) -> None:
        """Frame the patches of a query, and cross out those to be unlike."""
        self._markers.mark(slide, grid, like, unlike)
        self._top.clear()

    def unmark(self) -> None:
        """Take all frames away."""
        self._markers.clear()
        self._top.clear()

    def _add_map(self, slide: Layer, slot: str, name: str, heatmap: Heatmap) -> Image:
        from napari.layers import Image

        grid = heatmap.grid
        layer = Image(
            heatmap.raster,
            name=name,
            colormap=heatmap.colormap,
            contrast_limits=heatmap.limits,
            interpolation2d="nearest",
            blending="translucent",
            opacity=OPACITY,
            **on_slide(
                slide, "heatmap", grid.origin, grid.patch_size_level0, slot=slot
            ),
        )
        self._maps[id(slide), slot] = self.add(layer, over=self._under_maps(slide))
        layer.contrast_limits_range = RANGE
        layer.colorbar.size = COLOUR_BAR_PX
        layer.colorbar.visible = True
        self.viewer.canvas.overlays.scale_bar.visible = True
        return layer

    def _under_maps(self, slide: Layer) -> Layer:
        """Find what a new map goes over; areas, regions and marks stay above it."""
        top, layers = self.top_of(slide), list(self.viewer.layers)
        for layer in layers[layers.index(top) + 1 :] if top in layers else ():
            if kind_of(layer) not in UNDER_MAPS:
                break
            top = layer
        return top

    def _add_overlay(self, slide: Layer | None, key: str, overlay: Overlay) -> Image:
        from napari.layers import Image
        from napari.utils.colormaps import Colormap

        look: dict[str, Any] = {"rgb": True}
        if overlay.colours is not None:
            colormap = Colormap(overlay.colours, name=key)
            look = {"colormap": colormap, "contrast_limits": (0, 1)}
        # Without a slide of its own it has the units of those that are open.
        like = slide or next(iter(self.slides()), None)
        layer = Image(
            overlay.raster,
            name=overlay.name,
            interpolation2d="nearest",
            blending="translucent",
            **look,
            **on_slide(like, "overlay", key=key),
        )
        place(layer, slide, overlay.origin, overlay.step)
        return self.add(layer)

    def _added(self, event: Any) -> None:
        self.changed.emit()
        if SlideMetadata.of_layer(event.value):
            event.value.events.name.connect(self._renamed)
            self.viewer.canvas.overlays.scale_bar.visible = True
            self.slides_changed.emit()

    def _removed(self, event: Any) -> None:
        self.changed.emit()
        gone = event.value
        lost = {key: layer for key, layer in self._maps.items() if key[0] == id(gone)}
        kept = {key: layer for key, layer in self._maps.items() if key not in lost}
        self._maps = {key: layer for key, layer in kept.items() if layer is not gone}
        self.drop_later(lost.values())
        if SlideMetadata.of_layer(gone):
            gone.events.name.disconnect(self._renamed)
            self.slides_changed.emit()

    def _renamed(self, _event: Any) -> None:
        self.slides_changed.emit()


def _is_other(layer: Layer) -> bool:
    return KEY not in layer.metadata
