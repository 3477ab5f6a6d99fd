"""Carries the query, labels, regions and masks of the current slide over to the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_mcm.viewer.app.features import SLOTS
from napari_mcm.viewer.canvas.view import centre_on
from napari_mcm.viewer.layers.carried import (
    CARRIED,
    Region,
    add_regions,
    regions_of,
)
from napari_mcm.viewer.layers.metadata import kind_of, owner_of
from napari_mcm.viewer.project.memory import memory_of
from napari_mcm.viewer.registration.controller import sections_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.project import SavedQuery
    from napari_mcm.core.registration import SectionMap
    from napari_mcm.core.sections import CarriedLabels, LeftOut
    from napari_mcm.core.tissue import TissueMask
    from napari_mcm.viewer.app.session import Session

MOST_SHAPES = 1000
"""Regions that napari draws as shapes without a long pause."""

QUERY, LABELS, TISSUE, FILE = "query", "labels", "tissue", "file"


@dataclass(frozen=True, eq=False)
class Carriable:
    """Something on the current slide that can be carried over.

    Attributes
    ----------
    kind : str
        One of `QUERY`, `LABELS`, `TISSUE`, `FILE`, or empty for a layer.
    title : str
        Display name: ``Query: 2 similar``.
    layer : Layer or None
        Shapes or points of the user.
    """

    kind: str
    title: str
    layer: Layer | None = None


class Carrier:
    """Carries what lies on the current slide over to the one it is registered to.

    Parameters
    ----------
    session : Session
        Session of the viewer.

    Attributes
    ----------
    outcome : str
        How carrying ended, in one line.
    left_out : tuple of LeftOut
        What has no place on the other slide.
    source : Layer or None
        The slide that `left_out` lies on.
    changed : Signal
        Emitted when `outcome` changed.
    listable : Signal
        Emitted when there may be something else to carry.
    """

    changed = Signal()
    listable = Signal()

    def __init__(self, session: Session) -> None:
        self._session, self._sections = session, sections_of(session)
        self._memory = memory_of(session)
        self._memory.changed.connect(self._relist)
        self._memory.found.connect(self._relist)
        self.outcome = ""
        self.left_out: tuple[LeftOut, ...] = ()
        self.source: Layer | None = None

    def carriable(self) -> list[Carriable]:
        """Return what there is on the current slide."""
        session, slide = self._session, self._session.slide
        if slide is None:
            return []
        found = []
        if (query := self._memory.query_on(slide)) is not None:
            found.append(Carriable(QUERY, f"Query: {_count(query)}"))
        mark = self._memory.fingerprint_of(slide)
        if mark and (labels := len(session.labels.set.of_slide(mark))):
            plural = "" if labels == 1 else "s"
            found.append(Carriable(LABELS, f"{labels:,} label{plural} of patches"))
        if session.tissue.mask_of(slide) is not None:
            found.append(Carriable(TISSUE, "Tissue mask"))
        own = [
            layer
            for layer in session.viewer.layers
            if kind_of(layer) == CARRIED and owner_of(layer) is slide
        ]
        for layer in (*session.layers.annotations(), *own):
            if len(layer.data):
                found.append(Carriable("", f"Layer: {layer.name}", layer))
        return [*found, Carriable(FILE, "Regions from a GeoJSON file…")]

    def carry(self, what: Carriable, path: Path | None = None) -> None:
        """Carry something over in the background.

        Parameters
        ----------
        what : Carriable
            One of :meth:`carriable`.
        path : Path, optional
            The GeoJSON file, for `FILE`.
        """
        sections = self._sections
        source, target = sections.current, sections.other
        mapping = self._session.registrations.map(source, target)
        if source is None or target is None or mapping is None:
            return
        way = _Way(source, target, mapping)
        if what.kind == TISSUE:
            self._carry_tissue(way)
            return
        work: dict[str, Callable[[_Way, TissueMask], None]] = {
            QUERY: self._carry_query,
            LABELS: self._carry_labels,
            FILE: partial(self._carry_file, path),
        }
        go = work.get(what.kind) or partial(self._carry_layer, what.layer)

        def with_tissue(masks: Sequence[TissueMask]) -> None:
            go(way, masks[0])

        sections.with_tissue((target,), with_tissue)

    def go_to(self, left: LeftOut) -> None:
        """Move the view to something that was left out."""
        if self.source is not None and self.source in self._session.layers:
            self._session.choose_slide(self.source)
            centre_on(self._session.viewer, self.source, left.x, left.y)

    def _relist(self, *_: object) -> None:
        self.listable.emit()

    def _submit(
        self, way: _Way, work: Callable[[], Any], then: Callable[[Any], None]
    ) -> None:
        def arrived(result: Any) -> None:
            # Slides may have been closed, or registered anew, meanwhile.
            now = self._session.registrations.map(way.source, way.target)
            if now is way.mapping and way.target in self._session.layers:
                then(result)

        self._sections.worker.submit(
            f"carry {id(work)}", work, arrived, self._session.report_error
        )

    def _say(self, way: _Way, outcome: str, left_out: Sequence[LeftOut] = ()) -> None:
        self.outcome = f"{way.source.name} to {way.target.name}: {outcome}"
        self.left_out, self.source = tuple(left_out), way.source
        self.changed.emit()

    def _carry_query(self, way: _Way, tissue: TissueMask) -> None:
        query = self._memory.query_on(way.source)
        if query is None:
            return

        def show(carried: _CarriedQuery) -> None:
            made = carried.query
            if made is not None:
                # Asked of the other section itself: its own patches are the examples.
                self._session.choose_slide(way.target)
                self._memory.ask(made)
            self._say(way, carried.outcome, carried.left_out)

        self._submit(way, partial(_query_on, way.mapping, query, tissue), show)

    def _carry_labels(self, way: _Way, tissue: TissueMask) -> None:
        labels, grid = self._session.labels, self._grid_of(way.target)
        before = labels.set

        def work() -> CarriedLabels:
            from napari_mcm.core.sections import carry_labels

            return carry_labels(way.mapping, before, tissue, grid)

        def show(carried: CarriedLabels) -> None:
            from napari_mcm.core.registration.carry import describe_states

            if carried.labels:
                made = labels.set.with_names(before.names).with_labels(carried.labels)
                target = way.mapping.target
                labels.use(made.with_slide_name(target.fingerprint, target.name))
            outcome = describe_states(carried.states, "labels")
            self._say(way, outcome, carried.left_out)

        self._submit(way, work, show)

    def _grid_of(self, slide: Layer) -> PatchGrid | None:
        """Return the patches that labels of a slide mean; None without features."""
        loaded = self._session.features_of(slide)
        found = next((loaded[slot] for slot in SLOTS if slot in loaded), None)
        return None if found is None else found.index.features.grid

    def _carry_tissue(self, way: _Way) -> None:
        shown = self._session.tissue.mask_of(way.source)
        if shown is None:
            return

        def work() -> TissueMask:
            from napari_mcm.core.registration.carry import carry_mask

            return carry_mask(way.mapping, shown.mask)

        def show(mask: TissueMask) -> None:
            note = f"carried from {way.source.name}"
            self._session.tissue.take_over(way.target, mask, note)
            self._say(way, "tissue mask carried")

        self._submit(way, work, show)

    def _carry_layer(self, layer: Layer | None, way: _Way, tissue: TissueMask) -> None:
        if layer is not None and layer in self._session.layers:
            regions = regions_of(layer, way.source)
            work = partial(_carry_regions, way.mapping, regions, tissue)
            self._submit(way, work, partial(self._show_regions, way, layer.name))

    def _carry_file(self, path: Path | None, way: _Way, tissue: TissueMask) -> None:
        if path is not None:
            work = partial(_carry_geojson, way.mapping, path, tissue)
            self._submit(way, work, partial(self._show_regions, way, path.stem))

    def _show_regions(self, way: _Way, name: str, carried: _CarriedRegions) -> None:
        if len(carried.regions) > MOST_SHAPES:
            self._session.report_error(
                f"{len(carried.regions):,} regions are too many to draw, {MOST_SHAPES:,} "
                "at most: carry the file with napari-mcm register --carry"
            )
            return
        if carried.regions:
            title = f"{name} from {way.source.name}"
            add_regions(self._session.layers, way.target, title, carried.regions)
        self._say(way, carried.outcome, carried.left_out)


@dataclass(frozen=True, eq=False)
class _Way:
    """From which slide to which, and the map between them."""

    source: Layer
    target: Layer
    mapping: SectionMap


@dataclass(frozen=True, eq=False)
class _CarriedQuery:
    query: SavedQuery | None
    outcome: str
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, eq=False)
class _CarriedRegions:
    regions: list[Region]
    outcome: str
    left_out: tuple[LeftOut, ...]


def _count(query: SavedQuery) -> str:
    counts = {
        "similar": len(query.like),
        "dissimilar": len(query.unlike),
        "regions": len(query.regions),
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _query_on(
    mapping: SectionMap, query: SavedQuery, tissue: TissueMask
) -> _CarriedQuery:
    """Return a query with its examples at their places on the other slide."""
    import shapely

    from napari_mcm.core.registration.carry import (
        carry_points,
        carry_region,
        describe_states,
    )
    from napari_mcm.core.sections import LeftOut

    kept: dict[str, list[Any]] = {"like": [], "unlike": [], "regions": []}
    states, left_out = [], []
    for name, title in (("like", "similar"), ("unlike", "dissimilar")):
        points = np.asarray(getattr(query, name), float).reshape(-1, 2)
        found = carry_points(mapping, points, tissue)
        for old, new, state in zip(points, found.xy, found.states, strict=True):
            states.append(state)
            if state == "placed":
                kept[name].append((float(new[0]), float(new[1])))
            else:
                left_out.append(LeftOut(title, float(old[0]), float(old[1]), state))
    for ring in query.regions:
        outline = shapely.Polygon(ring)
        carried = carry_region(mapping, outline, tissue)
        states.append(carried.state)
        if carried.state == "placed":
            parts = shapely.get_parts(carried.geometry)
            parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
            kept["regions"] += [tuple(part.exterior.coords[:-1]) for part in parts]
        else:
            centre = outline.centroid
            left_out.append(LeftOut("region", centre.x, centre.y, carried.state))
    target = mapping.target
    made = query.model_copy(
        update={
            "slide": target.fingerprint,
            "name": target.name,
            "directions": (),
            **{name: tuple(places) for name, places in kept.items()},
        }
    )
    outcome = describe_states(states, "examples")
    if not kept["like"] and not kept["regions"]:
        outcome = f"{outcome}. Without a similar example there is no query"
        return _CarriedQuery(None, outcome, tuple(left_out))
    return _CarriedQuery(made, outcome, tuple(left_out))


def _carry_regions(
    mapping: SectionMap, regions: Sequence[Region], tissue: TissueMask
) -> _CarriedRegions:
    from napari_mcm.core.registration.carry import carry_region, describe_states
    from napari_mcm.core.sections import LeftOut

    placed, states, left_out = [], [], []
    for region in regions:
        found = carry_region(mapping, region.geometry, tissue)
        states.append(found.state)
        if found.state == "placed":
            placed.append(Region(found.geometry, region.properties))
        else:
            centre, name = region.geometry.centroid, region.name
            left_out.append(LeftOut(name, centre.x, centre.y, found.state))
    outcome = describe_states(states, "regions")
    return _CarriedRegions(placed, outcome, tuple(left_out))


def _carry_geojson(
    mapping: SectionMap, path: Path, tissue: TissueMask
) -> _CarriedRegions:
    from napari_mcm.core.sections.files import read_objects

    regions = [
        Region(geometry, {"name": name, "class": label})
        for geometry, name, label in read_objects(path)
    ]
    return _carry_regions(mapping, regions, tissue)


def carrier_of(session: Session) -> Carrier:
    """Return the carrier of a session, and create it on first use."""
    return session.part(Carrier)
