"""The one module that adds, removes, orders and activates the viewer's layers."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

Added = TypeVar("Added", bound="Layer")


class LayerStack:
    """The layers of one viewer.

    Parameters
    ----------
    viewer : ViewerModel
        Which has them.

    Attributes
    ----------
    viewer : ViewerModel
        The same; others listen to its events, and leave its layers to this.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer

    def __contains__(self, layer: Layer | None) -> bool:
        """Return whether a layer is there: the user may have deleted it."""
        return layer in self.viewer.layers

    def alive(self, layer: Added | None) -> Added | None:
        """Return a layer that is there; None for one that is not, or no longer."""
        return layer if layer in self else None

    @property
    def active(self) -> Any:
        """The layer that the mouse edits; None where there is none."""
        return self.viewer.layers.selection.active

    def activate(self, layer: Layer) -> None:
        """Have the mouse edit a layer."""
        self.viewer.layers.selection.active = layer

    def add(self, layer: Added, over: Layer | None = None) -> Added:
        """Add a layer, and leave chosen what the user has chosen.

        Parameters
        ----------
        layer : Layer
            A new one.
        over : Layer, optional
            It is put just above this one; on top where there is none, or no longer.
        """
        layers, selection = self.viewer.layers, self.viewer.layers.selection
        chosen = set(selection)
        layers.insert(layers.index(over) + 1 if over in self else len(layers), layer)
        selection.discard(layer)
        selection.update(chosen)
        return layer

    def drop(self, layer: Layer) -> None:
        """Delete a layer, where it is there."""
        if layer in self:
            self.viewer.layers.remove(layer)

    def drop_later(self, layers: Collection[Layer]) -> None:
        """Delete layers once all know of the deletion that is under way."""
        for layer in layers:
            QTimer.singleShot(0, lambda layer=layer: self.drop(layer))
