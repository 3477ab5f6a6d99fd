"""The slides of a project with a quick way to find one among ten thousand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_mcm.core.project import Project, ProjectRun, ProjectSlide, SlideState
from napari_mcm.core.project.model import Located

_BATCH = 16
_MOST_FOLDERS = 20


class SlideList:
    """A project, and the position of each of its slides.

    A slide is known by its fingerprint, or by its path until the fingerprint is known.

    Parameters
    ----------
    project : Project
        The project.

    Attributes
    ----------
    project : Project
        The project; each change replaces it.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._unreadable: set[str] = set()
        self._index()

    def _index(self) -> None:
        places: dict[str, int] = {}
        for at, slide in enumerate(self.project.slides):
            for key in (slide.fingerprint, slide.absolute):
                if key:
                    places.setdefault(key, at)
        # Replaced as a whole: a thread may read it.
        self._places = places

    def index_of(self, key: str) -> int | None:
        """Return the position of a slide; None if it is not in the project.

        Parameters
        ----------
        key : str
            Fingerprint or absolute path.
        """
        return self._places.get(key) if key else None

    def add_new(self, entries: Iterable[ProjectSlide]) -> int:
        """Add slides that are not there yet at the end, and return their number."""
        new = [one for one in entries if one.absolute not in self._places]
        self._replace((*self.project.slides, *new))
        return len(new)

    def remove(self, at: int) -> None:
        """Remove the slide at a position."""
        self.project = self.project.without_slide(at)
        self._index()

    def unidentified(self) -> list[ProjectSlide]:
        """Return a few slides whose fingerprint is to be found out."""
        found = (
            one
            for one in self.project.slides
            if not one.fingerprint and one.absolute not in self._unreadable
        )
        return [one for one, _ in zip(found, range(_BATCH), strict=False)]

    def identify(self, marks: Mapping[str, str]) -> bool:
        """Set fingerprints that were found out; return whether anything changed.

        Parameters
        ----------
        marks : mapping
            Absolute path to fingerprint; empty for a file that cannot be read. A slide
            that is in the project under another path is removed.
        """
        slides, known = [], {one.fingerprint for one in self.project.slides}
        for one in self.project.slides:
            mark = "" if one.fingerprint else marks.get(one.absolute, "")
            if mark and mark in known:
                continue
            known.add(mark)
            slides.append(one.model_copy(update={"fingerprint": mark}) if mark else one)
        self._unreadable |= {path for path, mark in marks.items() if not mark}
        return self._replace(tuple(slides))

    def enter(self, entry: ProjectSlide, state: SlideState) -> bool:
        """Add a slide that was opened, or update it; return whether anything changed.

        Parameters
        ----------
        entry : ProjectSlide
            Name, place and resolution of the slide as it was opened.
        state : SlideState
            Its state, if it is new in the project.
        """
        at = self._places.get(entry.fingerprint, self._places.get(entry.absolute))
        if at is None:
            new = entry.model_copy(update={"state": state})
            return self._replace((*self.project.slides, new))
        old = self.project.slides[at]
        names = ("path", "absolute", "fingerprint", "file_size", "mpp")
        update = {name: getattr(entry, name) for name in names}
        if not old.name:
            update["name"] = entry.name
        if old.state == SlideState():
            update["state"] = state
        return self._update(at, **update)

    def move(self, at: int, place: Mapping[str, Any], folder: Path) -> None:
        """Set the place of a slide that was found elsewhere, and remember its folder."""
        self._update(at, **place)
        folders = dict.fromkeys((str(folder), *self.project.folders))
        kept = tuple(folders)[:_MOST_FOLDERS]
        self.project = self.project.model_copy(update={"folders": kept})

    def set_state(self, mark: str, state: SlideState) -> bool:
        """Set the state of a slide; return whether it changed."""
        at = self.index_of(mark)
        return at is not None and self._update(at, state=state)

    def set_tissue(self, mark: str, tissue: Located | None) -> bool:
        """Set the tissue mask of a slide; return whether it changed."""
        at = self.index_of(mark)
        return at is not None and self._update(at, tissue=tissue)

    def set_labels(self, mark: str, labels: dict[str, Any]) -> bool:
        """Set the labels of a slide by class; return whether they changed."""
        at = self.index_of(mark)
        return at is not None and self._update(at, labels=labels)

    def set_fields(self, **fields: Any) -> None:
        """Set fields of the project that are not about its slides."""
        if any(getattr(self.project, name) != value for name, value in fields.items()):
            self.project = self.project.model_copy(update=fields)

    def add_runs(self, runs: Sequence[ProjectRun]) -> bool:
        """Add runs that are not there yet; return whether there are any."""
        known = {run.absolute for run in self.project.runs}
        new = [run for run in runs if run.absolute not in known]
        if new:
            runs = (*self.project.runs, *new)
            self.project = self.project.model_copy(update={"runs": runs})
        return bool(new)

    def _update(self, at: int, **update: Any) -> bool:
        old = self.project.slides[at]
        if all(getattr(old, name) == value for name, value in update.items()):
            return False
        self.project = self.project.with_slide(old.model_copy(update=update), at)
        if update.keys() & {"fingerprint", "absolute"}:
            self._index()
        return True

    def _replace(self, slides: tuple[ProjectSlide, ...]) -> bool:
        if slides == self.project.slides:
            return False
        self.project = self.project.model_copy(update={"slides": slides})
        self._index()
        return True
