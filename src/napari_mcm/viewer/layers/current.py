"""One slide on the canvas at a time: which layers are shown, and where the view is.

What is seen is what was asked: the layers of the current slide are shown, those of all
other slides are hidden. Layers that the plugin did not make are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_mcm.viewer.layers.metadata import (
    SlideMetadata,
    give_to,
    kind_of,
    owner_of,
)

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.viewer.layers.linked import LinkedSections
    from napari_mcm.viewer.layers.stack import LayerStack

GAP = 0.05
"""Distance between slides that are side by side, as a fraction of the widest."""
_ONE_ROW = 3
"""Most slides that are laid out in a single row."""

Camera = tuple[tuple[float, float], float]
"""Centre (y, x), in world units from the slide's corner, and zoom."""


class SlideView:
    """Shows one slide with its layers, and hides the layers of all other slides.

    Visibility of each layer is remembered as the user last had it, and so is the view of
    each slide. Side by side, all slides are moved next to each other and shown; of two
    linked sections, each has a half of the canvas instead, and other slides are hidden.

    Parameters
    ----------
    stack : LayerStack
        Layers of the viewer.

    Attributes
    ----------
    current : Layer or None
        Layer of the slide that is shown.
    side_by_side : bool
        Whether all slides are shown next to each other.
    link : LinkedSections or None
        Two registered sections whose views move together.
    chosen : Signal
        Emitted with a slide when the user selects a layer of it in the layer list, or
        shows one with its eye; whoever listens calls :meth:`show`.
    changed : Signal
        Emitted when layers were shown or hidden.
    """

    chosen = Signal(object)
    changed = Signal()

    def __init__(self, stack: LayerStack) -> None:
        self._stack, self._viewer = stack, stack.viewer
        self.current: Layer | None = None
        self.side_by_side = False
        self.link: LinkedSections | None = None
        self._wanted: WeakKeyDictionary[Layer, bool] = WeakKeyDictionary()
        self._cameras: WeakKeyDictionary[Layer, Camera] = WeakKeyDictionary()
        self._quiet = self._removing = False
        self._fit_later = QTimer()
        self._fit_later.setSingleShot(True)
        self._fit_later.timeout.connect(self.fit)
        layers = self._viewer.layers
        layers.selection.events.active.connect(self._selected)
        self._viewer.events.reset_view.connect(self._home)
        for layer in layers:
            if kind_of(layer):
                layer.events.visible.connect(self._eye_clicked)

    def slides(self) -> list[Layer]:
        """Return the slide layers, from the bottom up."""
        return [layer for layer in self._viewer.layers if kind_of(layer) == "slide"]

    def layers_of(self, slide: Layer) -> list[Layer]:
        """Return the layers on a slide, without the slide itself."""
        return [
            layer
            for layer in self._viewer.layers
            if layer is not slide and owner_of(layer) is slide
        ]

    def is_shown(self, slide: Layer) -> bool:
        """Return whether a slide is on the canvas and its eye is open."""
        on_canvas = self._is_on_canvas(slide)
        return on_canvas and slide in self._stack and bool(slide.visible)

    def _is_on_canvas(self, slide: Layer) -> bool:
        if slide is self.current or not self.side_by_side:
            return slide is self.current
        return not self._is_linked() or slide in self._pair()

    def _pair(self) -> tuple[Layer, ...]:
        return () if self.link is None else self.link.pair

    def _is_linked(self) -> bool:
        """Return whether each of two linked sections has a half of the canvas."""
        link = self.link
        wanted = self.side_by_side and link is not None and self.current in link.pair
        return bool(wanted and link is not None and link.is_possible())

    def show(self, slide: Layer | None) -> None:
        """Show a slide and its layers, and hide the layers of all others.

        Its layers are as the user last had them, and so is the view; a slide that is
        shown for the first time is fitted to the canvas.

        Parameters
        ----------
        slide : Layer or None
            Layer of the slide; None if there is none.
        """
        left, self.current = self.current, slide
        if slide is None:
            self.changed.emit()
            return
        if self.link is not None and self.link.is_on != self._is_linked():
            self.lay_out()
            self._fit_later.start()
        if left is not slide and not self.side_by_side:
            self.keep_camera(left)
            self._follow_link(left, slide)
            # The view moves first: a slide is read where it is seen.
            self._place_camera(slide)
        with self._quietly():
            self._apply(slide, visible=True)
            for other in self.slides():
                if other is not slide:
                    self._apply(other, visible=self._is_on_canvas(other))
            self._share_units(slide)
            active = self._stack.active
            owner = None if active is None else owner_of(active)
            # A hidden mask of another slide must not be painted on.
            if owner is not None and owner is not slide and slide in self._stack:
                self._stack.activate(slide)
        self.changed.emit()

    def give(self, layer: Layer, slide: Layer | None) -> None:
        """Make a layer belong to a slide, and show it if the slide is shown.

        Parameters
        ----------
        layer : Layer
            A layer of the plugin that several slides share, such as markers.
        slide : Layer or None
            Layer of the slide; None for a layer without a slide, which stays visible.
        """
        if owner_of(layer) is slide:
            return
        give_to(layer, slide)
        if self.link is not None:
            self.link.regroup()
        shown = slide is None or self.is_shown(slide)
        with self._quietly():
            _set_visible(layer, shown and self._wanted.get(layer, True))

    def set_visible(self, layer: Layer, visible: bool) -> None:
        """Show or hide a layer; one of a hidden slide is shown later, with the slide.

        Parameters
        ----------
        layer : Layer
            A layer on a slide.
        visible : bool
            Whether to show it.
        """
        owner = owner_of(layer)
        self._wanted[layer] = visible
        with self._quietly():
            _set_visible(layer, visible and (owner is None or self.is_shown(owner)))
        self.changed.emit()

    def added(self, layer: Layer) -> None:
        """Observe a layer that was added, and hide it if its slide is hidden."""
        if not kind_of(layer):
            return
        layer.events.visible.connect(self._eye_clicked)
        owner = owner_of(layer)
        if owner is not None and owner is not layer and owner in self._stack:
            self._wanted[layer] = bool(layer.visible)
            with self._quietly():
                self._share_units(self.current)
                _set_visible(layer, layer.visible and self.is_shown(owner))

    def removed(self) -> None:
        """Ignore the selection that napari makes after a layer was removed."""
        self._removing = True
        QTimer.singleShot(0, self._removal_ended)

    def fit(self) -> None:
        """Fit the slides that are shown, and visible layers of others, to the canvas."""
        shown = [
            layer
            for layer in self._viewer.layers
            if layer.visible and (kind_of(layer) == "slide" or not kind_of(layer))
        ]
        if shown:
            with self._quietly():
                self._viewer.reset_view(layers=shown)

    def refit(self, slide: Layer) -> None:
        """Forget the view of a slide whose resolution changed, and fit it again."""
        self._cameras.pop(slide, None)
        if self.side_by_side:
            self.lay_out()
        if slide is self.current:
            with self._quietly():
                self._share_units(slide)
            self.fit()

    def keep_camera(self, slide: Layer | None) -> None:
        """Remember the view of a slide."""
        if slide is not None and slide in self._stack:
            camera = self._viewer.scene.camera
            y, x = np.asarray(camera.center[-2:]) - slide.translate[-2:]
            self._cameras[slide] = (float(y), float(x)), float(camera.zoom)

    def camera_of(self, slide: Layer) -> Camera | None:
        """Return the view of a slide; None if it was never shown.

        Returns
        -------
        tuple or None
            Centre (y, x), in world units from the slide's corner, and zoom.
        """
        if slide is self.current and not self.side_by_side:
            self.keep_camera(slide)
        return self._cameras.get(slide)

    def set_camera(self, slide: Layer, camera: Camera) -> None:
        """Set the view of a slide; the canvas moves if the slide is current.

        Parameters
        ----------
        slide : Layer
            Layer of the slide.
        camera : tuple
            As :meth:`camera_of` returns it.
        """
        self._cameras[slide] = camera
        if slide is self.current and not self.side_by_side:
            self._place_camera(slide)

    def set_side_by_side(self, on: bool) -> None:
        """Show all slides next to each other, or the current one alone."""
        if on == self.side_by_side:
            return
        self._keep_cameras()
        self.side_by_side = on
        self._rearrange()

    def use_link(self, link: LinkedSections | None) -> None:
        """Link the views of two registered sections, or of none.

        Side by side, each section has a half of the canvas, which show the same place.
        One at a time, the view stays at its place from one section to the other.

        Parameters
        ----------
        link : LinkedSections or None
            The sections.
        """
        self._keep_cameras()
        if self.link is not None:
            self.link.leave()
        self.link = link
        self._rearrange()

    def _rearrange(self) -> None:
        """Lay out the slides after the arrangement changed, and place the view."""
        slide = self.current
        linked = self._is_linked()
        if slide is not None and self.link is not None and linked:
            # Before the layout, which depends on the middle of the view.
            self._place_camera(self.link.pair[0])
        self.lay_out()
        if slide is not None and not self.side_by_side:
            self._place_camera(slide)
        self.show(slide)
        if self.side_by_side and not linked:
            self.fit()

    def _keep_cameras(self) -> None:
        """Remember the view of the current slide, and of the section linked to it."""
        slide, link = self.current, self.link
        if slide is None or (self.side_by_side and not self._is_linked()):
            return
        if link is not None and link.is_on:
            # The canvas shows places of the first section, in both halves.
            self.keep_camera(link.pair[0])
            centre, zoom = self._cameras[link.pair[0]]
            self._cameras[link.pair[0]] = centre, zoom / link.zoom
            self._follow_link(*link.pair)
            return
        self.keep_camera(slide)
        if slide in self._pair():
            self._follow_link(slide, *(one for one in self._pair() if one is not slide))

    def _follow_link(self, left: Layer | None, slide: Layer) -> None:
        """Give a section the view of the one that it is linked to."""
        link, known = self.link, None if left is None else self._cameras.get(left)
        if link is None or left is None or known is None or left is slide:
            return
        if left in link.pair and slide in link.pair:
            centre = link.counterpart(left, known[0])
            if centre is not None:
                self._cameras[slide] = centre, known[1]

    def lay_out(self) -> None:
        """Put the slides where they belong: side by side, or all at the origin."""
        linked = self._is_linked()
        if self.link is not None and not linked:
            self.link.leave()
        apart = self.side_by_side and not linked
        corners = _corners(self.slides()) if apart else {}
        for slide in self.slides():
            moved = np.asarray(corners.get(slide, (0.0, 0.0))) - slide.translate[-2:]
            if np.any(np.abs(moved) > 1e-9):
                for layer in (slide, *self.layers_of(slide)):
                    layer.translate = layer.translate + moved
        if self.link is not None and linked:
            self.link.enter()

    def slide_at(self, position: Any) -> Layer | None:
        """Return the slide that is seen at a place of the canvas.

        Parameters
        ----------
        position : sequence of float
            World position; the last two values are y and x.

        Returns
        -------
        Layer or None
            The current slide, also outside of its pixels, unless its eye is closed;
            side by side, the slide under the position; of linked sections, that of the
            half of the canvas under the cursor.
        """
        if self.link is not None and self.link.is_on:
            slide = self.link.under_cursor()
            return slide if self.is_shown(slide) else None
        if self.side_by_side:
            for slide in reversed(self.slides()):
                low, high = _box(slide)
                inside = np.all(low <= position[-2:]) and np.all(position[-2:] <= high)
                if inside and slide.visible:
                    return slide
        slide = self.current
        return slide if slide is not None and self.is_shown(slide) else None

    def _apply(self, slide: Layer, visible: bool) -> None:
        """Show a slide and those of its layers that the user wants, or hide them all."""
        _set_visible(slide, visible)
        for layer in self.layers_of(slide):
            wanted = self._wanted.setdefault(layer, bool(layer.visible))
            _set_visible(layer, visible and wanted)

    def _place_camera(self, slide: Layer) -> None:
        if (known := self._cameras.get(slide)) is None:
            if slide in self._stack:
                with self._quietly():
                    self._viewer.reset_view(layers=[slide])
            return
        camera = self._viewer.scene.camera
        centre = np.asarray(known[0]) + slide.translate[-2:]
        camera.center = (*camera.center[:-2], *centre.tolist())
        camera.zoom = known[1]

    def _share_units(self, slide: Layer | None) -> None:
        """Give all layers of the plugin the units of a slide.

        napari ignores units, and warns, if layers differ in them. A slide without a
        resolution is in pixels, and layers of other slides are hidden: their numbers
        stay, only the name of the unit is that of the slide that is seen.
        """
        metadata = None if slide is None else SlideMetadata.of_layer(slide)
        if metadata is None:
            return
        in_pixels = metadata.mpp is None
        for layer in self._viewer.layers:
            if kind_of(layer) and (str(layer.units[-1]) == "pixel") != in_pixels:
                layer.units = ("pixel" if in_pixels else "um",) * layer.ndim

    def _eye_clicked(self, event: Any) -> None:
        layer = event.source
        owner = owner_of(layer)
        if self._quiet or owner is None or owner not in self._stack:
            return
        if not self._is_on_canvas(owner):
            if layer.visible:
                self._wanted[layer] = True
                self.chosen.emit(owner)
            return
        with self._quietly():
            if layer is owner:
                self._apply(owner, visible=bool(layer.visible))
            else:
                self._wanted[layer] = bool(layer.visible)
                if layer.visible and not owner.visible:
                    # A map never lies on nothing: the slide is shown as a whole.
                    self._apply(owner, visible=True)
        self.changed.emit()

    def _selected(self, event: Any) -> None:
        layer = event.value
        if layer is None or self._quiet or self._stack.adding:
            return
        owner = owner_of(layer)
        if owner is None or owner is self.current or owner not in self._stack:
            return
        if not self._removing:
            self.chosen.emit(owner)
        elif self.current is not None and self.current in self._stack:
            with self._quietly():
                self._stack.activate(self.current)

    def _removal_ended(self) -> None:
        self._removing = False

    def _home(self, event: Any) -> None:
        """Fit what is seen, where napari fitted hidden layers, too."""
        if self._quiet or self.current is None:
            return
        low, high = self._viewer.layers.extent.world
        middle = (low[-2:] + high[-2:]) / 2
        # A view that was fitted to certain layers is left as it is.
        if np.allclose(event.center[-2:], middle):
            self.fit()

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Ignore events of changes that are made here."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def _set_visible(layer: Layer, visible: bool) -> None:
    if bool(layer.visible) != bool(visible):
        layer.visible = bool(visible)


def _box(slide: Layer) -> tuple[Any, Any]:
    """Return the corners (y, x) of a slide in world units, with whole border pixels."""
    low, high = (np.asarray(corner)[-2:] for corner in slide.extent.world)
    half = np.asarray(slide.scale[-2:]) / 2
    return low - half, high + half


def _corners(slides: list[Layer]) -> dict[Layer, tuple[float, float]]:
    """Return where slides go side by side: rows from the top, columns from the left."""
    if not slides:
        return {}
    sizes = [np.subtract(*reversed(_box(slide))) for slide in slides]
    gap = GAP * max(float(size[1]) for size in sizes)
    count = len(slides)
    columns = count if count <= _ONE_ROW else math.ceil(math.sqrt(count))
    corners: dict[Layer, tuple[float, float]] = {}
    y = 0.0
    for start in range(0, count, columns):
        x, row = 0.0, range(start, min(start + columns, count))
        for number in row:
            corners[slides[number]] = (y, x)
            x += float(sizes[number][1]) + gap
        y += max(float(sizes[number][0]) for number in row) + gap
    return corners
