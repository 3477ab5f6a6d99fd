"""Training and validation images: never a field of view on both sides."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.cells.config import LabelsConfig
from napari_mcm.core.cells.datasets import (
    TRAIN,
    VALIDATION,
    Cell,
    CellSet,
    make_set,
    read_cells,
)
from napari_mcm.core.errors import ConfigError


def labelled_images(data: Path, config: LabelsConfig, seed: int = 0) -> CellSet:
    """Find labelled images and see that each has a split.

    Parameters
    ----------
    data : Path
        See :func:`read_cells`.
    config : LabelsConfig
        Layout, classes, and the part to validate on.
    seed : int
        Of the validation split, where the data have none.

    Returns
    -------
    CellSet
        With the splits ``train``, ``val`` and those of tests.

    Raises
    ------
    ConfigError
        If a group stands in two splits, or nothing is left to train on.
    """
    cells = [replace(c, split=c.split or TRAIN) for c in read_cells(data, config)]
    cells = hold_out_groups(cells, config.on_leak)
    if config.validation and not any(cell.split == VALIDATION for cell in cells):
        cells = _with_validation(cells, config.validation, seed)
    if not any(cell.split == TRAIN for cell in cells):
        raise ConfigError("holds no training images", data)
    return make_set(cells, config.classes)


def hold_out_groups(cells: Sequence[Cell], on_leak: str) -> list[Cell]:
    """See that no group stands in two splits.

    Parameters
    ----------
    cells : sequence of Cell
    on_leak : str
        ``error``; or ``drop``: the training split gives way to the others.

    Raises
    ------
    ConfigError
        Naming a group that does, if it is an error or does so among other splits.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        splits[cell.group].add(cell.split)
    shared = {group for group, names in splits.items() if len(names) > 1}
    if on_leak == "drop":
        cells = [c for c in cells if c.split != TRAIN or c.group not in shared]
        shared = {group for group in shared if len(splits[group] - {TRAIN}) > 1}
    if shared:
        first = min(shared)
        others = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        raise ConfigError(
            f"images of the field '{first}' stand in {' and '.join(sorted(splits[first]))}"
            f"{others}: they are nearly the same",
            hint="Split by whole fields, or drop them from training with --on-leak drop",
        )
    return list(cells)


def grouped_part(
    cells: Sequence[Cell], part: float, key: Sequence[int]
) -> NDArray[np.bool_]:
    """Choose about a part of the images, class by class, in whole groups.

    Groups come in random order, those of the rarest class first; a group is taken while
    its classes have too few. A class keeps one group at least on the other side.

    Parameters
    ----------
    cells : sequence of Cell
    part : float
        Of each class, 0 to 1.
    key : sequence of int
        Keys the random order.

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, cell in enumerate(cells):
        rows[cell.group].append(row)
    totals = Counter(cell.label for cell in cells)
    groups = sorted(rows)
    order = np.random.default_rng(tuple(key)).permutation(len(groups))
    shuffled = [groups[i] for i in order]
    shuffled.sort(key=lambda g: min(totals[cells[row].label] for row in rows[g]))
    chosen = np.zeros(len(cells), bool)
    taken: Counter[str] = Counter()
    for group in shuffled:
        has = Counter(cells[row].label for row in rows[group])
        wanted = all(taken[k] + n / 2 <= part * totals[k] for k, n in has.items())
        leaves = all(taken[k] + n < totals[k] for k, n in has.items())
        if wanted and leaves:
            chosen[rows[group]] = True
            taken += has
    return chosen


def _with_validation(cells: list[Cell], part: float, seed: int) -> list[Cell]:
    own = [row for row, cell in enumerate(cells) if cell.split == TRAIN]
    chosen = grouped_part([cells[row] for row in own], part, (seed, 17))
    cells = list(cells)
    for row, it_is in zip(own, chosen, strict=True):
        if it_is:
            cells[row] = replace(cells[row], split=VALIDATION)
    return cells
