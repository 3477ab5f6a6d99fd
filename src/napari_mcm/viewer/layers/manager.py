"""All layers of the plugin: slides, heatmaps, overlays and markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from psygnal import Signal

from napari_mcm.viewer.layers.caption import Caption
from napari_mcm.viewer.layers.early_slicing import slice_before_drawing
from napari_mcm.viewer.layers.image_overlay import Overlay
from napari_mcm.viewer.layers.look import MapLook
from napari_mcm.viewer.layers.markers import MARKER, TOP_PATCH, DashedFrame, Markers
from napari_mcm.viewer.layers.metadata import (
    KEY,
    SlideMetadata,
    give_to,
    kind_of,
    metadata_of,
    on_slide,
    owner_of,
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

RANGE = (-1.0, 1.0)
"""Range of the slider of contrast limits: all values that a cosine can have."""
COLOUR_BAR_PX = (20, 200)
"""Width and height of colour bars on the screen, in pixels."""
UNDER_MAPS = ("tissue", "grid", "overlay", "patch scores")
"""Kinds of layers that a new heatmap is placed above."""


class LayerManager(LayerStack):
    """Adds, updates and finds the layers of the plugin in one viewer.

    Layers are identified by object, not by name: users may rename them. Layers that the
    user deleted are created again when there is something to show.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.

    Attributes
    ----------
    look : MapLook
        How heatmaps are drawn.
    slides_changed : Signal
        Emitted when a slide was added, removed or renamed.
    changed : Signal
        Emitted when any layer was added or removed.
    caption : Caption
        The line on the canvas that says what is seen.
    examples : Markers
        The frames of the query's examples.
    """

    slides_changed = Signal()
    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(viewer)
        self.look = MapLook(self)
        slice_before_drawing(viewer)
        self._maps: dict[tuple[int, str], Image] = {}
        self._overlays: dict[str, Image] = {}
        self._hidden_bars: WeakSet[Image] = WeakSet()
        self._empty: WeakSet[Image] = WeakSet()
        self.examples, self._top = Markers(self), DashedFrame(self)
        self.caption = Caption(self)
        self._adopt()
        layers = viewer.layers.events
        layers.inserted.connect(self._added)
        layers.removed.connect(self._removed)
        for slide in self.slides():
            slide.events.name.connect(self._renamed)

    def slides(self) -> list[Layer]:
        """Return the slide layers, from the bottom up."""
        return self.view.slides()

    def image_layers(self) -> list[Layer]:
        """Return slides and RGB layers that the plugin did not make, from the bottom up."""
        return [
            layer
            for layer in self.viewer.layers
            if SlideMetadata.of_layer(layer)
            or (getattr(layer, "rgb", False) and _is_other(layer))
        ]

    def annotations(self) -> list[Layer]:
        """Return shapes and points layers that the plugin did not make."""
        return [
            layer
            for layer in self.viewer.layers
            if hasattr(layer, "selected_data") and _is_other(layer)
        ]

    def add_slide(self, read: list[LayerData]) -> None:
        """Add a slide as a layer and select it.

        Parameters
        ----------
        read : list of LayerData
            Return value of :func:`napari_mcm.viewer.reader.read_slide`.
        """
        from napari.layers import Layer

        for data in read:
            self.activate(self.add(Layer.create(*data)))

    def set_mpp(self, slide: Layer, mpp: float) -> None:
        """Set the resolution of a slide whose file states none.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        mpp : float
            Microns per level-0 pixel.
        """
        opened = slide_of(slide)
        assert opened is not None
        slide.metadata = {**slide.metadata, **metadata_of(with_mpp(opened, mpp))}
        slide.scale = (mpp, mpp)
        slide.units = ("um", "um")
        self.view.refit(slide)
        self.slides_changed.emit()

    def show_map(
        self,
        slide: Layer,
        slot: str,
        name: str,
        heatmap: Heatmap,
        thumbnail: bool = True,
        caption: str = "",
    ) -> Image:
        """Show a heatmap over its slide, in the layer of its slot.

        In an existing layer values, limits, position and name change. What the user
        changed in it stays, see :class:`~napari_mcm.viewer.layers.look.MapLook`; so does
        a name that the user gave.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        slot : str
            Identifies the heatmap among those of the slide.
        name : str
            Name of the layer.
        heatmap : Heatmap
            The heatmap.
        thumbnail : bool
            Whether to update the thumbnail in the layer list now, which is slow.
        caption : str
            What the map shows, for the caption on the canvas; by default the name.
        """
        layer = self.map_of(slide, slot)
        if layer is None:
            layer = self._add_map(slide, slot, name, heatmap)
            self.caption.describe(layer, caption or name)
            return layer
        self._empty.discard(layer)
        self.name_map(layer, name)
        self.caption.describe(layer, caption or name)
        limits = self.look.limits_of(slot, heatmap)
        limits_stay = tuple(layer.contrast_limits) == limits
        picture = self.look.picture_of(heatmap)
        moved = place(layer, slide, heatmap.grid.origin, picture.step)
        if moved or layer.data.shape != picture.raster.shape:
            layer.data = picture.raster
        else:
            # Assigning new data makes napari compute the extent of all layers, which
            # takes longer than the query itself: write into the old data instead.
            layer.data[:] = picture.raster
            shown = thumbnail and limits_stay
            layer.refresh(extent=False, thumbnail=shown, highlight=False)
        self.look.show(layer, slide, slot, heatmap)
        return layer

    def name_map(self, layer: Layer, name: str) -> None:
        """Name a map after what it shows, unless the user named it.

        Parameters
        ----------
        layer : Layer
            Layer of the map.
        name : str
            The name.
        """
        described = layer.metadata[KEY]
        given = described.get("name", "")
        if given == name:
            return
        # napari numbers layers of the same name.
        if re.fullmatch(rf"{re.escape(given)}( \[\d+\])?", layer.name):
            layer.name = name
        layer.metadata = {**layer.metadata, KEY: {**described, "name": name}}

    def empty_map(self, slide: Layer, slot: str) -> None:
        """Clear the heatmap of a slot, but keep its layer.

        Parameters
        ----------
        slide, slot
            As :meth:`show_map` takes them.
        """
        if (layer := self.map_of(slide, slot)) is not None:
            self.caption.describe(layer, "")
            self.look.clear(layer)
            if layer not in self._empty:
                self._empty.add(layer)
                layer.data[:] = np.nan
                layer.refresh(extent=False, highlight=False)

    def map_of(self, slide: Layer, slot: str) -> Image | None:
        """Return the layer of a heatmap; None if it does not exist.

        Parameters
        ----------
        slide, slot
            As :meth:`show_map` takes them.
        """
        return self.alive(self._maps.get((id(slide), slot)))

    def top_of(self, slide: Layer) -> Layer:
        """Return the uppermost of a slide and its heatmaps; areas are placed above it."""
        maps = [
            self.map_of(slide, slot) for owner, slot in self._maps if owner == id(slide)
        ]
        available = [layer for layer in (slide, *maps) if layer in self]
        return max(available, key=self.viewer.layers.index, default=slide)

    def show_only(self, slide: Layer, slot: str) -> None:
        """Show one heatmap of a slide and hide the others.

        Parameters
        ----------
        slide, slot
            As :meth:`show_map` takes them.
        """
        for owner, other in list(self._maps):
            layer = self.map_of(slide, other) if owner == id(slide) else None
            # napari draws a layer anew whenever this is set.
            if layer is not None and layer.visible != (other == slot):
                layer.visible = other == slot

    def show_bars_of(self, slide: Layer | None) -> None:
        """Show only the colour bars of one slide's heatmaps: all would overlap."""
        for (owner, _), layer in list(self._maps.items()):
            if owner != id(slide) and layer.colorbar.visible:
                layer.colorbar.visible = False
                self._hidden_bars.add(layer)
            elif owner == id(slide) and layer in self._hidden_bars:
                layer.colorbar.visible = True
                self._hidden_bars.discard(layer)

    def draw(self, slide: Layer, key: str, overlay: Overlay) -> Image:
        """Show an overlay, and replace the previous one of the same key.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        key : str
            Identifies the overlay.
        overlay : Overlay
            The image.
        """
        layer = self._put(slide, key, overlay)
        layer.visible = True
        return layer

    def drawn(self, key: str) -> Image | None:
        """Return the layer of an overlay; None if it does not exist."""
        return self.alive(self._overlays.get(key))

    def show_images(
        self, slide: Layer | None, images: Sequence[Overlay], visible: Sequence[bool]
    ) -> list[Image]:
        """Show images, on a slide or without one, in one layer per name.

        Parameters
        ----------
        slide : Layer or None
            Layer of the slide whose pixels their positions refer to; None for images of
            their own.
        images : sequence of Overlay
            The images, from the bottom up.
        visible : sequence of bool
            Whether each image is visible when its layer is created.
        """
        fresh = [self.drawn(image.name) is None for image in images]
        layers = [self._put(slide, image.name, image) for image in images]
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
            self.view.give(layer, slide)
        return layer

    def hide(self, key: str) -> None:
        """Hide an overlay, if it exists."""
        if (layer := self.drawn(key)) is not None:
            layer.visible = False

    def zoom_to(
        self, slide: Layer, centre: tuple[float, float], side: float, px: float
    ) -> None:
        """Centre the view on a point of a slide, and zoom in if needed.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        centre : tuple of float
            The point (x, y) in level-0 pixels.
        side : float
            Side of the region to see, in level-0 pixels.
        px : float
            Smallest side of that region on the screen, in pixels.
        """
        camera = self.viewer.scene.camera
        camera.center = slide.data_to_world(centre[::-1])
        camera.zoom = max(camera.zoom, px / (side * float(slide.scale[-1])))

    def mark(self, slide: Layer, grid: PatchGrid, patch: int) -> None:
        """Frame a patch with dashes as the view moved there; the query's frames stay.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        grid : PatchGrid
            Grid of the patch.
        patch : int
            Row of the grid.
        """
        self._top.mark(slide, grid, patch)

    def clear_mark(self) -> None:
        """Remove the frame of :meth:`mark`."""
        self._top.clear()

    def mark_examples(
        self, slide: Layer, grid: PatchGrid, like: Sequence[int], unlike: Sequence[int]
    ) -> None:
        """Frame the similar examples of a query, and cross the dissimilar ones.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        grid : PatchGrid
            Grid of the patches.
        like, unlike : sequence of int
            Rows of the grid: similar and dissimilar examples.
        """
        self.examples.mark(slide, grid, like, unlike)
        self._top.clear()

    def unmark(self) -> None:
        """Remove all frames and crosses."""
        self.examples.clear()
        self._top.clear()

    def _add_map(self, slide: Layer, slot: str, name: str, heatmap: Heatmap) -> Image:
        from napari.layers import Image

        picture = self.look.picture_of(heatmap)
        layer = Image(
            picture.raster,
            name=name,
            contrast_limits=heatmap.limits,
            blending="translucent",
            **on_slide(
                slide,
                "heatmap",
                heatmap.grid.origin,
                picture.step,
                slot=slot,
                name=name,
            ),
        )
        self._maps[id(slide), slot] = self.add(layer, over=self._under_maps(slide))
        layer.contrast_limits_range = RANGE
        layer.colorbar.size = COLOUR_BAR_PX
        # As the legend in the dock, and as on a slide: what is clear is white.
        layer.colorbar.box_color = "white"
        layer.colorbar.visible = True
        self.look.show(layer, slide, slot, heatmap)
        self.viewer.canvas.overlays.scale_bar.visible = True
        return layer

    def _under_maps(self, slide: Layer) -> Layer:
        """Return the layer that a new heatmap goes above.

        Areas, regions and markers stay above the heatmap.
        """
        top, layers = self.top_of(slide), list(self.viewer.layers)
        for layer in layers[layers.index(top) + 1 :] if top in layers else ():
            if kind_of(layer) not in UNDER_MAPS:
                break
            top = layer
        return top

    def _add_overlay(self, slide: Layer | None, key: str, overlay: Overlay) -> Image:
        from napari.layers import Image
        from napari.utils.colormaps import Colormap

        style: dict[str, Any] = {"rgb": True}
        if overlay.colours is not None:
            colormap = Colormap(overlay.colours, name=key)
            style = {"colormap": colormap, "contrast_limits": (0, 1)}
        # Without a slide it takes the units of an open one: napari ignores units if
        # layers differ in them.
        like = slide or next(iter(self.slides()), None)
        layer = Image(
            overlay.raster,
            name=overlay.name,
            interpolation2d="nearest",
            blending="translucent",
            **style,
            **on_slide(like, "overlay", key=key),
        )
        place(layer, slide, overlay.origin, overlay.step)
        give_to(layer, slide)
        return self.add(layer)

    def _adopt(self) -> None:
        """Take over maps of an earlier session, and empty them: nobody knows the query."""
        for layer in list(self.viewer.layers):
            owner, described = owner_of(layer), layer.metadata.get(KEY)
            if kind_of(layer) == "heatmap" and owner is not None and described:
                self._maps[id(owner), described.get("slot", "")] = layer
                self.empty_map(owner, described.get("slot", ""))
            elif kind_of(layer) == "query":
                self.delete(layer)

    def _added(self, event: Any) -> None:
        self.view.added(event.value)
        self.raise_marks_later()
        self.changed.emit()
        if SlideMetadata.of_layer(event.value):
            event.value.events.name.connect(self._renamed)
            self.viewer.canvas.overlays.scale_bar.visible = True
            self.slides_changed.emit()

    def _removed(self, event: Any) -> None:
        removed = event.value
        self.view.removed()
        self.caption.refresh()
        self.changed.emit()
        self._maps = {
            (owner, slot): layer
            for (owner, slot), layer in self._maps.items()
            if owner != id(removed) and layer is not removed
        }
        if SlideMetadata.of_layer(removed):
            # Nothing that lies on a slide may stay and lie over another one.
            self.delete_later(self.view.layers_of(removed))
            removed.events.name.disconnect(self._renamed)
            self.slides_changed.emit()

    def _renamed(self, _event: Any) -> None:
        self.caption.refresh()
        self.slides_changed.emit()


def _is_other(layer: Layer) -> bool:
    return KEY not in layer.metadata
