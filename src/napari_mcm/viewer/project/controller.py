"""The open project of one viewer: follows what happens, and saves it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mcm.core.project import (
    ENDING,
    Project,
    ProjectRun,
    ProjectSlide,
    SlideState,
    place_beside,
    rebase,
    resolve_state,
    store_state,
)
from napari_mcm.core.project.model import Located
from napari_mcm.core.runtime.files import Stamp
from napari_mcm.viewer.app import persistence
from napari_mcm.viewer.app.background import BackgroundWorker
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.metadata import SlideMetadata
from napari_mcm.viewer.layers.timers import single_shot
from napari_mcm.viewer.project import disk
from napari_mcm.viewer.project.disk import Opened, Relocated
from napari_mcm.viewer.project.labels import ProjectLabels
from napari_mcm.viewer.project.masks import ProjectMasks
from napari_mcm.viewer.project.memory import memory_of
from napari_mcm.viewer.project.registrations import ProjectRegistrations
from napari_mcm.viewer.project.results import results_of
from napari_mcm.viewer.project.runs import ProjectRuns
from napari_mcm.viewer.project.saver import ProjectSaver
from napari_mcm.viewer.project.slide_list import SlideList

if TYPE_CHECKING:
    from napari.layers import Layer

SAVE_MS = 1000
"""Delay from a change to the save, once for several changes, in milliseconds."""


class ProjectController:
    """The slides and results that belong together, in a file that is kept up to date.

    Every slide that is opened belongs to the project. Without a file, a project is in
    memory until the first row of its results table; then it gets a file in the user's
    settings folder, so that no result is lost.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    project : Project
        The project; replaced as a whole, never changed.
    path : Path or None
        Its file; None if it has none.
    missing : set of str
        Keys of slides whose file was not found; see :meth:`key_of`.
    note : str
        What happened last, in one line.
    changed : Signal
        Emitted when name, file or note changed.
    slides_changed : Signal
        Emitted when slides were added, removed, found or missed.
    folder_needed : Signal
        Emitted with the name of a slide that was not found, once per opened project.
    """

    changed = Signal()
    slides_changed = Signal()
    folder_needed = Signal(str)

    def __init__(self, session: Session) -> None:
        self._session = session
        self._memory, self._results = memory_of(session), results_of(session)
        self._slides = SlideList(Project.new())
        self.path: Path | None = None
        self.missing: set[str] = set()
        self.note = ""
        self._unnamed = False
        self._target: Path | None = None  # where it is saved in a moment
        self._has_asked = False
        self._saver = ProjectSaver(session.disk)
        self._saver.failed.connect(self._failed)
        self._worker = BackgroundWorker("project")
        self._timer = single_shot(SAVE_MS, self.save)
        self._memory.lookup = self._stored_state
        self._memory.found.connect(self._slide_found)
        self._memory.changed.connect(self._state_changed)
        self._results.changed.connect(self._results_changed)
        session.slide_chosen.connect(self._slide_chosen)
        self._masks = ProjectMasks(session)
        self._masks.changed.connect(self._mask_changed)
        self._labels = ProjectLabels(self, session, self._memory)
        self._registrations = ProjectRegistrations(self, session)
        self._runs = ProjectRuns(session, self._worker)
        self._runs.found.connect(self._enter_runs)
        session.recent.changed.connect(self.changed.emit)
        session.left.connect(self.flush)
        session.closing.connect(self.flush)
        for layer in session.layers.slides():
            if mark := self._memory.fingerprint_of(layer):
                self._slide_found(layer, mark)
        self._results_changed()

    @property
    def project(self) -> Project:
        """The project; replaced as a whole, never changed."""
        return self._slides.project

    @property
    def name(self) -> str:
        """Display name of the project."""
        if self.path is None or self._unnamed:
            return "Unsaved project"
        return self.path.name.removesuffix(ENDING)

    @staticmethod
    def key_of(slide: ProjectSlide) -> str:
        """Return what identifies a slide: its fingerprint, or its path until that is known."""
        return slide.fingerprint or slide.absolute

    def position_of(self, key: str) -> int | None:
        """Return the position of a slide by its key; None if it is not there."""
        return self._slides.index_of(key)

    def recent(self) -> tuple[Path, ...]:
        """Return the projects that were used last, without this one."""
        return tuple(one for one in self._session.recent.projects if one != self.path)

    def current_key(self) -> str:
        """Return the key of the slide on the screen; empty without one."""
        return self._memory.fingerprint_of(self._session.slide)

    def open(self, path: str | Path) -> None:
        """Open a project in the background, and the slide that was on the screen.

        Parameters
        ----------
        path : str or Path
            The project file.
        """
        path = Path(path).absolute()
        self.flush()
        self._session.disk.submit(
            "open project",
            partial(disk.read, path),
            partial(self._opened, path),
            self._session.report_error,
        )

    def save_as(self, path: str | Path) -> None:
        """Save the project in another file, and keep that one up to date from now on.

        Parameters
        ----------
        path : str or Path
            The file; the ending ``.mcm.json`` is added if it is missing.
        """
        path = self._target = disk.with_ending(Path(path).absolute())
        self._memory.take()
        self._session.disk.submit(
            "move project",
            partial(rebase, self.project, self.path, path),
            partial(self._rebased, path, self.project),
            self._session.report_error,
        )

    def take_in(self, other: Project, path: Path) -> None:
        """Add the slides and rows of a project without a name, and replace its file.

        Parameters
        ----------
        other : Project
            What the file holds.
        path : Path
            The file, which is removed once this project is saved.
        """
        known = self._slides.index_of
        self._slides.add_new(
            one for one in other.slides if known(one.fingerprint) is None
        )
        self._saver.leftovers.append(path)
        new = (row for row in self._results.rows if row not in other.results)
        self._results.replace((*other.results, *new))
        self._slides_changed()

    def add_slides(self, paths: Sequence[str | Path]) -> None:
        """Add slides to the project in the background, without opening them.

        Parameters
        ----------
        paths : sequence of str or Path
            Slide files, or folders of them.
        """
        self._say("Looking for slides…")
        self._worker.submit(
            f"add {time.monotonic()}",
            partial(disk.list_slides, [Path(path) for path in paths], self.path),
            self._added,
            self._failed,
        )

    def remove_slides(self, numbers: Iterable[int]) -> None:
        """Take slides out of the project; their files and layers stay.

        Parameters
        ----------
        numbers : iterable of int
            Their positions.
        """
        for number in sorted(set(numbers), reverse=True):
            self._slides.remove(number)
        self._slides_changed()

    def open_slide(self, number: int) -> None:
        """Show a slide of the project, and open it first if needed.

        Parameters
        ----------
        number : int
            Its position.
        """
        entry = self.project.slides[number]
        if self._choose(entry, entry.absolute):
            return
        self._say(f"Opening {entry.name}…")
        self._worker.submit(
            "open slide",
            partial(disk.open_slide, entry, self.path, self.project.folders),
            partial(self._slide_opened, entry),
            self._failed,
        )

    def search_folder(self, folder: str | Path) -> None:
        """Look for all missing slides in a folder and its subfolders.

        Parameters
        ----------
        folder : str or Path
            The folder.
        """
        self._say(f"Looking for slides in {folder}…")
        self._worker.submit(
            "search",
            partial(disk.search, self.project, self.path, Path(folder)),
            partial(self._relocated, Path(folder)),
            self._failed,
        )

    def mark_missing(self, key: str, is_missing: bool) -> None:
        """Note whether the file of a slide is there.

        Parameters
        ----------
        key : str
            Key of the slide.
        is_missing : bool
            Whether its file was not found.
        """
        if is_missing != (key in self.missing):
            (self.missing.add if is_missing else self.missing.discard)(key)
            self.slides_changed.emit()

    def save(self) -> None:
        """Write the project in the background, if it has a file."""
        self._timer.stop()
        if self.path is not None:
            self._saver.save(self.path, self._content())

    def flush(self) -> None:
        """Take and save now instead of after the delay; writing is in a thread."""
        if self._session.is_closing:
            return
        # When the application ends, Qt may have deleted the timers already.
        with suppress(RuntimeError):
            self._memory.flush()
            if self._target is not None:
                self._saver.save_at(self._target, self._content(), self.path)
            elif self._timer.isActive():
                self.save()

    def _touch(self) -> None:
        saves = self.path is not None and not self._session.is_closing
        if saves and not self._timer.isActive():
            self._timer.start()

    def _content(self) -> Project:
        """Put results and the current slide into the project, and return it."""
        self._slides.set_fields(results=self._results.rows)
        self._labels.store(self._slides)
        self._registrations.store(self._slides)
        current = "" if self._session.is_closing else self.current_key()
        if self._slides.index_of(current) is not None:
            self._slides.set_fields(current=current)
        return self.project

    def _opened(self, path: Path, found: tuple[Project, Stamp | None]) -> None:
        project, stamp = found
        self._saver.begin(path, stamp)
        self._slides = SlideList(project)
        self.path, self.missing = path, set()
        self._unnamed = path.parent == disk.unnamed_folder()
        self._target, self._has_asked = None, False
        self._results.replace(project.results)
        self._labels.opened(project)
        for slide in project.slides:
            # Slides that are open already get what the project has of them.
            if slide.fingerprint and self._memory.layer_of(slide.fingerprint):
                self._memory.read_again(slide.fingerprint)
        self._session.recent.reload()
        self._say("")
        self.slides_changed.emit()
        self._identify()
        at = project.index_of(project.current)
        if at is not None and disk.is_local(project.slides[at]):
            self.open_slide(at)

    def _rebased(self, path: Path, before: Project, project: Project) -> None:
        if path != self._target:
            # Another project was opened meanwhile.
            return
        if self.project is not before:
            # Something changed meanwhile.
            self.save_as(path)
            return
        # The user has agreed to replace a file of this name.
        self._saver.begin(path)
        if self._unnamed and self.path is not None and self.path != path:
            self._saver.leftovers.append(self.path)
        self._slides = SlideList(project)
        self.path, self._unnamed = path, path.parent == disk.unnamed_folder()
        self._target = None
        self._session.disk.submit(
            f"recent {path}",
            partial(persistence.remember_recent, persistence.PROJECTS, str(path)),
            lambda _: self._session.recent.reload(),
            self._session.report_error,
        )
        self.save()
        self.slides_changed.emit()

    def _added(self, entries: Sequence[ProjectSlide]) -> None:
        new = self._slides.add_new(entries)
        plural = "" if new == 1 else "s"
        self._say(f"{new:,} slide{plural} added" if new else "No new slides there")
        self._slides_changed()
        self._identify()

    def _slides_changed(self) -> None:
        self._touch()
        self.slides_changed.emit()

    def _identify(self) -> None:
        """Find out the fingerprints of added slides, a few at a time."""
        if not (batch := self._slides.unidentified()):
            return
        self._worker.submit(
            "identify",
            partial(disk.identify, batch, self.path),
            self._identified,
            self._failed,
        )

    def _identified(self, marks: dict[str, str]) -> None:
        if self._slides.identify(marks):
            self._slides_changed()
        self._identify()

    def _slide_opened(self, entry: ProjectSlide, opened: Opened | None) -> None:
        key = self.key_of(entry)
        at = self._slides.index_of(key)
        if opened is None:
            self.mark_missing(key, True)
            self._say(f"{entry.name} was not found: choose the folder that it is in")
            if not self._has_asked:
                self._has_asked = True
                self.folder_needed.emit(entry.name)
            return
        self._say("")
        self.mark_missing(key, False)
        if at is not None and Path(entry.absolute) != opened.path:
            self._slides.move(at, self._place(opened.path), opened.path.parent)
            self._slides_changed()
        if self._choose(entry, str(opened.path)):
            return
        # As in another list: what was asked of this slide comes back with it.
        if entry.fingerprint:
            self._memory.want(entry.fingerprint)
        self._session.layers.add_slide(opened.layers)
        persistence.note_opened(str(opened.path))

    def _choose(self, entry: ProjectSlide, path: str) -> bool:
        """Choose a slide that is open already, also if it was only just opened."""
        memory = self._memory
        layer = memory.layer_of(entry.fingerprint) or memory.layer_at(path)
        if layer is not None:
            self._session.choose_slide(layer)
        return layer is not None

    def _relocated(self, folder: Path, result: Relocated) -> None:
        for mark, path in result.found.items():
            if (at := self._slides.index_of(mark)) is not None:
                self._slides.move(at, self._place(path), path.parent)
                self.missing.discard(mark)
        if result.found:
            self._say(f"{len(result.found):,} of {result.missing:,} slides found")
            self._slides_changed()
        else:
            more = "" if result.complete else ", as far as it was searched"
            self._failed(
                f"None of {result.missing:,} missing slides is in {folder}{more}: choose "
                "another folder"
            )

    def _slide_found(self, layer: Layer, mark: str) -> None:
        """Enter a slide that was opened, or what is new of it."""
        metadata = SlideMetadata.of_layer(layer)
        assert metadata is not None
        self._worker.submit(
            f"enter {mark}",
            partial(
                disk.describe, Path(metadata.path), self.path, metadata.mpp_override
            ),
            partial(self._enter, mark),
            self._failed,
        )

    def _enter(self, mark: str, entry: ProjectSlide) -> None:
        entry = entry.model_copy(update={"fingerprint": mark})
        state = self._memory.state_of(mark)
        if self._slides.enter(entry, store_state(state, self.path)):
            self._slides_changed()
        self.mark_missing(mark, False)
        layer, at = self._memory.layer_of(mark), self._slides.index_of(mark)
        if layer is not None and at is not None:
            self._masks.restore(layer, self.project.slides[at], self.path)

    def _state_changed(self, mark: str, state: SlideState) -> None:
        if self._slides.set_state(mark, store_state(state, self.path)):
            self._touch()

    def _stored_state(self, mark: str) -> SlideState | None:
        """Return the state of a slide of the project; called in a thread."""
        slides, path = self._slides, self.path
        at = slides.index_of(mark)
        return (
            None if at is None else resolve_state(slides.project.slides[at].state, path)
        )

    def _results_changed(self) -> None:
        if self.path is None and self._results.rows and self._target is None:
            now = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H.%M.%S")
            self.save_as(disk.unnamed_folder() / f"{now}{ENDING}")
        self._touch()

    def _slide_chosen(self) -> None:
        self._touch()
        self.changed.emit()

    def _mask_changed(self, mark: str, path: Path | None) -> None:
        place = None if path is None else Located(**self._place(path))
        if self._slides.set_tissue(mark, place):
            self._touch()

    def _enter_runs(self, runs: Sequence[Path]) -> None:
        found = [ProjectRun(**self._place(run), kind="finetune") for run in runs]
        if self._slides.add_runs(found):
            self._touch()

    def _place(self, path: Path) -> dict[str, Any]:
        if self.path is None:
            return {"path": "", "absolute": os.path.abspath(path)}
        return place_beside(path, self.path)

    def _failed(self, problem: str) -> None:
        self._say("")
        self._session.report_error(problem)

    def _say(self, note: str) -> None:
        self.note = note
        self.changed.emit()


def project_of(session: Session) -> ProjectController:
    """Return the project of a session, and create it on first use."""
    return session.part(ProjectController)
