"""What is made of a query: areas, thumbnails, regions, files, other slides."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mcm.core.heatmaps import SimilarityIndex
from napari_mcm.core.heatmaps.examples import patches_within
from napari_mcm.core.search import SlideMatch, find_slide
from napari_mcm.core.slides import open_slide
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.similarity.context import context_of
from napari_mcm.viewer.similarity.query import load_query, save_query
from napari_mcm.viewer.similarity.shortcuts import KEYS
from napari_mcm.viewer.similarity.top_patches import SIDE_PX
from napari_mcm.viewer.similarity.widget import SimilarityWidget
from tests.core.evaluation.conftest import write_features
from tests.viewer.conftest import (
    Click,
    features_of,
    finish,
    inner_of,
    unfold,
    wait_until,
    write_slide,
)
from tests.viewer.similarity.test_maps import centre_um, map_of, ready
from tests.viewer.similarity.test_query import again, press, values

__all__ = ["press", "ready"]


def named(loaded: LoadedFeatures, encoder: str) -> LoadedFeatures:
    """The same features, by an encoder that is known by name."""
    dim = loaded.index.features.dim
    recipe = {"fingerprint": encoder, "spec": encoder, "dim": dim}
    recipe |= {"precision": "float32"}
    made = replace(loaded.index.features, encoder=recipe)
    return replace(loaded, index=SimilarityIndex(made), label=encoder)


def take(widget: SimilarityWidget, loaded: LoadedFeatures, slot: str = "first") -> None:
    widget.session.set_features(widget.session.slide, slot, loaded)


def test_the_area_follows_the_threshold(
    ready: SimilarityWidget, click: Click, press: Any
) -> None:
    click(centre_um(ready, 5))
    controller = context_of(ready.session).areas
    low, high = map_of(ready).contrast_limits
    assert low <= controller.threshold <= high
    ready.area.threshold.setValue(0.1)
    expected = np.count_nonzero(values(ready) >= 0.1)
    assert controller.area == (pytest.approx(expected * 0.025**2), expected)
    wait_until(lambda: f"{expected:,} patches" in ready.area.area.text())
    percent = 100 * expected / np.count_nonzero(np.isfinite(values(ready)))
    shown = float(ready.area.area.text().split(" · ")[1].split()[0])
    assert shown == pytest.approx(percent, abs=0.5)
    press.press_key(KEYS["higher"])
    assert controller.threshold > 0.1 and controller.area[1] < expected
    press.press_key(KEYS["lower"])
    assert controller.threshold == pytest.approx(0.1)


def test_labels_show_what_is_above_and_follow(
    ready: SimilarityWidget, click: Click, viewer: Any, press: Any
) -> None:
    click(centre_um(ready, 5))
    context_of(ready.session).areas.set_threshold(0.1)
    press.press_key(KEYS["area"])
    grid = ready.session.features("first").index.features.grid
    (layer,) = [one for one in viewer.layers if type(one).__name__ == "Labels"]

    def shown() -> list[int]:
        slide = ready.session.slide
        world = [slide.data_to_world(xy[::-1] - 0.5) for xy in grid.centres]
        at = np.rint([layer.world_to_data(point) for point in world]).astype(int)
        return np.flatnonzero(layer.data[at[:, 0], at[:, 1]]).tolist()

    assert shown() == np.flatnonzero(values(ready) >= 0.1).tolist()
    assert layer.units == ready.session.slide.units
    # It covers what the map covers, to the pixel.
    for corner in (
        lambda one: (-0.5, -0.5),
        lambda one: np.array(one.data.shape) - 0.5,
    ):
        ends = [one.data_to_world(corner(one)) for one in (layer, map_of(ready))]
        np.testing.assert_allclose(*ends, atol=1e-6)
    assert viewer.layers.index("query patch") > viewer.layers.index(layer)
    click(centre_um(ready, 30))
    assert shown() == np.flatnonzero(values(ready) >= 0.1).tolist()
    press.press_key(KEYS["area"])
    assert sum(type(one).__name__ == "Labels" for one in viewer.layers) == 1
    press.press_key(KEYS["clear"])
    assert shown() == []


def test_the_area_is_exported_for_qupath(
    ready: SimilarityWidget, click: Click, tmp_path: Path
) -> None:
    click(centre_um(ready, 5))
    context_of(ready.session).areas.set_threshold(0.1)
    path, written = tmp_path / "a.geojson", []
    context_of(ready.session).areas.export(path, lambda: written.append(path))
    wait_until(lambda: written)
    tiles = json.loads(path.read_text())["features"]
    assert len(tiles) == np.count_nonzero(values(ready) >= 0.1)


def test_thumbnails_are_of_the_most_similar_and_read_elsewhere(
    ready: SimilarityWidget, click: Click, viewer: Any, press: Any, monkeypatch: Any
) -> None:
    threads = []
    from napari_mcm.core.features import patches

    read = patches.read_patches

    def watched(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return read(*args)

    monkeypatch.setattr(patches, "read_patches", watched)
    click(centre_um(ready, 5))
    gallery = context_of(ready.session).gallery
    wait_until(lambda: gallery.complete)
    rows = [top.row for top in gallery.tops]
    order = np.argsort(-values(ready), kind="stable")
    assert rows == order[order != 5][: len(rows)].tolist()
    assert threads and threading.main_thread() not in threads
    assert gallery.tops[0].pixels.shape == (SIDE_PX, SIDE_PX, 3)
    wait_until(lambda: ready.gallery.strip.count() == len(rows))
    ready.gallery.strip.itemClicked.emit(ready.gallery.strip.item(2))
    np.testing.assert_allclose(
        viewer.scene.camera.center[-2:], centre_um(ready, rows[2]), atol=1e-6
    )
    press.press_key(KEYS["best"])
    np.testing.assert_allclose(
        viewer.scene.camera.center[-2:], centre_um(ready, rows[3]), atol=1e-6
    )
    press.press_key(KEYS["clear"])
    assert gallery.tops == []


def test_a_drawn_region_is_a_query(
    ready: SimilarityWidget, click: Click, viewer: Any, press: Any
) -> None:
    session = ready.session
    press.press_key(KEYS["region"])
    layer = context_of(session).regions.layer
    assert (
        viewer.layers.selection.active is layer and layer.units == session.slide.units
    )
    (y, x), side = centre_um(ready, 30), 60.0
    corners = [(-1, -1), (-1, 1), (1, 1), (1, -1)]
    ring = [(y + side * dy, x + side * dx) for dy, dx in corners]
    layer.add_polygons([np.asarray([layer.world_to_data(point) for point in ring])])
    wait_until(lambda: context_of(session).query is not None)
    index = session.features("first").index
    found = patches_within(
        index.features.grid, context_of(session).queries.examples.regions
    )
    assert len(found) > 9 and 30 in found
    np.testing.assert_allclose(values(ready), index.query(found.tolist()), atol=1e-5)
    # A click is a query again, and the outline goes with the region.
    assert viewer.layers.selection.active is session.slide
    ready.query.pool.setCurrentIndex(1)
    ready.query.pool.activated.emit(1)
    nearest = index.query(found.tolist(), pool="max")
    np.testing.assert_allclose(values(ready), nearest, atol=1e-5)
    click(centre_um(ready, 5))
    assert not len(layer.data) and context_of(session).queries.examples.regions == ()


def test_shapes_of_the_user_serve_as_a_region(
    ready: SimilarityWidget, viewer: Any, press: Any
) -> None:
    (y, x), slide = centre_um(ready, 30), ready.session.slide
    box = np.asarray([(y, x), (40, 40)])  # its middle and radii
    viewer.add_shapes(
        [box], shape_type="ellipse", units=slide.units, axis_labels=slide.axis_labels
    )
    press.press_key(KEYS["region"])
    (ring,) = context_of(ready.session).queries.examples.regions
    radius = np.hypot(*(np.asarray(ring) - (x / 0.5 + 0.5, y / 0.5 + 0.5)).T)
    np.testing.assert_allclose(radius, 80, rtol=1e-3)


def test_a_query_is_saved_and_opened(
    ready: SimilarityWidget, click: Click, loaded: LoadedFeatures, tmp_path: Path
) -> None:
    take(ready, named(loaded, "alpha"))
    click(centre_um(ready, 5))
    click(centre_um(ready, 30), modifiers=["Control"])
    before, saved = values(ready), []
    save_query(context_of(ready.session), tmp_path / "one", saved.append)
    wait_until(lambda: saved)
    assert saved == [tmp_path / "one.query.json"]
    context_of(ready.session).queries.clear()
    load_query(context_of(ready.session), saved[0])
    wait_until(lambda: context_of(ready.session).query is not None)
    np.testing.assert_allclose(values(ready), before, atol=1e-6)
    assert len(context_of(ready.session).queries.examples.unlike) == 1


def test_a_damaged_query_is_told_in_one_line(
    ready: SimilarityWidget, tmp_path: Path
) -> None:
    path = tmp_path / "bad.query.json"
    path.write_text("{}")
    load_query(context_of(ready.session), path)
    wait_until(lambda: "holds no query" in ready.problem.text())


def test_the_query_follows_to_a_slide_with_the_same_encoder(
    ready: SimilarityWidget,
    click: Click,
    viewer: Any,
    loaded: LoadedFeatures,
    tmp_path: Path,
) -> None:
    session = ready.session
    first, alpha = session.slide, named(loaded, "alpha")
    take(ready, alpha)
    click(centre_um(ready, 5))
    at_home = values(ready).copy()
    path = write_slide(tmp_path / "other.tif", mpp=0.6)
    (second,) = viewer.open(path, plugin="napari-mcm")
    assert session.slide is second and context_of(session).query is None
    there = features_of(path, patch_size=60)
    take(ready, named(there, "beta"))
    assert context_of(session).query is None
    take(ready, named(there, "alpha"))
    assert context_of(session).query is not None and not context_of(session).query.here
    direction = alpha.index.directions(5)
    expected = session.features("first").index.compare(direction)
    np.testing.assert_allclose(values(ready), expected, atol=1e-6)
    wait_until(lambda: "Query from slide slide" in ready.query.where.text())
    assert not len(viewer.layers["query patch"].data)
    session.choose_slide(first)
    np.testing.assert_allclose(values(ready), at_home)
    assert context_of(session).query.here


def test_feature_files_beside_are_asked(
    ready: SimilarityWidget, click: Click, loaded: LoadedFeatures, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    for name, encoder in (("a", "alpha"), ("b", "alpha"), ("c", "beta")):
        made = named(loaded, encoder).index.features
        slide = made.grid.slide | {"name": name}
        moved = replace(made, grid=replace(made.grid, slide=slide))
        write_features(folder / f"{name}.features.zarr", moved)
    (folder / "d.features.zarr").mkdir()
    take(ready, replace(named(loaded, "alpha"), path=folder / "a.features.zarr"))
    click(centre_um(ready, 5))
    assert context_of(ready.session).cross_slide.folder() == folder
    ready.cross_slide.search.click()
    wait_until(lambda: context_of(ready.session).cross_slide.matches)
    found = context_of(ready.session).cross_slide.matches
    assert {one.name for one in found} == {"a", "b"}
    # The example itself does not count.
    best = np.sort(np.delete(values(ready), 5))[::-1][:16].mean()
    assert found[0].mean == pytest.approx(best, abs=1e-5)
    # Both hold the same features: equal ones come in the order of their names.
    names = [ready.cross_slide.table.item(row, 0).text() for row in range(2)]
    assert names == [one.name for one in found] == ["a", "b"]
    assert "another encoder" in ready.session.jobs.status.details


@pytest.mark.parametrize("name", ["slide", "S12 [A]", "a*?"])
def test_a_slide_is_found_beside_by_what_it_is(tmp_path: Path, name: str) -> None:
    path = write_slide(tmp_path / f"{name}.tif")
    (tmp_path / "slide.txt").write_text("no slide")
    write_slide(tmp_path / "slide2.tif", blank=True)
    with open_slide(path) as slide:
        fingerprint = slide.fingerprint
    found = SlideMatch(name, fingerprint, tmp_path / "f" / "x.features.zarr", 1, 1, 1)
    assert find_slide(found, [tmp_path]) == path
    with pytest.raises(Exception, match="Open it yourself"):
        find_slide(replace(found, fingerprint="other"), [tmp_path])


def test_an_open_slide_of_the_same_name_is_another(
    ready: SimilarityWidget,
    click: Click,
    viewer: Any,
    loaded: LoadedFeatures,
    tmp_path: Path,
) -> None:
    session = ready.session
    take(ready, named(loaded, "alpha"))
    click(centre_um(ready, 5))
    (tmp_path / "away").mkdir()
    path = write_slide(tmp_path / "away" / "slide.tif", mpp=0.6)
    there = named(features_of(path, patch_size=60, mpp=0.6), "alpha").index.features
    file = tmp_path / "away" / "f" / "slide.features.zarr"
    write_features(file, there)
    with open_slide(path) as slide:
        found = SlideMatch("slide", slide.fingerprint, file, 1, 1, 1)
    first, search = session.slide, context_of(session).cross_slide
    for _ in range(2):
        search.open(found)
        wait_until(lambda: session.metadata.path == str(path))
        wait_until(lambda: session.features("first") is not None)
        wait_until(lambda: context_of(session).query is not None)
        assert not context_of(session).query.here and session.slide is not first
        session.choose_slide(first)
    # The second time it was open already.
    assert len(session.layers.slides()) == 2
    # Nor does another name of an open slide's file hide what it is.
    search.open(replace(found, name="renamed"))
    wait_until(lambda: session.slide is not first)
    assert len(session.layers.slides()) == 2
    finish(ready)


def test_maps_do_not_lie_over_each_other(
    widget: SimilarityWidget, click: Click, loaded: LoadedFeatures
) -> None:
    take(widget, loaded)
    take(widget, again(loaded, 1), "second")
    click(centre_um(widget, 5))
    assert context_of(widget.session).queries.drawn.shown() == ["first"]
    assert widget.maps.show_slot["first"].isChecked()


def test_a_query_with_negatives_has_colours_of_its_own(
    ready: SimilarityWidget, click: Click
) -> None:
    click(centre_um(ready, 5))
    click(centre_um(ready, 30), modifiers=["Control"])
    low, high = map_of(ready).contrast_limits
    others = np.delete(values(ready), [5, 30])
    assert ((others >= low) & (others <= high)).mean() > 0.95
    assert np.ptp(others) > 0.5 * (high - low)


def test_all_of_it_fits_a_narrow_dock(
    ready: SimilarityWidget, click: Click, loaded: LoadedFeatures
) -> None:
    take(ready, again(loaded, 1), "second")
    click(centre_um(ready, 5))
    context_of(ready.session).queries.compare(("first", "second"))
    wait_until(lambda: context_of(ready.session).gallery.tops)
    context_of(ready.session).cross_slide.matches = [
        SlideMatch(
            "a long name of a slide, as they often are", "x", Path("f"), 0.9, 1.5, 9
        )
    ]
    context_of(ready.session).cross_slide.changed.emit()
    unfold(ready)
    wait_until(lambda: not ready.cross_slide.table.isHidden())
    parts = (ready.maps, ready.area, ready.gallery, ready.cross_slide)
    assert not any(part.isHidden() for part in parts)
    assert inner_of(ready).minimumSizeHint().width() <= 290


def test_the_legend_of_a_difference_says_its_range(
    ready: SimilarityWidget, click: Click, loaded: LoadedFeatures
) -> None:
    take(ready, again(loaded, 1), "second")
    click(centre_um(ready, 5))
    context_of(ready.session).queries.compare(("first", "second"))
    legend = ready.maps.legends["difference"]
    wait_until(lambda: not legend.isHidden())
    assert legend.low.text() == "less -0.50" and legend.high.text() == "0.50 more"
    assert ready.maps.legends["first"].isHidden()
    # Of whom the area is must be said: a difference has none of its own.
    assert ready.area.area.text().endswith(" · random 50")


def test_the_list_of_layers_shows_the_map_in_the_end(
    ready: SimilarityWidget, click: Click
) -> None:
    click(centre_um(ready, 5))
    before = map_of(ready).thumbnail.copy()
    click(centre_um(ready, 60))
    wait_until(lambda: not np.array_equal(before, map_of(ready).thumbnail))


def test_markers_that_are_hidden_follow_the_query(
    ready: SimilarityWidget, viewer: Any, click: Click
) -> None:
    click(centre_um(ready, 5))
    click(centre_um(ready, 9), modifiers=["Shift"])
    click(centre_um(ready, 30), modifiers=["Control"])
    layer = viewer.layers["query patch"]
    layer.visible = False
    click(centre_um(ready, 7))
    assert len(layer.data) == 3
    click(centre_um(ready, 9), modifiers=["Control"])
    layer.visible = True
    squares = ["square"] * 3
    assert [str(symbol) for symbol in layer.symbol] == [*squares, *squares[:2], "x"]
