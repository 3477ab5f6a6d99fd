"""Paths in a project, made for the place where it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from napari_mcm.core.project.model import Located, Project, SlideState
from napari_mcm.core.project.paths import find_existing, place_beside

Entry = TypeVar("Entry", bound=Located)


def store_state(state: SlideState, project: Path | None) -> SlideState:
    """Return a slide's state with paths for a project.

    Parameters
    ----------
    state : SlideState
        State with absolute paths.
    project : Path or None
        The project file; None for a project without one.

    Returns
    -------
    SlideState
        State with paths relative to the project, too.
    """
    features = {slot: _stored(one, project) for slot, one in state.features.items()}
    return state.model_copy(update={"features": features})


def resolve_state(state: SlideState, project: Path | None) -> SlideState:
    """Return a slide's state with the absolute paths of files that exist.

    Parameters
    ----------
    state : SlideState
        State as the project stores it.
    project : Path or None
        The project file, which may have moved with its files; None without one.

    Returns
    -------
    SlideState
        The path of a file that was not found stays as it was.
    """
    if project is None:
        return state
    features = {slot: _resolved(one, project) for slot, one in state.features.items()}
    return state.model_copy(update={"features": features})


def rebase(project: Project, old: Path | None, new: Path) -> Project:
    """Return a project with all paths made for another project file.

    Parameters
    ----------
    project : Project
        The project.
    old : Path or None
        The file that its paths are relative to; None if they are absolute.
    new : Path
        The file that it is saved in from now on.

    Returns
    -------
    Project
    """

    def moved(entry: Entry) -> Entry:
        return _stored(entry if old is None else _resolved(entry, old), new)

    slides = tuple(
        moved(slide).model_copy(
            update={
                "state": store_state(resolve_state(slide.state, old), new),
                "tissue": None if slide.tissue is None else moved(slide.tissue),
            }
        )
        for slide in project.slides
    )
    runs = tuple(moved(run) for run in project.runs)
    registrations = tuple(moved(one) for one in project.registrations)
    update = {"slides": slides, "runs": runs, "registrations": registrations}
    return project.model_copy(update=update)


def _stored(entry: Entry, project: Path | None) -> Entry:
    if project is None or not entry.absolute:
        return entry
    return entry.model_copy(update=place_beside(entry.absolute, project))


def _resolved(entry: Entry, project: Path) -> Entry:
    found = find_existing(entry, project)
    return entry if found is None else entry.model_copy(update={"absolute": str(found)})
