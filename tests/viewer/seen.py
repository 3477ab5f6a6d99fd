"""The invariant of the viewer: what is seen is what was asked.

Nothing here asks the controllers which map they drew: the layers that are visible are
compared with what the dock's query says, computed anew with numpy from the features.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from qtpy.QtWidgets import QApplication

from napari_mcm.core.features.neighbourhood import average_neighbourhood
from napari_mcm.viewer.app.features import LoadedFeatures
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.labelling.context import LabellingContext
from napari_mcm.viewer.layers import glyphs
from napari_mcm.viewer.layers.metadata import KEY
from napari_mcm.viewer.similarity.context import context_of

CLOSE = 5e-4
"""Largest difference of cosines: float32, of a difference of two directions."""


def settle(session: Session, seconds: float = 60) -> None:
    """Let everything that was started come to an end, but not a job."""
    queries = context_of(session).queries
    until, quiet = time.monotonic() + seconds, 0
    while quiet < 2:
        assert time.monotonic() < until, "a query never ended"
        queries._worker.wait()
        QApplication.processEvents()
        labelling = _labelling(session)
        fitting = labelling is not None and labelling.classifier.busy
        # Asked last: what has just come, a job's features, may have begun new work.
        busy = fitting or queries.preparation.waiting or queries._worker._followed
        # A caption appears when its letters have been prepared.
        busy = busy or glyphs._running
        quiet = 0 if busy else quiet + 1


def problems(session: Session) -> list[str]:
    """Return what is wrong with what is seen; nothing, if all is well."""
    found = [*_of_slides(session)]
    for slide in session.layers.slides():
        if slide is session.slide or session.side_by_side:
            found += _of_maps(session, slide)
    found += _of_caption(session)
    return found


def maps_seen(session: Session) -> int:
    """Return how many maps with values are visible, each of which is checked."""
    return sum(
        bool(layer.visible) and not np.isnan(layer.data).all()
        for layer in session.viewer.layers
        if _described(layer).get("kind") == "heatmap"
    )


def _described(layer: Any) -> dict[str, Any]:
    described = layer.metadata.get(KEY)
    return described if isinstance(described, dict) else {}


def _of_slides(session: Session) -> list[str]:
    """Only layers of the current slide are visible, and none while its eye is closed."""
    found, slides = [], session.layers.slides()
    if slides and session.slide not in slides:
        found.append("no slide is current")
    by_name = {str(slide.unique_id): slide for slide in slides}
    for layer in session.viewer.layers:
        described = _described(layer)
        if not described or not layer.visible or described.get("owner") == "":
            continue
        is_slide = described["kind"] == "slide"
        owner = layer if is_slide else by_name.get(described.get("owner", ""))
        if owner is None:
            if "owner" in described:
                found.append(f"{layer.name} is visible, and its slide is gone")
        elif not session.side_by_side and owner is not session.slide:
            found.append(f"{layer.name} is visible beside {session.slide}")
        elif not owner.visible:
            found.append(f"{layer.name} is visible on a hidden slide")
        elif not _lies_on(layer, owner):
            found.append(f"{layer.name} does not lie on {owner.name}")
        elif described["kind"] == "query" and _covering(session, layer, owner):
            found.append(f"{layer.name} is covered: {_covering(session, layer, owner)}")
    return found


def _covering(session: Session, frames: Any, slide: Any) -> list[str]:
    """Return the pictures of the slide that lie over the frames of its examples."""
    layers = session.viewer.layers
    return [
        layer.name
        for layer in list(layers)[layers.index(frames) + 1 :]
        if layer is slide
        or (
            _described(layer).get("owner") == str(slide.unique_id)
            and _described(layer)["kind"] == "heatmap"
        )
    ]


def _lies_on(layer: Any, slide: Any) -> bool:
    if _described(layer)["kind"] not in ("heatmap", "tissue", "grid", "similar area"):
        return True
    (low, high), (first, last) = layer.extent.world, slide.extent.world
    step = 2 * np.asarray(layer.scale)
    return bool(np.all(low >= first - step) and np.all(high <= last + step))


def _of_maps(session: Session, slide: Any) -> list[str]:
    """A visible map is of the slide's features, of the dock's context and query."""
    found = []
    for layer in session.viewer.layers:
        described = _described(layer)
        if described.get("kind") != "heatmap" or not layer.visible:
            continue
        if described["owner"] != str(slide.unique_id) or np.isnan(layer.data).all():
            continue
        if described["slot"] == "classes":
            found += _of_classes(session, slide, layer)
            continue
        expected = _expected(session, slide, described["slot"])
        if expected is None:
            found.append(f"{layer.name} is visible, and nobody asked for it")
            continue
        values, title = expected
        if layer.data.shape != values.shape:
            found.append(f"{layer.name} has another grid")
        elif not np.allclose(layer.data, values, atol=CLOSE, equal_nan=True):
            found.append(f"{layer.name} is not {title} of the query")
        if layer.name not in (title, "query patch") and "[" not in layer.name:
            found.append(f"{layer.name} should be called {title}")
    return found


def _labelling(session: Session) -> LabellingContext | None:
    """Return what the dock Classes adds, if it was ever opened."""
    return session._parts.get(LabellingContext)


def _of_classes(session: Session, slide: Any, layer: Any) -> list[str]:
    """A visible map of classes is of the newest labels, and of the slide's features."""
    labelling = _labelling(session)
    if labelling is None:
        return [f"{layer.name} is visible without its dock"]
    fit = labelling.classifier.fit
    if fit is None or fit.classifier is None:
        return [f"{layer.name} is visible without a classifier"]
    if fit.labels != session.labels.set:
        return [f"{layer.name} is of earlier labels"]
    loaded = session.features_of(slide).get(labelling.classifier.slot)
    if loaded is None or labelling.maps.kind != "class":
        return [] if loaded is not None else [f"{layer.name} has no features"]
    values = _class_codes(fit, loaded)
    if layer.data.shape != values.shape:
        return [f"{layer.name} has another grid"]
    count = len(fit.labels.classes) + 1
    seen = np.round(layer.data * count - 0.5)
    sure = np.isfinite(values)
    wrong = int((seen[sure] != values[sure]).sum())
    return [f"{layer.name} is wrong at {wrong} patches"] if wrong else []


def _class_codes(fit: Any, loaded: LoadedFeatures) -> Any:
    """Return the class of each patch, NaN where rounding could decide."""
    features, made = loaded.index.features, fit.classifier
    if made.config.neighbourhood.radius:
        features = average_neighbourhood(features, made.config.neighbourhood)
    logits = np.asarray(features.features, np.float64) @ made.weights + made.bias
    odds = np.exp((logits - logits.max(axis=1, keepdims=True)) / made.temperature)
    likely = odds / odds.sum(axis=1, keepdims=True)
    two = np.sort(likely, axis=1)[:, -2:]
    limit = made.config.unsure_below
    places = np.asarray([fit.labels.names.index(name) for name in made.names])
    codes = places[likely.argmax(axis=1)].astype(float)
    codes[two[:, 1] < limit] = len(fit.labels.classes)
    close = (abs(two[:, 1] - limit) < 1e-3) | (two[:, 1] - two[:, 0] < 1e-3)
    codes[close] = np.nan
    picture = np.full(loaded.index.features.grid.shape, np.nan)
    picture[tuple(loaded.index.features.grid.lattice.T)] = codes
    return picture


def _expected(session: Session, slide: Any, slot: str) -> tuple[Any, str] | None:
    """Return the map and the name that a layer should have."""
    context = context_of(session)
    if context.query is None:
        return None
    loaded = session.features_of(slide)
    around = context.queries.neighbourhood.describe()
    if slot == "difference":
        pair = context.queries.drawn.pair or ("", "")
        maps = [_map_of(session, loaded.get(one)) for one in pair]
        if maps[0] is None or maps[1] is None:
            return None
        names = [loaded[one].label for one in pair]
        title = f"difference: {names[1]} − {names[0]} ({slide.name}, {around})"
        return maps[1] - maps[0], title
    values = _map_of(session, loaded.get(slot))
    if values is None:
        return None
    return values, f"similarity: {loaded[slot].label} ({slide.name}, {around})"


def _map_of(session: Session, loaded: LoadedFeatures | None) -> Any:
    """Return the cosines to the dock's examples, in an image of the grid."""
    spec = context_of(session).queries.spec
    if loaded is None:
        return None
    origin = (
        loaded if _slide_in(loaded) == spec.slide else _same_encoder(session, loaded)
    )
    if origin is None:
        return None
    units, grid = _units(session, origin), origin.index.features.grid
    # A patch counts once, however often it is clicked.
    like = [*dict.fromkeys(_row(grid, *point) for point in spec.examples.like)]
    unlike = [*dict.fromkeys(_row(grid, *point) for point in spec.examples.unlike)]
    assert not spec.examples.regions and spec.examples.pool == "mean"
    direction = units[like].mean(axis=0)
    if unlike:
        direction = direction - units[unlike].mean(axis=0)
    direction = direction / np.linalg.norm(direction)
    cosines = _units(session, loaded) @ direction
    picture = np.full(loaded.index.features.grid.shape, np.nan, np.float32)
    rows, columns = loaded.index.features.grid.lattice.T
    picture[rows, columns] = cosines
    return picture


def _same_encoder(session: Session, loaded: LoadedFeatures) -> LoadedFeatures | None:
    """Return the features of the slide that was clicked, by the same encoder."""
    wanted = context_of(session).queries.spec.slide
    mark = loaded.index.features.encoder.get("fingerprint")
    for one in session.all_features():
        same = mark and one.index.features.encoder.get("fingerprint") == mark
        if same and _slide_in(one) == wanted:
            return one
    return None


def _slide_in(loaded: LoadedFeatures) -> str:
    return str(loaded.index.features.grid.slide.get("fingerprint") or "")


def _units(session: Session, loaded: LoadedFeatures) -> Any:
    features = loaded.index.features
    around = context_of(session).queries.neighbourhood
    if around.radius:
        features = average_neighbourhood(features, around)
    vectors = np.asarray(features.features, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _row(grid: Any, x: float, y: float) -> int:
    """Return the patch that contains a point, from the corners of all patches.

    Not those of its pixels, which are whole: where the side is not, patches overlap.
    """
    size = np.asarray(grid.patch_size_level0)
    corners = np.asarray(grid.origin) + grid.lattice[:, ::-1] * size
    inside = np.all((corners <= (x, y)) & ((x, y) < corners + size), 1)
    (row,) = np.flatnonzero(inside)
    return int(row)


def _of_caption(session: Session) -> list[str]:
    """The caption names what is visible: slide, encoder, context and query."""
    slide, caption = session.slide, session.viewer.canvas.overlays.text
    text = caption.text.replace("\n", " ") if caption.visible else ""
    if slide is None or not slide.visible:
        return [f"a caption without a slide: {text}"] if text else []
    shown = []
    for layer in reversed(session.viewer.layers):
        described = _described(layer)
        of_slide = described.get("owner") == str(slide.unique_id)
        is_map = described.get("kind") == "heatmap" and of_slide and layer.visible
        if is_map and not np.isnan(layer.data).all():
            shown.append(described["slot"])
    parts = [_named(session, slide, slot) for slot in shown]
    link = session.layers.view.link
    halves = [one.name for one in link.pair] if link is not None and link.is_on else []
    name = " | ".join(halves) or slide.name
    expected = " · ".join([name, *([" over ".join(parts)] if parts else [])])
    return [] if text == expected else [f"caption: {text!r}, expected: {expected!r}"]


def _named(session: Session, slide: Any, slot: str) -> str:
    if slot == "classes":
        return _named_classes(session, slide)
    context, loaded = context_of(session), session.features_of(slide)
    spec, around = context.queries.spec, context.queries.neighbourhood.describe()
    pair = context.queries.drawn.pair or ("", "")
    of_pair = slot == "difference" and all(one in loaded for one in pair)
    encoder = loaded[slot].label if slot in loaded else "?"
    if of_pair:
        encoder = f"{loaded[pair[1]].label} − {loaded[pair[0]].label}"
    like, unlike = len(spec.examples.like), len(spec.examples.unlike)
    asked = f"{like} similar" + (f", {unlike} dissimilar" if unlike else "")
    here = [one for one in loaded.values() if _slide_in(one) == spec.slide]
    if not here:
        asked += f" of {spec.name}"
    return f"{encoder} · {around} · {asked}"


def _named_classes(session: Session, slide: Any) -> str:
    labelling = _labelling(session)
    assert labelling is not None
    fit, maps = labelling.classifier.fit, labelling.maps
    if fit is None or fit.classifier is None:
        return "?"
    made = fit.classifier
    what = {
        "class": "classes "
        + ", ".join(
            f"{one.key or ''} {one.name}".strip() for one in fit.labels.classes
        ),
        "probability": "probability of "
        + (maps.of if maps.of in made.names else made.names[0]),
        "unsure": "unsure",
    }[maps.kind]
    loaded = session.features_of(slide).get(labelling.classifier.slot)
    label = loaded.label if loaded is not None else "?"
    end = "" if made.calibrated else ", uncalibrated"
    return f"{label} · {made.config.neighbourhood.describe()} · {what}{end}"
