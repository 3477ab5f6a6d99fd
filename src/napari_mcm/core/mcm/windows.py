"""Where the context windows of slides lie: placements, order, and held-out blocks.

Everything random is drawn from a generator keyed by (seed, epoch, ...), never from a
running state: a resumed run sees exactly the windows that it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import TrainingError
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.mcm.config import ContextConfig, FinetuneConfig
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import TissueMask

WARM_UP_EPOCH = 32_452_843
"""First epoch number of the head warm-up: no epoch of a run has the same placements."""

# Keeps the draw of foreign windows apart from those of placements and windows.
_FOREIGN = 15_485_867


@dataclass(frozen=True, eq=False)
class Source:
    """A slide of the training set and its tissue.

    Attributes
    ----------
    slide : Slide
        The slide, open.
    tissue : TissueMask
        Where its tissue is.
    """

    slide: Slide
    tissue: TissueMask


@dataclass(frozen=True, eq=False)
class WindowRef:
    """One window of an epoch, not read yet.

    Attributes
    ----------
    source : Source
        Slide and tissue.
    grid : PatchGrid
        Grid of the slide's patches in this placement.
    index : ndarray of int64, shape (s, s)
        Row in the grid of each patch of the window; -1 where there is no tissue.
    key : tuple of int
        Key of the window's random generator.
    foreign : WindowRef or None
        Window of another place, whose patches the student sees in context mode
        ``"foreign"``.
    bounds : ndarray of int64, shape (2, 2), or None
        First (row, column) of the lattice that neighbours are taken from, and the first
        beyond; None for no limit. Held-out windows stay within their block.
    """

    source: Source
    grid: PatchGrid
    index: NDArray[np.int64]
    key: tuple[int, ...]
    foreign: WindowRef | None = None
    bounds: NDArray[np.int64] | None = None


def plan_epoch(
    sources: Sequence[Source],
    config: FinetuneConfig,
    mpp: float,
    epoch: int,
    held_out: HeldOut | None = None,
) -> list[WindowRef]:
    """List the windows of an epoch in training order.

    Each placement places the patches from a random corner and the windows over them with a
    random offset: every tissue patch is seen about once per placement, with different borders
    each time. Aligned patches lie as in an extraction.

    Parameters
    ----------
    sources : sequence of Source
        Slides of the training set.
    config : FinetuneConfig
        Options of the run: grid, context window, placements and seed.
    mpp : float
        Resolution of the patches, in microns per pixel.
    epoch : int
        Number of the epoch, from 0.
    held_out : HeldOut, optional
        Blocks of tissue that no window shares a pixel with.

    Returns
    -------
    list of WindowRef
        Windows of all slides, shuffled.

    Raises
    ------
    TrainingError
        If foreign windows are wanted and there is only one window.
    """
    grid_config = config.grid.model_copy(update={"mpp": mpp, "allow_upsampling": True})
    refs: list[WindowRef] = []
    for which, source in enumerate(sources):
        for placement in range(config.optimiser.placements):
            key = (config.optimiser.seed, epoch, which, placement)
            grid, rng = _lay_out(source, grid_config, key, config.optimiser.aligned)
            if held_out is not None:
                grid = held_out.remove_from(grid, which)
            refs += _place(source, grid, config.context, key, rng)
    if config.context.context_mode == "foreign":
        refs = _pair_foreign(refs)
    # Windows of all slides are mixed: a batch shows several slides and stains.
    order = np.random.default_rng((config.optimiser.seed, epoch)).permutation(len(refs))
    return [refs[i] for i in order]


def _lay_out(
    source: Source, grid_config: GridConfig, key: tuple[int, ...], aligned: bool
) -> tuple[PatchGrid, np.random.Generator]:
    rng = np.random.default_rng(key)
    side = grid_config.patch_size * float(grid_config.mpp)
    # A whole number of level-0 pixels: reads at native resolution need no resampling.
    x, y = (int(rng.integers(0, max(int(side / own), 1))) for own in source.slide.mpp)
    origin = (0, 0) if aligned else (x, y)
    return make_grid(source.slide, source.tissue, grid_config, origin), rng


def _place(
    source: Source,
    grid: PatchGrid,
    context: ContextConfig,
    key: tuple[int, ...],
    rng: np.random.Generator,
) -> list[WindowRef]:
    # Window borders move, too: over placements each patch meets other neighbours.
    row, column = (int(n) for n in rng.integers(0, context.s, 2))
    windows = grid.windows(context.s, (row, column), context.window_tissue)
    # One patch to mask and one to see are the least.
    usable = windows.index[(windows.index >= 0).sum(axis=(1, 2)) >= 2]
    return [
        WindowRef(source, grid, index, (*key, number))
        for number, index in enumerate(usable)
    ]


def _pair_foreign(refs: Sequence[WindowRef]) -> list[WindowRef]:
    """Give each window another one of the same slide and placement.

    They form one random cycle per placement: every window is seen once, by another, so
    that over an epoch the student sees what it would see without the exchange. Windows of
    one placement share no pixel. The only window of a slide gets one of another slide.
    """
    paired: list[WindowRef] = []
    for key, group in groupby(refs, lambda ref: ref.key[:-1]):
        own = list(group)
        rng = np.random.default_rng((*key, _FOREIGN))
        if len(own) > 1:
            order = rng.permutation(len(own))
            given = dict(zip(order, np.roll(order, 1), strict=True))
            paired += [replace(ref, foreign=own[given[i]]) for i, ref in enumerate(own)]
            continue
        others = [ref for ref in refs if ref.source is not own[0].source]
        paired.append(replace(own[0], foreign=_draw_one(others, rng)))
    return paired


def _draw_one(refs: Sequence[WindowRef], rng: np.random.Generator) -> WindowRef:
    if not refs:
        raise TrainingError(
            "there is no window of another place to see",
            hint="--context-mode foreign needs two windows: give more slides, or a "
            "smaller --s",
        )
    return refs[int(rng.integers(len(refs)))]


BLOCK_WINDOWS = 2

# No epoch has this number: held-out windows do not repeat the draws of training.
_KEY = 104_729


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Blocks of tissue that are held out of training.

    Attributes
    ----------
    boxes : tuple of ndarray of float64, shape (K, 4)
        Per slide, x0, y0, x1, y1 of its blocks in level-0 pixels.
    refs : tuple of WindowRef
        The windows that fill them.
    """

    boxes: tuple[NDArray[np.float64], ...]
    refs: tuple[WindowRef, ...]

    def remove_from(self, grid: PatchGrid, which: int) -> PatchGrid:
        """Return the patches of a slide that share no pixel with the held-out blocks.

        Parameters
        ----------
        grid : PatchGrid
            Patches of the slide.
        which : int
            Index of the slide.

        Returns
        -------
        PatchGrid
            The remaining patches.
        """
        left, top, right, bottom = self.boxes[which].T
        # Training grids start at random corners, so their patches may straddle a block.
        start, stop = grid.xy[:, None], grid.xy[:, None] + grid.patch_size_level0
        meets = (start[..., 0] < right) & (stop[..., 0] > left)  # (N, blocks)
        meets &= (start[..., 1] < bottom) & (stop[..., 1] > top)
        keep = ~meets.any(axis=1)
        return replace(grid, xy=grid.xy[keep], lattice=grid.lattice[keep])


@dataclass(frozen=True, eq=False)
class _Block:
    """Adjacent windows on one slide."""

    which: int
    box: tuple[float, ...]
    refs: list[WindowRef]


def hold_out_blocks(
    sources: Sequence[Source], config: FinetuneConfig, mpp: float
) -> HeldOut:
    """Choose blocks of tissue, by the seed, to hold out of training.

    Parameters
    ----------
    sources : sequence of Source
        Slides and their tissue.
    config : FinetuneConfig
        Options of the run; ``held_out.validation`` is the fraction of all windows, 0 for none.
    mpp : float
        Resolution of the patches, in microns per pixel.

    Returns
    -------
    HeldOut
        The blocks and their windows.

    Raises
    ------
    TrainingError
        If there is too little tissue to hold any of it out.
    """
    part = config.held_out.validation
    chosen: list[_Block] = []
    blocks: list[_Block] = []
    if part:
        blocks = [b for i, s in enumerate(sources) for b in _blocks(s, i, config, mpp)]
        wanted = part * sum(len(block.refs) for block in blocks)
        rng = np.random.default_rng((config.optimiser.seed, _KEY))
        order = [blocks[i] for i in rng.permutation(len(blocks))]
        while order and sum(len(block.refs) for block in chosen) < wanted:
            chosen.append(order.pop())
        # Training needs at least one block, too.
        if not order:
            raise TrainingError(
                f"too little tissue to hold out {part:.0%} of it",
                hint="Give more slides, or a smaller --validation",
            )
    boxes = [[b.box for b in chosen if b.which == i] for i in range(len(sources))]
    refs = [ref for block in chosen for ref in block.refs]
    if config.context.context_mode == "foreign":
        others = [ref for block in blocks for ref in block.refs]
        refs = [_with_foreign(ref, refs, others) for ref in refs]
    return HeldOut(
        tuple(np.asarray(b, np.float64).reshape(-1, 4) for b in boxes), tuple(refs)
    )


def _with_foreign(
    ref: WindowRef, held_out: Sequence[WindowRef], others: Sequence[WindowRef]
) -> WindowRef:
    """Give a held-out window another place to see: a held-out one if there is one."""
    candidates = (
        [o for o in held_out if o.source is ref.source and _apart(o, ref)]
        or [o for o in held_out if o.source is not ref.source]
        # The only held-out place: pixels of training may be seen, but are no target.
        or [o for o in others if o.source is not ref.source or _apart(o, ref)]
    )
    rng = np.random.default_rng((*ref.key, _FOREIGN))
    return replace(ref, foreign=_draw_one(candidates, rng))


def _apart(one: WindowRef, other: WindowRef) -> bool:
    """Return whether two windows of one grid share no patch."""
    shared = np.intersect1d(one.index, other.index)
    return not (shared >= 0).any()


def _blocks(
    source: Source, which: int, config: FinetuneConfig, mpp: float
) -> list[_Block]:
    """Divide a slide's windows into blocks, from a random corner."""
    grid_config = config.grid.model_copy(update={"mpp": mpp, "allow_upsampling": True})
    key = (config.optimiser.seed, _KEY, which)
    rng = np.random.default_rng(key)
    side = grid_config.patch_size * mpp
    x, y = (int(rng.integers(0, max(int(side / own), 1))) for own in source.slide.mpp)
    grid = make_grid(source.slide, source.tissue, grid_config, (x, y))
    across = config.context.s * BLOCK_WINDOWS  # patches per side of a block
    blocks: dict[tuple[int, int], list[WindowRef]] = {}
    for number, (place, index) in enumerate(_windows_inside(grid, config, across)):
        bounds = np.asarray([place, np.add(place, 1)], np.int64) * across
        ref = WindowRef(source, grid, index, (*key, number), bounds=bounds)
        blocks.setdefault(place, []).append(ref)
    return [
        _Block(which, _box(grid, place, across), refs) for place, refs in blocks.items()
    ]


def _windows_inside(
    grid: PatchGrid, config: FinetuneConfig, across: int
) -> Iterator[tuple[tuple[int, int], NDArray[np.int64]]]:
    """Yield the windows that lie in one block, with the block's row and column.

    Windows lie half a window apart: a slide has few blocks, and more windows measure better.
    """
    s, least = config.context.s, config.context.window_tissue
    for offset in product(sorted({0, s // 2}), repeat=2):
        for window in grid.windows(s, (offset[0], offset[1]), least).index:
            slots = np.argwhere(window >= 0)
            if len(slots) < 2:
                continue
            # The window's corner in the lattice, from any of its patches with tissue.
            corner = grid.lattice[window[tuple(slots[0])]] - slots[0]
            first, last = corner // across, (corner + s - 1) // across
            # A window over two blocks would share pixels with training if one is chosen.
            if (first == last).all():
                yield (int(first[0]), int(first[1])), window


def _box(grid: PatchGrid, place: tuple[int, int], across: int) -> tuple[float, ...]:
    step = np.asarray(grid.patch_size_level0) * across
    # Blocks are (row, column), origins are (x, y).
    start = np.asarray(grid.origin) + np.asarray(place[::-1]) * step
    return (*start.tolist(), *(start + step).tolist())
