"""What each slide was left with, restored when it is opened again."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from psygnal import Signal

from napari_mcm.core.errors import McmError, SlideError
from napari_mcm.core.project import SavedQuery, SavedView, SlideState
from napari_mcm.core.runtime.files import write_text
from napari_mcm.viewer.app import persistence
from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.app.found import RememberedFile, found_features
from napari_mcm.viewer.app.session import Session
from napari_mcm.viewer.layers.metadata import SlideMetadata, slide_of
from napari_mcm.viewer.layers.timers import single_shot
from napari_mcm.viewer.project.state import (
    QuerySource,
    restore_state,
    show_view,
    take_state,
    take_view,
)

if TYPE_CHECKING:
    from napari.layers import Layer

SETTLE_MS = 300
"""Delay from a change to when it is taken, in milliseconds."""
SAVE_MS = 1000
"""Delay from when a change is taken to when it is written, in milliseconds."""

MOST_SLIDES = 200
"""Slides that are remembered; those used longest ago are forgotten."""
MOST_BYTES = 4 * 2**20

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _OpenSlide:
    """A slide whose fingerprint is known.

    Attributes
    ----------
    fingerprint : str
        Hash of its content.
    state : SlideState
        What was taken last; at first, what was stored.
    waits : bool
        Whether its query waits for features.
    wanted : bool
        Whether its query is restored even if there is one of another slide.
    """

    fingerprint: str
    state: SlideState
    waits: bool = False
    wanted: bool = False


class SlideMemory:
    """Remembers the state of each slide, and restores it.

    The view comes back at once. The query, its context and threshold come back when the
    slide has features of the same encoder on the same patches, unless the user has
    another query by then. Features whose file is still there are loaded.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    lookup : callable or None
        Called in a thread with a fingerprint; returns the state of a slide of the open
        project, or None.
    found : Signal
        Emitted with the layer and fingerprint of a slide that was opened.
    changed : Signal
        Emitted with the fingerprint and the state of a slide whose state changed.
    """

    found = Signal(object, str)
    changed = Signal(str, object)

    def __init__(self, session: Session) -> None:
        self._session = session
        self.lookup: Callable[[str], SlideState | None] | None = None
        self._queries: QuerySource | None = None
        self._open: WeakKeyDictionary[Layer, _OpenSlide] = WeakKeyDictionary()
        self._asked: WeakKeyDictionary[Layer, SavedView | None] = WeakKeyDictionary()
        self._nameless: WeakSet[Layer] = WeakSet()
        self._wanted: set[str] = set()
        self._unsaved: dict[str, SlideState] = {}
        self._take_timer = single_shot(SETTLE_MS, self.take)
        self._save_timer = single_shot(SAVE_MS, self._save)
        session.slide_changed.connect(self._look)
        session.slide_chosen.connect(self._chosen)
        session.features_changed.connect(self._features_changed)
        session.left.connect(self.flush)
        session.closing.connect(self.flush)
        camera = session.viewer.scene.camera.events
        camera.center.connect(self._later)
        camera.zoom.connect(self._later)
        self._features = found_features(session)
        self._features.remembered = self._remembered
        self._look()

    def use_queries(self, queries: QuerySource) -> None:
        """Remember the queries of a source, and restore them there."""
        self._queries = queries
        # At once: another slide may be chosen before the delay is over.
        queries.changed.connect(self.take)
        self._restore()

    def layer_of(self, fingerprint: str) -> Layer | None:
        """Return the layer of a slide; None if it is not open, or not known yet."""
        layers = self._session.layers
        for layer, one in self._open.items():
            if one.fingerprint == fingerprint and layer in layers:
                return layer
        return None

    def layer_at(self, path: str) -> Layer | None:
        """Return the layer of a slide by its absolute path; None if it is not open."""
        for layer in self._session.layers.slides():
            metadata = SlideMetadata.of_layer(layer)
            if metadata is not None and os.path.abspath(metadata.path) == path:
                return layer
        return None

    def fingerprint_of(self, layer: Layer | None) -> str:
        """Return the fingerprint of a slide; empty if it is not known yet."""
        one = None if layer is None else self._open.get(layer)
        return one.fingerprint if one is not None else ""

    def state_of(self, fingerprint: str) -> SlideState:
        """Return the state of an open slide; an empty one if it is not open."""
        layer = self.layer_of(fingerprint)
        return SlideState() if layer is None else self._open[layer].state

    def query_on(self, slide: Layer | None) -> SavedQuery | None:
        """Return the query whose examples are on a slide; None without one.

        Parameters
        ----------
        slide : Layer or None
            Layer of the slide.
        """
        one = None if slide is None else self._open.get(slide)
        if one is None:
            return None
        if slide is self._session.slide:
            self.take()
        query = one.state.query
        if query is None or query.slide != one.fingerprint:
            return None
        return query if query.like or query.unlike or query.regions else None

    def ask(self, query: SavedQuery) -> bool:
        """Run a query on the current slide; return whether that is possible.

        Parameters
        ----------
        query : SavedQuery
            The query.
        """
        queries, session = self._queries, self._session

        def drawn() -> None:
            if session.has_query and queries is not None:
                queries.changed.disconnect(drawn)
                # As after a click: its map is what was asked for last.
                session.map_asked.emit("similarity")

        if queries is None or not queries.restore(SlideState(query=query)):
            return False
        queries.changed.connect(drawn)
        if session.has_query:
            drawn()
        return True

    def read_again(self, fingerprint: str) -> None:
        """Give an open slide what is stored of it now, as in a project just opened."""
        if (layer := self.layer_of(fingerprint)) is not None:
            del self._open[layer]
            self._asked.pop(layer, None)
            self._unsaved.pop(fingerprint, None)
            self._wanted.add(fingerprint)
            self._look()

    def want(self, fingerprint: str) -> None:
        """Restore the query of a slide even if there is one of another slide.

        Parameters
        ----------
        fingerprint : str
            Fingerprint of a slide that the user asked for.
        """
        layer = self.layer_of(fingerprint)
        if layer is None:
            self._wanted.add(fingerprint)
            return
        one = self._open[layer]
        one.waits = one.wanted = one.state.query is not None
        self._restore()

    def take(self, *_: object) -> None:
        """Take the state of the current slide now."""
        self._take_timer.stop()
        slide = self._session.slide
        one = None if slide is None else self._open.get(slide)
        if slide is None or one is None or self._session.is_closing:
            return
        if one.waits and self._queries is not None and self._is_asked_otherwise(one):
            one.waits = False
        queries = None if one.waits else self._queries
        state = take_state(self._session, slide, one.fingerprint, one.state, queries)
        if state != one.state:
            one.state = self._unsaved[one.fingerprint] = state
            self._save_timer.start()
            self.changed.emit(one.fingerprint, state)

    def flush(self) -> None:
        """Take and write now instead of after the delay; writing is in a thread."""
        # When the application ends, Qt may have deleted the timers already.
        with suppress(RuntimeError):
            if self._take_timer.isActive():
                self.take()
            self._save()

    def _chosen(self) -> None:
        """Bring back the query of a slide that is chosen again, if there is none now."""
        slide = self._session.slide
        one = None if slide is None else self._open.get(slide)
        if one is not None and self._queries is not None:
            asked = self._queries.has_query
            one.waits = one.waits or (not asked and one.state.query is not None)
        self._later()

    def _look(self) -> None:
        """Find out which slides were opened; reading them takes a moment."""
        for layer in self._session.layers.slides():
            slide = slide_of(layer)
            if layer in self._open or layer in self._asked or slide is None:
                continue
            self._asked[layer] = take_view(self._session, layer)
            self._session.disk.submit(
                f"state of slide {id(layer)}",
                partial(self._identify, slide),
                partial(self._found, layer),
                partial(self._unidentified, layer),
            )
        self._go_on()

    def _identify(self, slide: Any) -> tuple[str, SlideState]:
        """Return a slide's fingerprint and stored state; called in the thread."""
        try:
            mark = str(slide.fingerprint)
        except SlideError:
            return "", SlideState()
        state = self.lookup(mark) if self.lookup is not None else None
        if state is None or state == SlideState():
            state = _read(mark)
        return mark, state

    def _found(self, layer: Layer, known: tuple[str, SlideState]) -> None:
        mark, state = known
        if layer not in self._session.layers:
            return
        if not mark:
            self._unidentified(layer)
            return
        state = self._unsaved.get(mark, state)
        one = _OpenSlide(mark, state, state.query is not None)
        one.wanted = mark in self._wanted
        self._wanted.discard(mark)
        self._open[layer] = one
        self._restore_view(layer, one)
        self.found.emit(layer, mark)
        self._features.fill()
        self._go_on()

    def _unidentified(self, layer: Layer, problem: str = "") -> None:
        """Remember nothing of a slide whose file cannot be read any more."""
        _log.debug("No state of %s: %s", layer, problem)
        self._nameless.add(layer)
        self._features.fill()

    def _restore_view(self, layer: Layer, one: _OpenSlide) -> None:
        """Move the camera back, unless the user or a search has moved it meanwhile."""
        session, view = self._session, one.state.view
        if layer is not session.slide or view is None or self._has_query_elsewhere(one):
            return
        if take_view(session, layer) == self._asked.get(layer):
            show_view(session, layer, view)

    def _has_query_elsewhere(self, one: _OpenSlide) -> bool:
        """Return whether a query leads to this slide, as from a search."""
        asked = self._queries is not None and self._queries.has_query
        return asked and not one.wanted

    def _is_asked_otherwise(self, one: _OpenSlide) -> bool:
        """Return whether the user asked something of this slide before its query came."""
        assert self._queries is not None
        taken = self._queries.take(one.fingerprint, SlideState())
        query = taken.get("query")
        return query is not None and query.slide == one.fingerprint

    def _features_changed(self, _slot: str) -> None:
        self._go_on()

    def _go_on(self) -> None:
        self._restore()
        self._later()

    def _restore(self) -> None:
        """Run the stored query of the current slide, once its features are there."""
        slide = self._session.slide
        one = None if slide is None else self._open.get(slide)
        if one is None or not one.waits or self._queries is None:
            return
        if self._session.is_closing:
            return
        if self._has_query_elsewhere(one):
            return
        if restore_state(self._session, one.state, self._queries):
            one.waits = one.wanted = False
            self._later()

    def _remembered(self, slide: Layer) -> dict[str, RememberedFile] | None:
        """Return the feature files that a slide was left with, by slot."""
        one = self._open.get(slide)
        if one is None:
            return {} if slide in self._nameless else None
        return {
            slot: RememberedFile(Path(stored.absolute), stored.label)
            for slot, stored in one.state.features.items()
            if slot in SLOTS and stored.absolute and Path(stored.absolute).exists()
        }

    def _later(self, *_: object) -> None:
        if not self._take_timer.isActive():
            self._take_timer.start()

    def _save(self) -> None:
        self._save_timer.stop()
        unsaved, self._unsaved = self._unsaved, {}
        for mark, state in unsaved.items():
            self._session.disk.submit(
                f"save state {mark}",
                partial(_write, mark, state),
                lambda _: None,
                _log.warning,
            )


def memory_of(session: Session) -> SlideMemory:
    """Return the memory of a session, and create it on first use."""
    return session.part(SlideMemory)


def _folder() -> Path:
    return persistence.settings_folder() / "slides"


def _read(mark: str) -> SlideState:
    """Return the remembered state of a slide; an empty one where there is none."""
    file = _folder() / f"{mark}.json"
    try:
        if file.stat().st_size > MOST_BYTES:
            return SlideState()
        return SlideState.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return SlideState()
    except (OSError, ValueError) as error:
        _log.warning("Ignoring %s, which cannot be read: %s", file, error)
        return SlideState()


def _write(mark: str, state: SlideState) -> None:
    file = _folder() / f"{mark}.json"
    try:
        write_text(file, state.model_dump_json(exclude_defaults=True) + "\n")
        _forget_oldest(file.parent)
    except (McmError, OSError) as error:
        # Nothing that the user asked for: a full or read-only disk is only logged.
        _log.warning("Cannot remember a slide: %s", error)


def _forget_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
    for file in files[: max(len(files) - MOST_SLIDES, 0)]:
        file.unlink(missing_ok=True)
