"""Fits the classifier after each label, off the window's thread, and maps its classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_mcm.core.errors import LabelError, McmError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.heatmaps.config import DEFAULT_RADIUS
from napari_mcm.core.labelling import (
    ClassArea,
    ClassifierConfig,
    LabelSet,
    PatchClassifier,
)
from napari_mcm.core.labelling.slide_classes import SlideClasses, classify_slide
from napari_mcm.core.labelling.training import train_on
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.labelling.slide_files import feature_files
from napari_mcm.viewer.labelling.training_rows import LabelledPatches, TrainingRows
from napari_mcm.viewer.project.controller import project_of
from napari_mcm.viewer.project.state import saved_features

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.app.session import Session

_FIT = "fit"


@dataclass(frozen=True, eq=False)
class ClassifiedSlide:
    """The classes of one slide's patches.

    Attributes
    ----------
    loaded : LoadedFeatures
        Features of N patches.
    classes : SlideClasses
        Class and probabilities of each patch.
    areas : list of ClassArea
        Area of each class, the unsure area last.
    """

    loaded: LoadedFeatures
    classes: SlideClasses
    areas: list[ClassArea]


@dataclass(frozen=True, eq=False)
class Fit:
    """A classifier, what it was trained on, and the classes of the slides in sight.

    Attributes
    ----------
    labels : LabelSet
        All labels.
    slides : mapping of Layer to ClassifiedSlide
        Slides that are seen; the current one first. Empty without a classifier.
    rows : TrainingRows or None
        The labelled patches; None for a classifier from a file.
    classifier : PatchClassifier or None
        None where labels do not suffice.
    problem : str
        Why there is no classifier, and what to do; else empty.
    """

    labels: LabelSet
    slides: Mapping[Layer, ClassifiedSlide] = field(default_factory=dict)
    rows: TrainingRows | None = None
    classifier: PatchClassifier | None = None
    problem: str = ""

    def with_origin(self) -> PatchClassifier:
        """Return the classifier with the origin of its labels, to be saved."""
        assert self.classifier is not None
        if self.rows is None:
            return self.classifier
        provenance = self.rows.labelled.provenance(self.labels)
        return replace(self.classifier, provenance=provenance)


@dataclass(frozen=True, eq=False)
class _Task:
    """What a fit takes, as it was when it was asked for."""

    labels: LabelSet
    config: ClassifierConfig
    encoder: str
    seen: Mapping[Layer, LoadedFeatures]
    others: tuple[LoadedFeatures, ...]
    files: Callable[[], Mapping[str, Path]]
    given: PatchClassifier | None


class ClassifierController:
    """Keeps the classifier of the current labels, and the classes of the slides in sight.

    The newest labels win: while a fit runs, later ones replace each other, and the last
    map stays.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    fit : Fit or None
        The newest one; None before the first, and while another slide is waited for.
    busy : bool
        Whether a newer one is being made.
    config : ClassifierConfig
        Context, regularization, and the limit of unsure patches.
    slot : str
        Slot of the features that classes are learnt on.
    given : PatchClassifier or None
        A classifier from a file, which is used instead of one trained on the labels.
    given_name : str
        Name of its file.
    changed : Signal
        Emitted when `fit`, `busy` or `slot` changed.
    fitted : Signal
        Emitted with a new :class:`Fit`.
    """

    changed = Signal()
    fitted = Signal(object)

    def __init__(self, session: Session) -> None:
        self._session = session
        self.fit: Fit | None = None
        self.busy = False
        self.config = ClassifierConfig(
            neighbourhood=NeighbourhoodConfig(radius=DEFAULT_RADIUS)
        )
        self.given: PatchClassifier | None = None
        self.given_name = ""
        self._slot = SLOTS[0]
        self._worker = BackgroundWorker("classes")
        self._features = LabelledPatches()
        self._asked: _Task | None = None
        # Of slides that were open in this session, by encoder.
        self._paths: dict[str, dict[str, Path]] = {}
        session.labels.changed.connect(self.request)
        session.slide_changed.connect(self._slide_changed)
        session.features_changed.connect(self._features_changed)
        session.side_by_side_changed.connect(self.request)
        self.request()

    @property
    def slot(self) -> str:
        """Slot of the features that classes are learnt on."""
        slide = self._session.slide
        loaded = {} if slide is None else self._session.features_of(slide)
        if self._slot in loaded:
            return self._slot
        return next((slot for slot in SLOTS if slot in loaded), self._slot)

    @property
    def loaded(self) -> LoadedFeatures | None:
        """Features of the current slide; None if it has none."""
        return self._session.features(self.slot)

    @property
    def classes(self) -> ClassifiedSlide | None:
        """The classes of the current slide; None where there are none."""
        slide = self._session.slide
        if self.fit is None or slide is None:
            return None
        found = self.fit.slides.get(slide)
        return found if found is not None and found.loaded is self.loaded else None

    def use_slot(self, slot: str) -> None:
        """Learn classes on the features of another slot."""
        if slot != self._slot:
            self._slot = slot
            self.request()

    def use_config(self, config: ClassifierConfig) -> None:
        """Fit with other options."""
        if config != self.config:
            self.config = config
            self.request()

    def use_classifier(self, classifier: PatchClassifier | None, name: str) -> None:
        """Map the classes of a classifier from a file, or train on the labels again.

        Parameters
        ----------
        classifier : PatchClassifier or None
            The classifier; None to train on the labels.
        name : str
            Name of its file.
        """
        self.given, self.given_name = classifier, name
        if classifier is not None:
            self.config = classifier.config
            labels = self._session.labels
            known = dict(zip(classifier.names, classifier.colors, strict=False))
            grown = labels.set.with_names(classifier.names)
            for one in grown.classes:
                if one.name in known and one.name not in labels.set.names:
                    grown = grown.with_class(replace(one, color=known[one.name]))
            labels.use(grown)
        self.request()

    def use_radius(self, radius: int) -> None:
        """Average features over more or fewer patches around, from now on."""
        # A classifier is of one context: with another one, it is trained on the labels.
        self.given = None
        around = NeighbourhoodConfig(radius=radius)
        self.use_config(self.config.model_copy(update={"neighbourhood": around}))

    def use_limit(self, unsure_below: float) -> None:
        """Set the probability below which a patch is unsure."""
        self.use_config(self.config.model_copy(update={"unsure_below": unsure_below}))

    def request(self) -> None:
        """Fit again, as soon as the fit that runs has ended."""
        task = self._task()
        if task is None:
            self._worker.drop(_FIT)
            self._asked = None
            self._take(None, Fit(self._session.labels.set, problem=self._missing()))
            return
        self._asked = task
        self._set_busy(True)
        self._worker.follow(
            _FIT,
            partial(_fit, task, self._features),
            partial(self._take, task),
            partial(self._failed, task),
        )

    def wait(self) -> None:
        """Block until the fit that runs has ended, reported or not."""
        self._worker.wait()

    def _slide_changed(self) -> None:
        if self.classes is None or self.fit is None:
            self.request()
        else:
            self.changed.emit()

    def _features_changed(self, _slot: str = "") -> None:
        self.request()

    def _missing(self) -> str:
        if self._session.slide is None:
            return "Open a slide"
        return "Compute or load features first, in the dock Similarity"

    def _task(self) -> _Task | None:
        """Return what to fit; None without features of the current slide."""
        session, loaded, slide = self._session, self.loaded, self._session.slide
        if loaded is None or slide is None:
            return None
        mark, seen, others = saved_features(loaded).encoder, {slide: loaded}, []
        paths = self._paths.setdefault(mark, {})
        paths[slide_of_features(loaded)] = loaded.path
        for layer in session.layers.slides():
            for one in session.features_of(layer).values():
                if layer is slide or saved_features(one).encoder != mark:
                    continue
                paths[slide_of_features(one)] = one.path
                if session.side_by_side:
                    seen[layer] = one
                others.append(one)
                break
        project = project_of(session)
        files = partial(feature_files, project.project, project.path, mark, dict(paths))
        labels = session.labels.set
        return _Task(labels, self.config, mark, seen, tuple(others), files, self.given)

    def _take(self, task: _Task | None, fit: Fit) -> None:
        if task is None or task is self._asked:
            self.busy = False
        self.fit = fit
        self._session.labels.use_classifier(fit.classifier)
        self.fitted.emit(fit)
        self.changed.emit()

    def _failed(self, task: _Task, problem: str) -> None:
        self._take(task, Fit(task.labels, problem=problem))
        self._session.report_error(problem)

    def _set_busy(self, busy: bool) -> None:
        if busy != self.busy:
            self.busy = busy
            self.changed.emit()


def slide_of_features(loaded: LoadedFeatures) -> str:
    """Return the fingerprint of the slide that features are of."""
    return str(loaded.index.features.grid.slide.get("fingerprint") or "")


def _fit(task: _Task, features: LabelledPatches) -> Fit:
    """Fit a classifier, and apply it to the slides in sight; called in the thread."""
    labels, config = task.labels, task.config
    if task.given is not None:
        return _apply(task, replace(task.given, config=config))
    current = next(iter(task.seen.values()))
    in_memory = [one.index.features for one in (current, *task.others)]
    rows = features.gather(
        labels, task.encoder, config.neighbourhood, in_memory, task.files
    )
    try:
        classifier = train_on(rows.labelled, config)
    except LabelError as error:
        return Fit(labels, rows=rows, problem=_next_thing(labels, error))
    slides = {
        layer: _classify(classifier, loaded) for layer, loaded in task.seen.items()
    }
    return Fit(labels, slides, rows, classifier)


def _apply(task: _Task, classifier: PatchClassifier) -> Fit:
    """Apply a classifier from a file."""
    labels = task.labels.with_names(classifier.names)
    try:
        slides = {
            layer: _classify(classifier, loaded) for layer, loaded in task.seen.items()
        }
    except McmError as error:
        return Fit(labels, problem=str(error))
    return Fit(labels, slides, None, classifier)


def _next_thing(labels: LabelSet, error: LabelError) -> str:
    """Return what to do to get a map."""
    if len(labels.classes) < 2:
        return "Add two classes, then point at a patch and press 1 or 2"
    if not labels.labels:
        return "Point at a patch of the slide and press the number of its class"
    return str(error)


def _classify(classifier: PatchClassifier, loaded: LoadedFeatures) -> ClassifiedSlide:
    classes = classify_slide(classifier, loaded.index.features)
    return ClassifiedSlide(loaded, classes, classes.areas())
