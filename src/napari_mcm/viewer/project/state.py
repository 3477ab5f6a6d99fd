"""The state of one slide: taken from the viewer, and given back to it."""

from __future__ import annotations

import json
import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from psygnal import SignalInstance

from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.core.project import SavedFeatures, SavedView, SlideState
from napari_mcm.viewer.app.features import SLOTS

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.viewer.app.features import LoadedFeatures
    from napari_mcm.viewer.app.session import Session

__all__ = ["QuerySource", "SlideState", "restore_state", "take_state"]

_NEAR = 1e-6
"""Relative difference of two views that are the same."""


class QuerySource(Protocol):
    """What has queries and thresholds: the Similarity dock's part of a session."""

    @property
    def changed(self) -> SignalInstance:
        """Emitted when the query, its context or the threshold changed."""

    @property
    def has_query(self) -> bool:
        """Whether there are examples, on whatever slide."""

    def take(self, slide: str, before: SlideState) -> dict[str, Any]:
        """Return query, threshold, context and visible map of the current slide.

        Parameters
        ----------
        slide : str
            Fingerprint of the slide.
        before : SlideState
            The slide's earlier state.
        """

    def restore(self, state: SlideState) -> bool:
        """Run a saved query on the current slide; return whether it can be run.

        Parameters
        ----------
        state : SlideState
            The state, whose encoders and patch grids are there.
        """


def take_state(
    session: Session,
    slide: Layer,
    fingerprint: str,
    before: SlideState | None = None,
    queries: QuerySource | None = None,
) -> SlideState:
    """Return the state of the current slide.

    Parameters
    ----------
    session : Session
        Session of the viewer; `slide` is its current slide.
    slide : Layer
        Layer of the slide.
    fingerprint : str
        Fingerprint of the slide.
    before : SlideState, optional
        An earlier state, which stays where there is nothing newer.
    queries : QuerySource, optional
        What has the query; None to keep the earlier one and the features that it needs.
    """
    before = before or SlideState()
    newer: dict[str, Any] = {}
    if (view := take_view(session, slide)) is not None:
        same = before.view is not None and _is_same(view, before.view)
        newer["view"] = before.view if same else view
    if queries is not None:
        features = {
            slot: _unless_same(saved_features(loaded), before.features.get(slot))
            for slot in SLOTS
            if (loaded := session.features(slot)) is not None
        }
        newer["features"] = {**before.features, **features}
        newer |= queries.take(fingerprint, before)
    return before.model_copy(update=newer)


def restore_state(
    session: Session, state: SlideState, queries: QuerySource | None
) -> bool:
    """Run the query of a saved state on the current slide, if its features are there.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    state : SlideState
        State of the current slide.
    queries : QuerySource or None
        What runs queries.

    Returns
    -------
    bool
        Whether the query runs. It does not where the slide has other features: those of
        another encoder or with other patches.
    """
    if queries is None or state.query is None or not matching(session, state):
        return False
    return queries.restore(state)


def matching(session: Session, state: SlideState) -> set[str]:
    """Return the slots whose features have an encoder and a grid of a saved state.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    state : SlideState
        State of the current slide.
    """
    wanted = {(one.encoder, one.grid) for one in state.features.values() if one.encoder}
    found = set()
    for slot in SLOTS:
        if (loaded := session.features(slot)) is not None:
            now = saved_features(loaded)
            if (now.encoder, now.grid) in wanted:
                found.add(slot)
    return found


_saved: WeakKeyDictionary[LoadedFeatures, SavedFeatures] = WeakKeyDictionary()


def saved_features(loaded: LoadedFeatures) -> SavedFeatures:
    """Return features as a state names them: by file, encoder and patch grid.

    Parameters
    ----------
    loaded : LoadedFeatures
        Features in memory.
    """
    # The hash of a large grid takes milliseconds: once for each features.
    if loaded not in _saved:
        features = loaded.index.features
        _saved[loaded] = SavedFeatures(
            absolute=str(loaded.path.absolute()),
            label=loaded.label,
            encoder=_mark_of(features.encoder),
            grid=features.grid.fingerprint,
        )
    return _saved[loaded]


def _mark_of(encoder: dict[str, Any]) -> str:
    """Return an encoder's fingerprint; of other tools' files, a hash of what they state."""
    if mark := fingerprint_of(encoder):
        return mark
    if not encoder:
        return ""
    stated = json.dumps(encoder, sort_keys=True, default=str).encode()
    return f"stated-{blake2b(stated, digest_size=8).hexdigest()}"


def _unless_same(now: SavedFeatures, before: SavedFeatures | None) -> SavedFeatures:
    """Keep what was stored of the same file, with what this version does not know."""
    if before is None:
        return now
    same = all(
        getattr(now, name) == getattr(before, name)
        for name in ("absolute", "label", "encoder", "grid")
    )
    return before if same else now


def take_view(session: Session, slide: Layer) -> SavedView | None:
    """Return which part of a slide is on the screen; None if that cannot be stored.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    slide : Layer
        Layer of the slide.
    """
    if session.viewer.dims.ndisplay != 2 or getattr(session, "side_by_side", False):
        return None
    camera = session.viewer.scene.camera
    y, x = slide.world_to_data(tuple(camera.center)[-slide.ndim :])[-2:]
    zoom = float(camera.zoom) * float(slide.scale[-1])
    if not all(map(math.isfinite, (x, y, zoom))) or zoom <= 0:
        return None
    if max(abs(x), abs(y), zoom) > 1e9:
        return None
    return SavedView(centre=(float(x), float(y)), zoom=zoom)


def show_view(session: Session, slide: Layer, view: SavedView) -> None:
    """Move the camera to a saved view, unless it shows nothing of the slide.

    Parameters
    ----------
    session : Session
        Session of the viewer.
    slide : Layer
        Layer of the slide, which is the current one.
    view : SavedView
        The view.
    """
    (x, y), shape = view.centre, slide.data.shapes[0] if slide.multiscale else ()
    height, width = shape[:2] if shape else slide.data.shape[:2]
    if not (0 <= x <= width and 0 <= y <= height and 1e-6 < view.zoom < 1e4):
        return
    camera = session.viewer.scene.camera
    camera.center = slide.data_to_world((y, x))
    camera.zoom = view.zoom / float(slide.scale[-1])


def _is_same(one: SavedView, other: SavedView) -> bool:
    pairs = zip((*one.centre, one.zoom), (*other.centre, other.zoom), strict=True)
    return all(math.isclose(a, b, rel_tol=_NEAR, abs_tol=1e-3) for a, b in pairs)
