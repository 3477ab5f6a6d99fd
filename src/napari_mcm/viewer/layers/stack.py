"""Adds, removes, orders and selects layers of a viewer."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.QtCore import QTimer

from napari_mcm.viewer.layers.controls import narrow_controls
from napari_mcm.viewer.layers.current import SlideView
from napari_mcm.viewer.layers.metadata import kind_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

Added = TypeVar("Added", bound="Layer")


class LayerStack:
    """The layer list of one viewer.

    All other modules change layers through this class; they only listen to events of the
    viewer.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer.

    Attributes
    ----------
    adding : bool
        Whether a layer is being added, which napari selects for a moment.
    view : SlideView
        The slide that is shown.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.adding = False
        self.view = SlideView(self)
        self.view.changed.connect(self.raise_marks_later)

    def __contains__(self, layer: Layer | None) -> bool:
        """Return whether a layer is in the viewer; the user may have deleted it."""
        return layer in self.viewer.layers

    def alive(self, layer: Added | None) -> Added | None:
        """Return the layer if it is still in the viewer, else None."""
        return layer if layer in self else None

    @property
    def active(self) -> Any:
        """The active layer, which the mouse edits; None if there is none."""
        return self.viewer.layers.selection.active

    def activate(self, layer: Layer) -> None:
        """Make a layer the active one, which the mouse edits."""
        self.viewer.layers.selection.active = layer

    def add(self, layer: Added, over: Layer | None = None) -> Added:
        """Add a layer without changing the user's selection.

        Parameters
        ----------
        layer : Layer
            A new layer.
        over : Layer, optional
            Layer to insert it directly above; by default, or if that one is not in the
            viewer, it goes on top.
        """
        layers, selection = self.viewer.layers, self.viewer.layers.selection
        selected = set(selection)
        self.adding = True
        try:
            place = layers.index(over) + 1 if over in self else len(layers)
            with narrow_controls(self.viewer, layer):
                layers.insert(place, layer)
                selection.discard(layer)
                selection.update(selected)
        finally:
            self.adding = False
        return layer

    def raise_over(self, layer: Layer, others: Collection[Layer]) -> None:
        """Move a layer directly above others, unless it is above them.

        Parameters
        ----------
        layer : Layer
            Layer in the viewer.
        others : collection of Layer
            Those that are not in the viewer do not count.
        """
        layers = self.viewer.layers
        top = max((layers.index(one) for one in others if one in self), default=-1)
        if (at := layers.index(layer)) < top:
            layers.move(at, top + 1)

    def delete(self, layer: Layer) -> None:
        """Remove a layer if it is in the viewer."""
        if layer in self:
            self.viewer.layers.remove(layer)

    def delete_later(self, layers: Collection[Layer]) -> None:
        """Remove layers after all listeners have handled the current removal."""
        for layer in layers:
            QTimer.singleShot(0, lambda layer=layer: self.delete(layer))

    def raise_marks(self) -> None:
        """Move marks of patches above all other layers of the plugin."""
        layers = self.viewer.layers
        for mark in [layer for layer in layers if kind_of(layer) == "query"]:
            at = layers.index(mark)
            above = [kind_of(layer) for layer in layers[at + 1 :]]
            under = [i for i, kind in enumerate(above) if kind not in ("", "query")]
            if under:
                layers.move(at, at + 2 + under[-1])

    def raise_marks_later(self) -> None:
        """Raise marks after all listeners have handled the current change."""
        QTimer.singleShot(0, self.raise_marks)
