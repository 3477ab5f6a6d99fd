"""Labels of patches, carried from one section to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.labelling import LabelSet, PatchLabel
from napari_mcm.core.registration import SectionMap
from napari_mcm.core.registration.carry import State, carry_patches
from napari_mcm.core.tissue import TissueMask


@dataclass(frozen=True)
class LeftOut:
    """Something that has no place on the other slide.

    Attributes
    ----------
    what : str
        Class or name of it.
    x, y : float
        Its centre on the slide that it comes from, in level-0 pixels.
    state : str
        Why, one of :data:`~napari_mcm.core.registration.carry.STATES`.
    """

    what: str
    x: float
    y: float
    state: State


@dataclass(frozen=True)
class CarriedLabels:
    """Labels on the other slide.

    Attributes
    ----------
    labels : tuple of PatchLabel
        Those that have a place there, with the author of the original.
    states : tuple of str
        One for each label that was given, in their order.
    left_out : tuple of LeftOut
        Those without a place.
    """

    labels: tuple[PatchLabel, ...]
    states: tuple[State, ...]
    left_out: tuple[LeftOut, ...]


def carry_labels(
    mapping: SectionMap,
    labels: LabelSet,
    tissue: TissueMask | None = None,
    grid: PatchGrid | None = None,
) -> CarriedLabels:
    """Carry the labels of one section over to the next.

    Parameters
    ----------
    mapping : SectionMap
        Map between the slides.
    labels : LabelSet
        Labels of any slides; those of the map's source are carried.
    tissue : TissueMask, optional
        Tissue of the map's target; without it, all of the slide counts as tissue.
    grid : PatchGrid, optional
        Patches of the map's target: a label takes the place of the patch in which its
        centre lies, and is off the tissue where there is none. By default it keeps the
        size of its square in microns, wherever that lies.

    Returns
    -------
    CarriedLabels
        Of several labels that arrive on one patch of the grid, all are given; in a set,
        the latest counts.
    """
    own = labels.of_slide(mapping.source.fingerprint).labels
    corners = np.asarray([(one.x, one.y) for one in own], float).reshape(-1, 2)
    sizes = np.asarray([(one.width, one.height) for one in own], float).reshape(-1, 2)
    found = carry_patches(mapping, corners, sizes, tissue)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    carried, states, left_out = [], [], []
    for old, corner, size, state in zip(
        own, found.xy, found.size, found.states, strict=True
    ):
        place: Sequence[float] = (*corner.tolist(), *size.tolist())
        if state == "placed" and grid is not None:
            place = _on_grid(grid, place)
            state = "placed" if place else "off tissue"
        states.append(state)
        if state != "placed":
            x, y = old.x + old.width / 2, old.y + old.height / 2
            left_out.append(LeftOut(old.label, x, y, state))
            continue
        x, y, width, height = (round(value) for value in place)
        carried.append(
            replace(
                old,
                slide=mapping.target.fingerprint,
                x=x,
                y=y,
                width=max(width, 1),
                height=max(height, 1),
                source="carried",
                made_at=made_at,
            )
        )
    return CarriedLabels(tuple(carried), tuple(states), tuple(left_out))


def _on_grid(grid: PatchGrid, place: Sequence[float]) -> Sequence[float]:
    """Return the square of the patch that holds the centre of a place; empty without one."""
    x, y, width, height = place
    row = grid.index_at(x + width / 2, y + height / 2)
    if row is None:
        return ()
    left, top = grid.xy[row].tolist()
    return left, top, *grid.patch_size_level0
