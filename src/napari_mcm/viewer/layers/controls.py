"""Napari's controls of a layer, as wide as before the layer came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QWidget

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

NARROW = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
"""Lets a field be narrower than its longest entry."""
_LEAST_PX = 100
"""Least width of a field, in pixels."""


@contextmanager
def narrow_controls(viewer: ViewerModel, layer: Layer) -> Iterator[None]:
    """Keep a new layer's controls from making their dock wider, which moves the picture.

    napari lists the levels of a pyramid with their sizes, and those of an outline are
    long numbers.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer. One without a window is left alone.
    layer : Layer
        A layer that is added to it.
    """
    window = getattr(viewer, "window", None)
    controls = getattr(getattr(window, "_qt_viewer", None), "controls", None)
    if controls is None:
        yield
        return
    before = controls.minimumWidth()
    if controls.isVisible():
        # napari shows the controls, at their full width, before they can be changed.
        controls.setMinimumWidth(controls.width())
    try:
        yield
    finally:
        # napari does not promise these names.
        page: Any = getattr(controls, "widgets", {}).get(layer)
        fields = () if page is None else page.findChildren(QComboBox)
        for field in fields:
            field.setSizeAdjustPolicy(NARROW)
            field.setMinimumContentsLength(8)
            # Qt keeps the least width that it computed from the entries before.
            field.setMinimumWidth(min(field.sizeHint().width(), _LEAST_PX))
            _measure_again(field, page)
        controls.setMinimumWidth(before)


def _measure_again(field: QWidget, page: QWidget) -> None:
    """Make Qt forget what width all that is around a field had.

    On a page that is not shown it would not learn of a narrower field.
    """
    around = field.parentWidget()
    while around is not None:
        if (layout := around.layout()) is not None:
            layout.invalidate()
        around.updateGeometry()
        around = None if around is page else around.parentWidget()
