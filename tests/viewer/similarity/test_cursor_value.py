"""The status bar has the value of the map that is seen under the cursor."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QLabel

from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.viewer.conftest import wait_until
from tests.viewer.similarity.test_maps import centre_um
from tests.viewer.similarity.test_query import again, hover, values


def in_status_bar(viewer: Any) -> str:
    labels = viewer.window._qt_window.statusBar().findChildren(QLabel)
    named = [one for one in labels if one.accessibleName() == "Value under the cursor"]
    assert len(named) <= 1
    return named[0].text() if named else ""


def asked(widget: SimilarityWidget, loaded: Any, patch: int) -> Any:
    """Query by a patch; give the grid."""
    widget.session.set_features(widget.session.slide, "first", loaded)
    grid = loaded.index.features.grid
    context_of(widget.session).queries.point(*grid.centres[patch])
    return grid


def test_it_is_the_value_of_the_patch_under_the_cursor(
    widget: SimilarityWidget, loaded: Any, viewer: Any
) -> None:
    grid = asked(widget, loaded, 5)
    for patch in (5, 20, 41):
        y, x = centre_um(widget, patch)
        # Not only in the centre of a patch.
        hover(viewer, (y + 8, x - 8))
        value = values(widget)[patch]
        column, row = grid.centres[patch] * 0.5
        expected = f"{value:.3f} · {loaded.label} · x {column:.0f}, y {row:.0f} µm"
        assert in_status_bar(viewer) == expected


def test_it_is_empty_where_there_is_no_patch_and_no_map(
    widget: SimilarityWidget, loaded: Any, viewer: Any
) -> None:
    asked(widget, loaded, 5)
    place = centre_um(widget, 5)
    hover(viewer, place)
    assert in_status_bar(viewer)
    for outside in ((-50, -50), (1, 1), (5000, 5000)):
        hover(viewer, outside)
        assert in_status_bar(viewer) == ""
    hover(viewer, place)
    context_of(widget.session).queries.clear()
    assert in_status_bar(viewer) == ""


def test_it_follows_the_query_and_the_shown_map(
    widget: SimilarityWidget, loaded: Any, viewer: Any
) -> None:
    grid = asked(widget, loaded, 5)
    other = again(loaded, 7)
    widget.session.set_features(widget.session.slide, "second", other)
    hover(viewer, centre_um(widget, 30))
    queries = context_of(widget.session).queries
    queries.point(*grid.centres[12])
    for slot, label in (("first", loaded.label), ("second", other.label)):
        queries.show(slot)
        value = values(widget, slot)[30]
        assert in_status_bar(viewer).startswith(f"{value:.3f} · {label} · ")
    queries.compare(("first", "second"))
    change = values(widget, "second")[30] - values(widget, "first")[30]
    assert in_status_bar(viewer).startswith(f"{change:.3f} · difference · ")


def test_the_table_of_patches_is_made_once(
    widget: SimilarityWidget, loaded: Any, viewer: Any
) -> None:
    asked(widget, loaded, 5)
    at_cursor = context_of(widget.session).at_cursor
    hover(viewer, centre_um(widget, 5))
    made = at_cursor._lookup
    assert made is not None
    hover(viewer, centre_um(widget, 6))
    assert at_cursor._lookup is made


def test_it_goes_with_the_last_dock(
    widget: SimilarityWidget, loaded: Any, viewer: Any
) -> None:
    asked(widget, loaded, 5)
    hover(viewer, centre_um(widget, 5))
    assert in_status_bar(viewer)
    number = len(viewer.mouse_move_callbacks)
    widget.session.leave(id(widget))
    assert len(viewer.mouse_move_callbacks) < number
    wait_until(lambda: not in_status_bar(viewer))
