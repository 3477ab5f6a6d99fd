"""Training and validation images, with every field of view on one side only."""

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
    """Find labelled images and make sure that each has a split.

    Parameters
    ----------
    data : Path
        See :func:`read_cells`.
    config : LabelsConfig
        Layout, classes, and held-out fraction.
    seed : int, optional
        Random seed of the validation split, where the data have none.

    Returns
    -------
    CellSet
        With the splits ``train``, ``val`` and those of tests.

    Raises
    ------
    ConfigError
        If a group is in two splits, or nothing is left to train on.
    """
    cells = [replace(c, split=c.split or TRAIN) for c in read_cells(data, config)]
    cells = hold_out_groups(cells, config.on_leak)
    if config.validation and not any(cell.split == VALIDATION for cell in cells):
        cells = _with_validation(cells, config.validation, seed)
    if not any(cell.split == TRAIN for cell in cells):
        raise ConfigError("holds no training images", data)
    return make_set(cells, config.classes)


def hold_out_groups(cells: Sequence[Cell], on_leak: str) -> list[Cell]:
    """Make sure that no group is in two splits.

    Parameters
    ----------
    cells : sequence of Cell
        Labelled images, each with a split.
    on_leak : str
        ``error``; or ``drop``, which drops images of such groups from the training split.

    Returns
    -------
    list of Cell
        The images that stay.

    Raises
    ------
    ConfigError
        If a group is in two splits and that is an error, or neither is the training split.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        splits[cell.group].add(cell.split)
    shared = {group for group, names in splits.items() if len(names) > 1}
    # Training gives way: test sets stay comparable with published ones.
    if on_leak == "drop":
        cells = [c for c in cells if c.split != TRAIN or c.group not in shared]
        # A field in both validation and test remains a leak without training images, too.
        shared = {group for group in shared if len(splits[group] - {TRAIN}) > 1}
    if shared:
        first = min(shared)
        others = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        raise ConfigError(
            f"images of the field '{first}' are in {' and '.join(sorted(splits[first]))}"
            f"{others}: they are near-duplicates (data leakage)",
            hint="Split by whole fields, or drop them from training with --on-leak drop",
        )
    return list(cells)


def grouped_part(
    cells: Sequence[Cell], part: float, key: Sequence[int]
) -> NDArray[np.bool_]:
    """Choose about a fraction of the images of each class, in whole groups.

    Groups come in random order, those of the rarest class first. A group is taken while its
    classes have too few images. Each class keeps at least one group on the other side.

    Parameters
    ----------
    cells : sequence of Cell
        Labelled images.
    part : float
        Fraction of each class, 0 to 1.
    key : sequence of int
        Key of the random order.

    Returns
    -------
    ndarray of bool, shape (N,)
        True for chosen images.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, cell in enumerate(cells):
        rows[cell.group].append(row)
    totals = Counter(cell.label for cell in cells)
    groups = sorted(rows)
    order = np.random.default_rng(tuple(key)).permutation(len(groups))
    shuffled = [groups[i] for i in order]
    # Rare classes choose first: common ones have groups enough to even out the counts.
    shuffled.sort(key=lambda g: min(totals[cells[row].label] for row in rows[g]))
    chosen = np.zeros(len(cells), bool)
    taken: Counter[str] = Counter()
    for group in shuffled:
        has = Counter(cells[row].label for row in rows[group])
        # n / 2: a group is taken if the count comes nearer to the wanted number with it.
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
    for row, held_out in zip(own, chosen, strict=True):
        if held_out:
            cells[row] = replace(cells[row], split=VALIDATION)
    return cells
