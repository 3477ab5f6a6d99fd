"""The registrations of a project's slides: which files they are in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from napari_mcm.core.project import ProjectRegistration, find_existing, place_beside

if TYPE_CHECKING:
    from napari_mcm.viewer.app.session import Session
    from napari_mcm.viewer.project.controller import ProjectController
    from napari_mcm.viewer.project.slide_list import SlideList

Pair = frozenset[str]
"""Fingerprints of two slides."""


class ProjectRegistrations:
    """Notes the files of registrations, and finds those that did not move with a slide.

    A registration is a file beside its first slide, which is found there. In a read-only
    folder it is elsewhere, and so is one that was loaded: there the project says where.

    Parameters
    ----------
    project : ProjectController
        The project, which is saved when there is a new registration.
    session : Session
        Session of the viewer.
    """

    def __init__(self, project: ProjectController, session: Session) -> None:
        self._project = ref(project)
        self._registrations = session.registrations
        self._files: dict[Pair, tuple[str, str, Path]] = {}
        self._asked: Path | None = None
        self._registrations.kept.connect(self._kept)
        self._registrations.lookup = self._find
        project.slides_changed.connect(self._look_again)

    def store(self, slides: SlideList) -> None:
        """Put the files of new registrations into the project.

        Parameters
        ----------
        slides : SlideList
            The project; registrations of slides that are not in it are left out.
        """
        known = {_pair(one): one for one in slides.project.registrations}
        for pair, (first, second, path) in self._files.items():
            if all(slides.index_of(mark) is not None for mark in pair):
                place = self._place(path)
                new = ProjectRegistration(first=first, second=second, **place)
                if pair not in known or known[pair].absolute != new.absolute:
                    known[pair] = new
        slides.set_fields(registrations=tuple(known.values()))

    def _kept(self, registration: Any, path: Path) -> None:
        marks = registration.first["fingerprint"], registration.second["fingerprint"]
        self._files[frozenset(marks)] = (*marks, path)
        if (project := self._project()) is not None:
            project.save()

    def _place(self, path: Path) -> dict[str, str]:
        project = self._project()
        if project is None or project.path is None:
            return {"path": "", "absolute": os.path.abspath(path)}
        return place_beside(path, project.path)

    def _find(self, one: str, other: str) -> Path | None:
        """Return the file of a registration of two slides; called in a thread."""
        project = self._project()
        if project is None or project.path is None:
            return None
        entries = {_pair(entry): entry for entry in project.project.registrations}
        entry = entries.get(frozenset((one, other)))
        return None if entry is None else find_existing(entry, project.path)

    def _look_again(self) -> None:
        """Look for registrations in a project that was just opened."""
        project = self._project()
        if project is not None and project.path != self._asked:
            self._asked = project.path
            self._registrations.look_again()


def _pair(entry: ProjectRegistration) -> Pair:
    return frozenset((entry.first, entry.second))
