"""The map of classes on the slide, in its kinds, and when it is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_mcm.core.heatmaps import Heatmap
from napari_mcm.core.labelling import UNSURE, LabelSet
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.layers import colormaps
from napari_mcm.viewer.layers.label_frames import FramedLabels, LabelFrames
from napari_mcm.viewer.layers.metadata import KEY, owner_of
from napari_mcm.viewer.layers.timers import single_shot
from napari_mcm.viewer.project.memory import memory_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Layer

    from napari_mcm.core.labelling import PatchClassifier
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.labelling.fitting import (
        ClassifiedSlide,
        ClassifierController,
        Fit,
    )

CLASSES = "classes"
"""Slot of the map of classes."""
UNSURE_COLOUR = "#8c8c8c"
DIFFERENCE = "difference"
"""Slot of a map of the Similarity dock."""

_SIMILARITY = (*SLOTS, DIFFERENCE)

MapKind = Literal["class", "probability", "unsure"]
KINDS: tuple[MapKind, ...] = get_args(MapKind)


class ClassMaps:
    """Draws the map of classes of each slide, and frames the labelled patches.

    On a slide one kind of map is seen: that of classes after a label, that of similarity
    after a query. Side by side, all slides show the kind that was asked for last, and a
    slide without such a map shows none.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    classifier : ClassifierController
        What is drawn.

    Attributes
    ----------
    kind : {"class", "probability", "unsure"}
        The likeliest class of each patch; the probability of one class; or how unsure
        the classifier is.
    of : str
        Name of the class whose probability is shown; empty for the first.
    changed : Signal
        Emitted when `kind` or `of` changed, or the map was shown or hidden.
    """

    changed = Signal()

    def __init__(self, session: Session, classifier: ClassifierController) -> None:
        self._session, self._classifier = session, classifier
        self.kind: MapKind = "class"
        self.of = ""
        self._wanted = self._hides_examples = False
        self._frames = LabelFrames(session.layers)
        self._gave_way: WeakSet[Layer] = WeakSet()
        self._bare: WeakSet[Layer] = WeakSet()
        self._labels: LabelSet | None = None
        self._thumbnails = single_shot(600, self._refresh_thumbnail)
        classifier.fitted.connect(self._fitted)
        session.labels.changed.connect(self._labels_changed)
        session.slide_changed.connect(self._frame_all)
        # Labels of a project may be there before it is known whose they are.
        memory_of(session).found.connect(self._slide_found)
        session.map_asked.connect(self._map_asked)
        session.side_by_side_changed.connect(self._agree)
        session.layers.view.changed.connect(self._eye_changed)
        session.viewer.layers.events.inserted.connect(self._inserted)
        self._labels_changed()

    @property
    def visible(self) -> bool:
        """Whether the map of the current slide is seen."""
        layer = self._layer(self._session.slide)
        return layer is not None and bool(layer.visible)

    def use_kind(self, kind: MapKind) -> None:
        """Show another kind of map."""
        self.kind = kind
        self.show()
        self._redraw()
        for slide in self._session.layers.slides():
            if (layer := self._layer(slide)) is not None:
                self._fit_bar(layer)

    def use_class(self, name: str) -> None:
        """Show the probability of another class, where probabilities are shown."""
        if name != self.of:
            self.of = name
            if self.kind == "probability":
                self._redraw()

    def show(self) -> None:
        """Show the map of classes instead of those of similarity."""
        self._wanted = True
        for slide in self._in_sight():
            if self._layer(slide) is not None:
                self._session.layers.show_only(slide, CLASSES)
        self._agree()
        self.changed.emit()

    def _in_sight(self) -> list[Layer]:
        """Return the current slide, or side by side all slides."""
        session = self._session
        if session.side_by_side:
            return session.layers.slides()
        return [] if session.slide is None else [session.slide]

    def heatmap_of(
        self, classifier: PatchClassifier, classes: ClassifiedSlide, labels: LabelSet
    ) -> Heatmap:
        """Return the map of a slide, as it is drawn.

        Parameters
        ----------
        classifier : PatchClassifier
            The classifier.
        classes : ClassifiedSlide
            Its classes of the slide.
        labels : LabelSet
            The classes in the order of the dock.
        """
        names = classifier.names
        of = self.of if self.of in names else names[0]
        top = classes.classes.probabilities.max(axis=1)
        if self.kind == "class":
            colours = [one.color for one in labels.classes]
            values = _flat(classes.classes.decided, names, labels)
            made = (
                colormaps.of_classes([*colours, UNSURE_COLOUR]),
                (0.0, 1.0),
                "classes",
            )
        elif self.kind == "probability":
            known = {one.name: one.color for one in labels.classes}
            values = classes.classes.probabilities[:, names.index(of)]
            made = colormaps.of_class(known[of]), (0.0, 1.0), f"probability of {of}"
        else:
            values = np.asarray(1 - top, np.float32)
            made = f"frost{colormaps.FADING}", (0.0, 1 - 1 / len(names)), "unsure"
        colormap, limits, title = made
        grid, around = (
            classes.loaded.index.features.grid,
            classifier.config.neighbourhood,
        )
        return Heatmap(values, grid, limits, title, colormap, None, around)

    def _fitted(self, fit: Fit) -> None:
        if fit.classifier is None:
            for slide in self._session.layers.slides():
                self._session.layers.empty_map(slide, CLASSES)
            self._give_way()
            return
        for slide, classes in fit.slides.items():
            if slide in self._session.layers:
                self._draw(slide, fit, classes)
        self._agree()
        self._thumbnails.start()

    def _redraw(self) -> None:
        if self._classifier.fit is not None:
            self._fitted(self._classifier.fit)

    def _draw(self, slide: Layer, fit: Fit, classes: ClassifiedSlide) -> None:
        assert fit.classifier is not None
        layers, fresh = self._session.layers, self._layer(slide) is None
        heatmap = self.heatmap_of(fit.classifier, classes, fit.labels)
        around = fit.classifier.config.neighbourhood.describe()
        name = f"{heatmap.title}: {classes.loaded.label} ({slide.name}, {around})"
        calibrated = "" if fit.classifier.calibrated else ", uncalibrated"
        layer = layers.show_map(
            slide,
            CLASSES,
            name,
            heatmap,
            thumbnail=False,
            caption=" · ".join(
                [
                    classes.loaded.label,
                    around,
                    self._describe(fit, heatmap, classes.classes.decided) + calibrated,
                ]
            ),
        )
        returns = layer in self._gave_way
        self._gave_way.discard(layer)
        if returns and self._wanted:
            layers.show_only(slide, CLASSES)
        if fresh:
            self._fit_bar(layer)
            if self._wanted:
                layers.show_only(slide, CLASSES)
            else:
                layers.view.set_visible(layer, False)
            self._eye_changed()

    def _fit_bar(self, layer: Layer) -> None:
        # The numbers of classes mean nothing: the dock is the legend.
        layer.colorbar.visible = self.kind != "class"

    def _describe(self, fit: Fit, heatmap: Heatmap, decided: NDArray[np.int64]) -> str:
        if self.kind != "class":
            return heatmap.title
        assert fit.classifier is not None
        on_map = {fit.classifier.names[n] for n in np.unique(decided[decided >= 0])}
        keys = [
            f"{one.key} {one.name}" if one.key else one.name
            for one in fit.labels.classes
            if one.name in on_map
        ]
        return f"classes {', '.join(keys)}" if keys else "classes: all unsure"

    def _refresh_thumbnail(self) -> None:
        layer = self._layer(self._session.slide)
        if layer is not None and layer.visible:
            layer._update_thumbnail()

    def _layer(self, slide: Layer | None) -> Layer | None:
        return None if slide is None else self._session.layers.map_of(slide, CLASSES)

    def _map_asked(self, what: str) -> None:
        """Show what the user asked for last: similarity, or classes."""
        if what == CLASSES:
            self.show()
            return
        self._wanted = False
        self._give_way()
        self.changed.emit()

    def _give_way(self) -> None:
        """Show the similarity maps of the slides in sight, where there are some."""
        for slide in self._in_sight():
            self._show_kind(slide, _SIMILARITY)

    def _agree(self) -> None:
        """Show the same kind of map on all slides that are side by side."""
        slides = self._in_sight() if self._session.side_by_side else []
        kind = (CLASSES,) if self._wanted else _SIMILARITY
        # Without any map of classes, those of similarity stay until there is one.
        if not self._wanted or self._is_seen(slides):
            for slide in slides:
                self._show_kind(slide, kind)

    def _show_kind(self, slide: Layer, kind: tuple[str, ...]) -> None:
        """Show a map of one kind instead of others, or none where all were hidden."""
        layers, slots = self._session.layers, (CLASSES, *_SIMILARITY)
        found = {
            slot: layer
            for slot in slots
            if (layer := layers.map_of(slide, slot)) is not None
        }
        seen = {slot for slot, layer in found.items() if layer.visible}
        if seen <= set(kind) and (seen or slide not in self._bare):
            return
        asked = next((slot for slot in kind if slot in found), "")
        if asked or self._session.side_by_side:
            layers.show_only(slide, asked)
            (self._bare.discard if asked else self._bare.add)(slide)
            if CLASSES in seen and CLASSES not in kind:
                self._gave_way.add(found[CLASSES])

    def _is_seen(self, slides: Iterable[Layer]) -> bool:
        """Return whether a map of classes is seen on one of some slides."""
        maps = (self._layer(slide) for slide in slides)
        return any(layer is not None and layer.visible for layer in maps)

    def _inserted(self, event: object) -> None:
        """Hide a map of similarity that is made while maps of classes are seen."""
        layer = event.value  # type: ignore[attr-defined]
        owner, slot = owner_of(layer), (layer.metadata.get(KEY) or {}).get("slot")
        if owner is None or slot not in _SIMILARITY:
            return
        beside = self._wanted and self._session.side_by_side
        if self._is_seen(self._in_sight() if beside else [owner]):
            self._session.layers.view.set_visible(layer, False)
            if self._layer(owner) is None:
                self._bare.add(owner)

    def _eye_changed(self) -> None:
        # Marks of the query's examples would hide labels, and look like them.
        if self.visible != self._hides_examples:
            self._hides_examples = self.visible
            self._session.layers.examples.show(not self.visible)
        self.changed.emit()

    def _labels_changed(self) -> None:
        labels = self._session.labels.set
        before, self._labels = self._labels, labels
        if before is not None and labels.labels != before.labels:
            # The user labels, and wants to see what comes of it.
            self.show()
        self._frame_all()

    def _frame_all(self) -> None:
        """Frame the labels of all open slides."""
        for slide in self._session.layers.slides():
            self._frames.show(slide, self._framed(slide))

    def _slide_found(self, slide: Layer, _mark: str) -> None:
        self._frames.show(slide, self._framed(slide))

    def _framed(self, slide: Layer) -> FramedLabels:
        labels = self._session.labels.set
        mark = fingerprint_of(self._session, slide)
        index = {name: number for number, name in enumerate(labels.names)}
        own = [one for one in labels.labels if mark and one.slide == mark]
        boxes = np.asarray(
            [(one.x, one.y, one.x + one.width, one.y + one.height) for one in own],
            float,
        ).reshape(-1, 4)
        classes = np.asarray([index[one.label] for one in own], np.int64)
        return FramedLabels(
            boxes,
            classes,
            tuple(one.color for one in labels.classes),
            tuple(one.key for one in labels.classes),
        )


def fingerprint_of(session: Session, slide: Layer) -> str:
    """Return the fingerprint of an open slide; empty if it is not known yet.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    slide : Layer
        Layer of the slide.
    """
    for loaded in session.features_of(slide).values():
        if mark := loaded.index.features.grid.slide.get("fingerprint"):
            return str(mark)
    return memory_of(session).fingerprint_of(slide)


def _flat(
    decided: NDArray[np.int64], names: tuple[str, ...], labels: LabelSet
) -> NDArray[np.float32]:
    """Return the values of :func:`~colormaps.of_classes`, NaN without features."""
    count = len(labels.classes) + 1
    places = [labels.names.index(name) for name in names]
    # Unsure is the last colour; what has no features comes behind it.
    codes = np.asarray([*places, float("nan"), count - 1], np.float32)
    values = codes[np.where(decided < UNSURE, len(names), decided)]
    return np.asarray((values + 0.5) / count, np.float32)
