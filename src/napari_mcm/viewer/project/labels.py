"""Keeps labels: in the file of the project, or else in a file for each slide.

Either is written after each label, so that a program that is killed loses none. A slide's
own labels come back with the slide, unless the project has labels of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from pydantic import TypeAdapter, ValidationError

from napari_mcm.core.errors import LabelError, McmError
from napari_mcm.core.labelling import (
    LabelClass,
    LabelSet,
    PatchLabel,
    read_labels,
    write_labels,
)
from napari_mcm.viewer.app import persistence
from napari_mcm.viewer.app.labels import added
from napari_mcm.viewer.project.disk import unnamed_folder

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.project import Project, ProjectSlide
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.project.controller import ProjectController
    from napari_mcm.viewer.project.memory import SlideMemory
    from napari_mcm.viewer.project.slide_list import SlideList

_log = logging.getLogger(__name__)

_CLASSES = TypeAdapter(tuple[LabelClass, ...])
_PATCHES = TypeAdapter(tuple[PatchLabel, ...])
_FIELDS = ("x", "y", "width", "height", "author", "source", "made_at")


class ProjectLabels:
    """Stores the labels of a session, and brings them back.

    Parameters
    ----------
    project : ProjectController
        The project, which is saved when labels change.
    session : Session
        Session of the viewer.
    memory : SlideMemory
        Knows which slides are open.
    """

    def __init__(
        self, project: ProjectController, session: Session, memory: SlideMemory
    ) -> None:
        self._project = ref(project)
        self._session, self._memory = session, memory
        self._quiet = False
        # What the files of slides hold.
        self._written = session.labels.set
        session.labels.changed.connect(self._labels_changed)
        memory.found.connect(self._slide_found)
        for layer in session.layers.slides():
            if mark := memory.fingerprint_of(layer):
                self._slide_found(layer, mark)

    def opened(self, project: Project) -> None:
        """Take the labels of a project that was opened.

        Those of other slides that are open stay.

        Parameters
        ----------
        project : Project
            The project.
        """
        stored, labels = labels_in(project), self._session.labels.set
        marks = {
            mark
            for layer in self._session.layers.slides()
            if (mark := self._memory.fingerprint_of(layer)) not in stored.slides
        }
        others = [one for one in labels.labels if one.slide in marks]
        kept = replace(labels, labels=tuple(others))
        self._quiet = True
        self._session.labels.restore(added(stored, kept))
        self._quiet = False

    def store(self, slides: SlideList) -> None:
        """Put classes and labels into the project.

        Parameters
        ----------
        slides : SlideList
            Slides of the project.
        """
        labels = self._session.labels.set
        slides.set_fields(classes=tuple(asdict(one) for one in labels.classes))
        of_slide = _by_slide(labels.labels)
        for mark in {*of_slide, *_labelled(slides.project)}:
            slides.set_labels(mark, _as_stored(of_slide.get(mark, ())))

    def _labels_changed(self) -> None:
        """Save the project, or write the files of the slides whose labels changed."""
        before, labels = self._written, self._session.labels.set
        self._written = labels
        project = self._project()
        if self._quiet or project is None:
            return
        project.save()
        if project.path is not None and project.path.parent != unnamed_folder():
            return
        old, new = _by_slide(before.labels), _by_slide(labels.labels)
        renamed = before.classes != labels.classes
        for mark in {*old, *new}:
            if mark and (renamed or old.get(mark) != new.get(mark)):
                own = replace(labels, labels=tuple(new.get(mark, ())))
                self._session.disk.submit(
                    f"labels {mark}",
                    partial(write_labels, file_of(mark), own),
                    lambda _: None,
                    self._session.report_error,
                )

    def _slide_found(self, layer: Layer, mark: str) -> None:
        """Bring back the labels of a slide that was opened."""
        if mark in self._session.labels.set.slides:
            return
        self._session.disk.submit(
            f"read labels {mark}",
            partial(_read, mark),
            partial(self._bring, mark),
            self._session.report_error,
        )

    def _bring(self, mark: str, found: LabelSet) -> None:
        labels = self._session.labels
        # The user may have labelled the slide meanwhile: then both count.
        if found.labels:
            own = {one.place for one in labels.set.labels if one.slide == mark}
            self._quiet = True
            labels.bring(found.without(own))
            self._quiet = False


def file_of(mark: str) -> Path:
    """Return the file with the labels of a slide.

    Parameters
    ----------
    mark : str
        Fingerprint of the slide.
    """
    return persistence.settings_folder() / "labels" / f"{mark}.labels.json"


def labels_in(project: Project) -> LabelSet:
    """Return the classes and labels that a project holds.

    What another program has damaged is left out.

    Parameters
    ----------
    project : Project
        The project.
    """
    try:
        found = LabelSet(_CLASSES.validate_python(project.classes))
    except (ValidationError, LabelError) as error:
        _log.warning("Ignoring classes of the project: %s", error)
        found = LabelSet()
    for slide in project.slides:
        if slide.labels and slide.fingerprint:
            own = _of_stored(slide)
            found = found.with_names(one.label for one in own).with_labels(own)
            found = found.with_slide_name(slide.fingerprint, slide.name)
    return found


def _read(mark: str) -> LabelSet:
    file = file_of(mark)
    if not file.exists():
        return LabelSet()
    try:
        return read_labels(file).of_slide(mark)
    except McmError as error:
        # Kept aside: the next label would replace it.
        damaged = file.with_suffix(".damaged")
        file.replace(damaged)
        raise LabelError(
            f"the labels of this slide cannot be read ({error.what})",
            damaged,
            "Label anew, or repair this file",
        ) from None


def _by_slide(labels: Iterable[PatchLabel]) -> dict[str, list[PatchLabel]]:
    found: dict[str, list[PatchLabel]] = {}
    for one in labels:
        found.setdefault(one.slide, []).append(one)
    return found


def _labelled(project: Project) -> list[str]:
    return [one.fingerprint for one in project.slides if one.labels]


def _as_stored(labels: Iterable[PatchLabel]) -> dict[str, list[list[Any]]]:
    """Return the labels of one slide by class, as the project's file has them."""
    found: dict[str, list[list[Any]]] = {}
    for one in labels:
        values = [getattr(one, name) for name in _FIELDS]
        found.setdefault(one.label, []).append(values)
    return found


def _of_stored(slide: ProjectSlide) -> tuple[PatchLabel, ...]:
    try:
        rows = [
            {
                "slide": slide.fingerprint,
                "label": label,
                **dict(zip(_FIELDS, values, strict=True)),
            }
            for label, patches in slide.labels.items()
            for values in patches
        ]
        found = _PATCHES.validate_python(rows)
    except (ValidationError, TypeError, ValueError) as error:
        _log.warning("Ignoring the labels of %s: %s", slide.name, error)
        return ()
    return tuple(sorted(found, key=lambda one: one.made_at))
