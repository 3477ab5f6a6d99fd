"""Labels from and to files: of this user, of others, and regions of QuPath and napari."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_mcm.core.labelling import (
    Disagreement,
    LabelSet,
    load_classifier,
    merge_labels,
    read_labels,
    write_labels,
)
from napari_mcm.core.labelling.regions import import_regions
from napari_mcm.viewer.app.labels import added, author

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.heatmaps.examples import Polygon
    from napari_mcm.viewer.labelling.context import LabellingContext

_AREAS = ("rectangle", "ellipse", "polygon")
_CLASS_COLUMNS = ("class", "classification", "label", "name")
"""Names of a layer's features that hold classes."""
_AROUND = np.linspace(0, 2 * np.pi, 48, endpoint=False)


class LabelFiles:
    """Reads, writes and merges labels, and imports regions.

    Parameters
    ----------
    context : LabellingContext
        Labels, classifier and maps of the viewer.

    Attributes
    ----------
    disagreements : tuple of Disagreement
        Places that people labelled differently, of the last merge.
    changed : Signal
        Emitted when `disagreements` changed.
    """

    changed = Signal()

    def __init__(self, context: LabellingContext) -> None:
        self._context, self._session = context, context.session
        self.disagreements: tuple[Disagreement, ...] = ()

    def save(self, path: Path) -> None:
        """Write all labels to a file in the background."""
        labels = self._session.labels.set
        self._session.disk.submit(
            f"save labels {path}",
            partial(write_labels, path, labels),
            lambda _: self._say(f"{len(labels):,} labels written to {path}"),
            self._session.report_error,
        )

    def load(self, path: Path) -> None:
        """Add the labels of a file; they replace those of the same places."""
        self._read([path], self._loaded)

    def merge(self, paths: Sequence[Path]) -> None:
        """Merge the labels of other people; what differs is listed.

        Parameters
        ----------
        paths : sequence of Path
            One label file for each person.
        """
        self._read(paths, self._merge)

    def open_classifier(self, path: Path) -> None:
        """Map the classes of a classifier from a file."""
        self._session.disk.submit(
            "open classifier",
            partial(load_classifier, path),
            lambda made: self._context.classifier.use_classifier(made, path.name),
            self._session.report_error,
        )

    def import_geojson(self, path: Path) -> None:
        """Label the patches in the regions of a GeoJSON file, by the regions' classes."""
        labels, grid = self._session.labels.set, self._grid()
        if grid is not None:
            self._session.disk.submit(
                f"regions {path}",
                partial(import_regions, labels, path, grid, author()),
                partial(self._imported, grid),
                self._session.report_error,
            )

    def import_layer(self, layer: Layer, name: str = "") -> None:
        """Label the patches in the regions of a shapes or labels layer.

        Parameters
        ----------
        layer : Layer
            Shapes or labels, on the current slide.
        name : str
            Class of all regions; by default each shape or label has the class in the
            layer's features, or one named after the layer.
        """
        grid, slide = self._grid(), self._session.slide
        if grid is None or slide is None:
            return
        if type(layer).__name__ == "Shapes":
            found = _of_shapes(layer, slide, grid, name)
        else:
            found = _of_labels(layer, slide, grid, name)
        if not found:
            self._session.report_error(
                f"No patch lies in a region of {layer.name}: draw around patches of this "
                "slide"
            )
            return
        count = 0
        with_classes = self._session.labels.set.with_names(found)
        self._session.labels.use(with_classes)
        for one, rows in found.items():
            count += self._session.labels.add(grid, rows, one, "import")
        self._say(f"{count:,} patches labelled from {layer.name}")

    def layers(self) -> list[Layer]:
        """Return the layers whose regions can be imported."""
        return [
            layer
            for layer in self._session.viewer.layers
            if type(layer).__name__ in ("Shapes", "Labels")
            and layer.metadata.get("napari-mcm", {}).get("kind")
            not in ("tissue", "class labels")
        ]

    def settle(self, one: Disagreement, name: str) -> None:
        """Give a place that people disagree on a class.

        Parameters
        ----------
        one : Disagreement
            One of `disagreements`.
        name : str
            The class.
        """
        label = replace(one.labels[0], label=name, author=author())
        labels = self._session.labels.set.with_names([name]).with_labels([label])
        self._session.labels.use(labels)
        self.disagreements = tuple(x for x in self.disagreements if x is not one)
        self.changed.emit()

    def _read(self, paths: Sequence[Path], then: Any) -> None:
        self._session.disk.submit(
            "read label files",
            lambda: [read_labels(path) for path in paths],
            then,
            self._session.report_error,
        )

    def _loaded(self, sets: list[LabelSet]) -> None:
        labels = self._session.labels
        (read,) = sets
        names = [one.name for one in read.classes if one.name not in labels.set.names]
        both = added(labels.set, read)
        # Classes without labels, too: they are what the user set up.
        for one in read.classes:
            if one.name not in both.names:
                taken = {known.key for known in both.classes}
                key = None if one.key in taken else one.key
                both = both.with_class(replace(one, key=key))
        labels.use(both)
        classes = f", {len(names)} new classes" if names else ""
        self._say(f"{len(read):,} labels loaded{classes}")

    def _merge(self, sets: list[LabelSet]) -> None:
        labels = self._session.labels
        merged, found = merge_labels([labels.set, *sets])
        labels.use(merged)
        self.disagreements = tuple(found)
        open_ones = sum(not one.chosen for one in found)
        self._say(
            f"{len(merged):,} labels of {len(sets) + 1} people; they disagree on "
            f"{len(found):,} patches, {open_ones:,} of them without a majority"
        )
        self.changed.emit()

    def _imported(self, grid: PatchGrid, found: tuple[LabelSet, int]) -> None:
        labels, count = found
        mark, name = (str(grid.slide.get(k) or "") for k in ("fingerprint", "name"))
        # The user may have labelled meanwhile.
        here = labels.of_slide(mark)
        new = replace(
            here, labels=tuple(one for one in here.labels if one.source == "import")
        )
        before = self._session.labels.set
        self._session.labels.use(added(before, new).with_slide_name(mark, name))
        self._say(f"{count:,} patches labelled from the regions")

    def _grid(self) -> PatchGrid | None:
        loaded = self._context.classifier.loaded
        if loaded is None:
            self._session.report_error(
                "Compute or load features first, in the dock Similarity"
            )
            return None
        return loaded.index.features.grid

    def _say(self, text: str) -> None:
        self._context.labels.say(text)


def _of_shapes(
    layer: Any, slide: Layer, grid: PatchGrid, name: str
) -> dict[str, Sequence[int]]:
    """Return the patches in the shapes of a layer by class, later shapes on top."""
    from napari_mcm.core.heatmaps.examples import patches_within

    names = _column(layer, len(layer.data))
    of_patch: dict[int, str] = {}
    for number in range(len(layer.data)):
        if str(layer.shape_type[number]) in _AREAS and len(layer.data[number]) > 2:
            rows = patches_within(grid, [_outline(layer, number, slide)])
            called = name or (names[number] if names else "") or str(layer.name)
            of_patch |= dict.fromkeys(rows.tolist(), called)
    return _by_name(of_patch)


def _of_labels(
    layer: Any, slide: Layer, grid: PatchGrid, name: str
) -> dict[str, Sequence[int]]:
    """Return the patches whose centres lie on labels of a layer, by class."""
    centres = grid.centres[:, ::-1] - 0.5
    world = slide.translate[-2:] + slide.scale[-2:] * centres
    places = np.rint((world - layer.translate[-2:]) / layer.scale[-2:]).astype(int)
    data = layer.data[0] if layer.multiscale else layer.data
    inside = ((places >= 0) & (places < data.shape[-2:])).all(axis=1)
    values = np.zeros(len(grid), np.int64)
    values[inside] = np.asarray(data)[tuple(places[inside].T)]
    table = getattr(layer, "features", None)
    known: dict[int, str] = {}
    if table is not None and "index" in table:
        names = _column(layer, len(table))
        if names:
            known = dict(zip(map(int, table["index"]), names, strict=True))
    of_patch = {
        int(row): name or known.get(int(values[row])) or f"{layer.name} {values[row]}"
        for row in np.flatnonzero(values)
    }
    return _by_name(of_patch)


def _column(layer: Any, count: int) -> list[str]:
    """Return the classes in the features of a layer; none if they hold none."""
    table = getattr(layer, "features", None)
    for column in _CLASS_COLUMNS:
        if table is not None and column in table and len(table) == count:
            return [str(one) for one in table[column]]
    return []


def _by_name(of_patch: dict[int, str]) -> dict[str, Sequence[int]]:
    found: dict[str, list[int]] = {}
    for row, name in sorted(of_patch.items()):
        found.setdefault(name, []).append(row)
    return dict(found)


def _outline(layer: Any, number: int, slide: Layer) -> Polygon:
    """Return the outline of a shape, (x, y) in level-0 pixels."""
    corners = np.asarray(layer.data[number], float)[:, -2:]
    if str(layer.shape_type[number]) == "ellipse":
        middle = corners.mean(axis=0)
        one, other = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
        corners = (
            middle + np.cos(_AROUND)[:, None] * one + np.sin(_AROUND)[:, None] * other
        )
    # napari's origin is the centre of the first pixel, the slide's is its corner.
    points = [slide.world_to_data(layer.data_to_world(corner)) for corner in corners]
    return tuple((float(p[-1]) + 0.5, float(p[-2]) + 0.5) for p in points)
