"""Windows that are kept out of training, in whole blocks of tissue.

A window beside one that was learned from shares its gland with it, so single windows
would flatter; and windows are laid anew in each epoch, so that a window kept out today
would be learned from tomorrow. What is kept out are therefore places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import TrainingError
from napari_mcm.core.grid import PatchGrid, make_grid
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.source import Source, WindowRef

BLOCK_WINDOWS = 2
_KEY = 104_729


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Places kept out of training.

    Attributes
    ----------
    boxes : tuple of ndarray of float64, shape (K, 4)
        For each slide, x0, y0, x1, y1 of its blocks in level-0 pixels.
    refs : tuple of WindowRef
        The windows that fill them.
    """

    boxes: tuple[NDArray[np.float64], ...]
    refs: tuple[WindowRef, ...]

    def remove_from(self, grid: PatchGrid, which: int) -> PatchGrid:
        """Give a slide's patches that share no pixel with what is kept out."""
        left, top, right, bottom = self.boxes[which].T
        start, stop = grid.xy[:, None], grid.xy[:, None] + grid.patch_size_level0
        meets = (start[..., 0] < right) & (stop[..., 0] > left)
        meets &= (start[..., 1] < bottom) & (stop[..., 1] > top)
        keep = ~meets.any(axis=1)
        return replace(grid, xy=grid.xy[keep], lattice=grid.lattice[keep])


@dataclass(frozen=True, eq=False)
class _Block:
    """Windows side by side on one slide."""

    which: int
    box: tuple[float, ...]
    refs: list[WindowRef]


def keep_out(sources: Sequence[Source], config: FinetuneConfig, mpp: float) -> HeldOut:
    """Choose blocks of tissue, by the seed, whose pixels are never learned from.

    Parameters
    ----------
    sources : sequence of Source
        Slides and their tissue.
    config : FinetuneConfig
        Its ``held_out.validation`` is the part of all windows, 0 for none.
    mpp : float
        Resolution of patches, in microns per pixel.

    Raises
    ------
    TrainingError
        If there is too little tissue to take any of it away.
    """
    part = config.held_out.validation
    chosen: list[_Block] = []
    if part:
        blocks = [b for i, s in enumerate(sources) for b in _blocks(s, i, config, mpp)]
        wanted = part * sum(len(block.refs) for block in blocks)
        rng = np.random.default_rng((config.optimiser.seed, _KEY))
        order = [blocks[i] for i in rng.permutation(len(blocks))]
        while order and sum(len(block.refs) for block in chosen) < wanted:
            chosen.append(order.pop())
        if not order:
            raise TrainingError(
                f"too little tissue to keep {part:.0%} of it out of training",
                hint="Give more slides, or a smaller --validation",
            )
    boxes = [[b.box for b in chosen if b.which == i] for i in range(len(sources))]
    return HeldOut(
        tuple(np.asarray(b, np.float64).reshape(-1, 4) for b in boxes),
        tuple(ref for block in chosen for ref in block.refs),
    )


def _blocks(
    source: Source, which: int, config: FinetuneConfig, mpp: float
) -> list[_Block]:
    """Cut a slide's windows into blocks, at a random corner."""
    grid_config = config.grid.model_copy(update={"mpp": mpp, "allow_upsampling": True})
    key = (config.optimiser.seed, _KEY, which)
    rng = np.random.default_rng(key)
    side = grid_config.patch_size * mpp
    x, y = (int(rng.integers(0, max(int(side / own), 1))) for own in source.slide.mpp)
    grid = make_grid(source.slide, source.tissue, grid_config, (x, y))
    across = config.context.s * BLOCK_WINDOWS
    blocks: dict[tuple[int, int], list[WindowRef]] = {}
    for number, (place, index) in enumerate(_windows_inside(grid, config, across)):
        ref = WindowRef(source, grid, index, (*key, number))
        blocks.setdefault(place, []).append(ref)
    return [
        _Block(which, _box(grid, place, across), refs) for place, refs in blocks.items()
    ]


def _windows_inside(
    grid: PatchGrid, config: FinetuneConfig, across: int
) -> Iterator[tuple[tuple[int, int], NDArray[np.int64]]]:
    """Give windows that lie in one block, and that block's row and column.

    Half a window apart: a slide has few blocks, and more windows judge better.
    """
    s, least = config.context.s, config.context.window_tissue
    for offset in product(sorted({0, s // 2}), repeat=2):
        for window in grid.windows(s, (offset[0], offset[1]), least).index:
            slots = np.argwhere(window >= 0)
            if len(slots) < 2:
                continue
            corner = grid.lattice[window[tuple(slots[0])]] - slots[0]
            first, last = corner // across, (corner + s - 1) // across
            if (first == last).all():
                yield (int(first[0]), int(first[1])), window


def _box(grid: PatchGrid, place: tuple[int, int], across: int) -> tuple[float, ...]:
    step = np.asarray(grid.patch_size_level0) * across
    start = np.asarray(grid.origin) + np.asarray(place[::-1]) * step
    return (*start.tolist(), *(start + step).tolist())
