"""Patches to label next, one after another: the view goes to each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_mcm.core.errors import McmError
from napari_mcm.core.features.feature_set import FeatureSet, NeighbourhoodConfig
from napari_mcm.core.labelling import patch_probabilities
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.labelling.class_maps import fingerprint_of
from napari_mcm.viewer.labelling.pool import (
    ClosedPools,
    Suggestion,
    pool_of,
    suggest,
)
from napari_mcm.viewer.labelling.slide_files import feature_files
from napari_mcm.viewer.layers.metadata import slide_of
from napari_mcm.viewer.layers.thumbnails import go_to, read_thumbnails
from napari_mcm.viewer.layers.timers import single_shot
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.state import saved_features

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.labelling import LabelSet, PatchClassifier
    from napari_mcm.core.slides import Slide
    from napari_mcm.core.slides.tiles import Pixels
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.labelling.controller import LabelController
    from napari_mcm.viewer.labelling.fitting import ClassifierController, Fit

COUNT = 8
"""Number of suggestions."""
WAIT_MS = 150
"""Delay from a new map to new suggestions, in milliseconds: the map is painted first."""
SIDE_PX = 96
"""Side of a thumbnail in pixels."""
_CHOOSE, _READ = "choose", "read"

Scope = Literal["slide", "project"]
Key = tuple[str, int, int]


@dataclass(frozen=True, eq=False)
class _Task:
    """What suggestions are chosen from, as it was when they were asked for."""

    features: tuple[FeatureSet, ...]
    own: np.ndarray | None
    classifier: PatchClassifier | None
    labels: LabelSet
    skipped: frozenset[Key]
    neighbourhood: NeighbourhoodConfig
    files: Callable[[], Mapping[str, Path]] | None


class SuggestionController:
    """Suggests patches, shows one after another, and labels them as the user answers.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    classifier : ClassifierController
        Knows how sure the classes of patches are.
    labels : LabelController
        Says what happened.

    Attributes
    ----------
    items : tuple of Suggestion
        The suggestions; the first one waits for an answer while `active`.
    active : bool
        Whether the view goes from one to the next.
    scope : {"slide", "project"}
        Whether patches of the open slide are suggested, or of all slides.
    reading : bool
        Whether suggestions are being chosen.
    changed : Signal
        Emitted when any of these changed, or a thumbnail was read.
    """

    changed = Signal()

    def __init__(
        self,
        session: Session,
        classifier: ClassifierController,
        labels: LabelController,
    ) -> None:
        self._session, self._classifier, self._labels = session, classifier, labels
        self.items: tuple[Suggestion, ...] = ()
        self.active = self.reading = False
        self.scope: Scope = "slide"
        self._wanted = False
        self._skipped: frozenset[Key] = frozenset()
        self._pixels: dict[Key, Pixels | None] = {}
        self._worker = BackgroundWorker("label next")
        self._closed = ClosedPools()
        self._awaited: Suggestion | None = None
        self._timer = single_shot(WAIT_MS, self._choose)
        classifier.fitted.connect(self._fitted)
        session.slide_changed.connect(self._slide_changed)
        session.features_changed.connect(self._slide_changed)

    @property
    def current(self) -> Suggestion | None:
        """The suggestion that waits for an answer; None if there is none."""
        return self.items[0] if self.active and self.items else None

    def pixels_of(self, one: Suggestion) -> Pixels | None:
        """Return the thumbnail of a suggestion; None if it is not read yet."""
        return self._pixels.get(one.key)

    def want(self) -> None:
        """Keep suggestions up to date from now on: they are in sight."""
        if not self._wanted:
            self._wanted = True
            self._timer.start()

    def use_scope(self, scope: Scope) -> None:
        """Suggest patches of the open slide only, or of the whole project."""
        if scope != self.scope:
            self.scope, self.items = scope, ()
            self._skipped = frozenset()
            self.changed.emit()
            self._timer.start(0)

    def start(self) -> None:
        """Go to the first suggestion, and wait for an answer."""
        self.active = True
        self.want()
        self._show_current()
        self.changed.emit()

    def stop(self) -> None:
        """Show no more suggestions."""
        if self.active:
            self.active, self._awaited = False, None
            self._session.layers.clear_mark()
            self._labels.say("")
            self.changed.emit()

    def agree(self) -> None:
        """Label the patch as suggested."""
        one = self.current
        if one is not None and one.label:
            self._answer(one, one.label)
        elif one is not None:
            self._labels.say("Nothing is suggested yet: press the number of a class")

    def correct(self, key: int) -> None:
        """Label the patch with the class of a number key."""
        one, found = self.current, self._session.labels.class_of_key(key)
        if one is not None and found is not None:
            self._answer(one, found.name)

    def correct_to(self, one: Suggestion, name: str) -> None:
        """Label any of the suggestions with a class, by its name."""
        self._answer(one, name)

    def skip(self) -> None:
        """Go on to the next one, and suggest this one no more."""
        if (one := self.current) is not None:
            self._skipped |= {one.key}
            self._drop(one)

    def go_to(self, one: Suggestion) -> None:
        """Make a suggestion the first one, and show it."""
        if one in self.items:
            self.items = (one, *(other for other in self.items if other is not one))
        self.active = True
        self._show_current()
        self.changed.emit()

    def _answer(self, one: Suggestion, name: str) -> None:
        self._session.labels.add(one.grid, [one.row], name, "suggestion")
        self._drop(one)

    def _drop(self, one: Suggestion) -> None:
        self.items = tuple(other for other in self.items if other.key != one.key)
        self._show_current()
        self.changed.emit()
        self._timer.start()

    def _show_current(self) -> None:
        """Move the view to the current suggestion; its slide is opened first."""
        one, session = self.current, self._session
        if one is None:
            return
        self._say(one)
        layer = self._layer_of(one)
        if layer is None:
            self._awaited = one
            project = project_of(session)
            at = project.position_of(one.slide)
            if at is None:
                session.report_error("The slide of this patch is not in the project")
            else:
                project.open_slide(at)
            return
        self._awaited = None
        session.choose_slide(layer)
        go_to(session.layers, layer, one.grid, one.row)

    def _say(self, one: Suggestion) -> None:
        if one.label:
            what = f"{one.label}? {one.probability:.2f}"
            answers = "Enter agrees, a digit corrects, Space skips, Esc ends"
        else:
            what, answers = "Which class?", "A digit labels, Space skips, Esc ends"
        self._labels.say(f"{what} {answers}")

    def _layer_of(self, one: Suggestion) -> Layer | None:
        session = self._session
        for layer in session.layers.slides():
            if fingerprint_of(session, layer) == one.slide:
                return layer
        return None

    def _slide_changed(self, _slot: str = "") -> None:
        if self._awaited is not None and self._layer_of(self._awaited) is not None:
            # After the slide's own view came back.
            QTimer.singleShot(0, self._show_awaited)
            return
        slide = self._session.slide
        mark = "" if slide is None else fingerprint_of(self._session, slide)
        elsewhere = self.items and all(one.slide != mark for one in self.items)
        if self.scope == "slide" and elsewhere:
            self.items = ()
            self.stop()
            self.changed.emit()
        if self._wanted:
            self._timer.start()

    def _show_awaited(self) -> None:
        if self._awaited is not None and self._awaited is self.current:
            self._show_current()

    def _fitted(self, _fit: Fit) -> None:
        if self._wanted:
            self._timer.start()

    def _choose(self) -> None:
        """Choose new suggestions in the background."""
        task = self._task()
        if task is None:
            self._worker.drop(_CHOOSE)
            self.reading = False
            if not self.active:
                self.items = ()
            self.changed.emit()
            return
        self.reading = True
        self._worker.follow(
            _CHOOSE, partial(_choose, task, self._closed), self._chosen, self._failed
        )

    def _task(self) -> _Task | None:
        session, loaded = self._session, self._classifier.loaded
        slide, fit = session.slide, self._classifier.fit
        if loaded is None or slide is None or not session.labels.classes:
            return None
        classes = self._classifier.classes
        mark = saved_features(loaded).encoder
        features, files = [loaded.index.features], None
        if self.scope == "project":
            features += [
                one.index.features
                for layer in session.layers.slides()
                if layer is not slide
                for one in session.features_of(layer).values()
                if saved_features(one).encoder == mark
            ]
            project = project_of(session)
            files = partial(feature_files, project.project, project.path, mark)
        return _Task(
            tuple(features),
            None if classes is None else classes.classes.probabilities,
            None if fit is None else fit.classifier,
            session.labels.set,
            self._skipped,
            self._classifier.config.neighbourhood,
            files,
        )

    def _chosen(self, found: list[Suggestion]) -> None:
        self.reading = False
        labelled = {label.place[:3] for label in self._session.labels.set.labels}
        found = [one for one in found if one.key not in labelled | self._skipped]
        kept = self.items[:1] if self.active else ()
        others = [one for one in found if one.key not in {k.key for k in kept}]
        # What the user looks at stays; its suggestion may be another one by now.
        again = {one.key: one for one in found}
        kept = tuple(again.get(one.key, one) for one in kept)
        was_empty = not self.items
        self.items = (*kept, *others)[:COUNT]
        if self.active and was_empty:
            self._show_current()
        self.changed.emit()
        self._read()

    def _failed(self, problem: str) -> None:
        self.reading = False
        self._session.report_error(problem)
        self.changed.emit()

    def _read(self) -> None:
        """Read the thumbnails that are not known, in the background."""
        missing = [one for one in self.items if one.key not in self._pixels]
        if not missing:
            return
        session, slides = self._session, {}
        for one in missing:
            layer = self._layer_of(one)
            slides[one.slide] = _opener(session, one.slide, slide_of(layer))
        self._worker.submit(
            _READ, partial(_thumbnails, missing, slides), self._arrived, _quiet
        )

    def _arrived(self, read: dict[Key, Pixels | None]) -> None:
        self._pixels = {
            one.key: self._pixels[one.key]
            for one in self.items
            if one.key in self._pixels
        } | read
        self.changed.emit()


def _choose(task: _Task, closed: ClosedPools) -> list[Suggestion]:
    """Choose suggestions; called in the thread."""
    pools = []
    for number, features in enumerate(task.features):
        probabilities = task.own if number == 0 else None
        if probabilities is None and task.classifier is not None:
            probabilities = patch_probabilities(task.classifier, features)
        pools.append(pool_of(features, probabilities, task.neighbourhood, task.labels))
    if task.files is not None:
        known = {one.grid.slide.get("fingerprint") for one in task.features}
        files = {mark: path for mark, path in task.files().items() if mark not in known}
        pools += closed.of(files, task.neighbourhood)
    return suggest(pools, task.classifier, task.labels, task.skipped, COUNT)


Opener = Callable[[], "Slide | None"]


def _opener(session: Session, mark: str, opened: Slide | None) -> Opener:
    """Return what opens a slide in the thread."""
    project = project_of(session)
    at = project.position_of(mark)
    if opened is not None or at is None:
        return lambda: opened
    entry = project.project.slides[at]

    def open_file() -> Slide | None:
        from napari_mcm.core.slides import open_slide

        try:
            return open_slide(Path(entry.absolute), entry.mpp)
        except McmError:
            return None

    return open_file


def _thumbnails(
    items: Sequence[Suggestion], slides: Mapping[str, Opener]
) -> dict[Key, Pixels | None]:
    found: dict[Key, Pixels | None] = {}
    for mark, opener in slides.items():
        own = [one for one in items if one.slide == mark]
        slide = opener()
        if slide is None:
            found |= {one.key: None for one in own}
            continue
        rows, values = [one.row for one in own], [0.0] * len(own)
        read = read_thumbnails(slide, own[0].grid, rows, values, SIDE_PX)
        found |= {one.key: top.pixels for one, top in zip(own, read, strict=True)}
    return found


def _quiet(_problem: str) -> None:
    """Ignore the error: the slide's layer reports that it cannot be read."""
