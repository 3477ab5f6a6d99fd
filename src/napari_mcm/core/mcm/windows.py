"""Context windows of slides: their placement, order, masking and orientation.

Everything random is drawn from a generator keyed by (seed, epoch, ...), never from a
running state: a resumed run sees exactly the windows that it would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import TileError, TrainingError
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.mcm.config import ContextConfig, FinetuneConfig
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue import TissueMask


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
    """

    source: Source
    grid: PatchGrid
    index: NDArray[np.int64]
    key: tuple[int, ...]


__all__ = [
    "Source",
    "Window",
    "WindowRef",
    "choose_masked",
    "patch_key",
    "plan_epoch",
    "read_window",
]


_Item = TypeVar("_Item", np.uint8, np.int64)

_Value = TypeVar("_Value")

# Keeps the draws of the shuffle apart from those of the window, which have the same key.
_SHUFFLE = 7_919


@dataclass(frozen=True, eq=False)
class Window:
    """One window, ready for a training step: n = s·s places, in row-major order.

    Attributes
    ----------
    visible, masked : ndarray of bool, shape (n,)
        Patches that the student sees, and patches to predict. A place that is neither holds
        no tissue.
    visible_pixels, masked_pixels : ndarray of uint8, shape (k, p, p, 3)
        RGB pixels of those patches, in the same order; p is the patch side in pixels.
    damaged : int
        Number of patches left out because they could not be decoded.
    visible_keys, masked_keys : tuple of bytes
        Hash of what each patch shows, in the order of the pixels: the same key, the same
        pixels. Empty where colours were changed at random.
    patches : ndarray of int64, shape (n,)
        Row in the slide's grid of the patch in each place; -1 for none.
    """

    visible: NDArray[np.bool_]
    masked: NDArray[np.bool_]
    visible_pixels: NDArray[np.uint8]
    masked_pixels: NDArray[np.uint8]
    damaged: int = 0
    visible_keys: tuple[bytes, ...] = ()
    masked_keys: tuple[bytes, ...] = ()
    patches: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


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


def read_window(ref: WindowRef, config: FinetuneConfig) -> Window | None:
    """Read a window's pixels, orient it, and choose the patches to mask.

    Parameters
    ----------
    ref : WindowRef
        The window.
    config : FinetuneConfig
        Options of the run: flips, jitter, mask ratio and context mode.

    Returns
    -------
    Window or None
        None where damage leaves fewer than two patches.
    """
    rng = np.random.default_rng(ref.key)
    turn = _Turn.draw(rng) if config.optimiser.flips else _Turn()
    index = turn.apply(ref.index).ravel()
    pixels: dict[int, NDArray[np.uint8]] = {}
    keys: dict[int, bytes] = {}
    damaged = 0
    for slot in np.flatnonzero(index >= 0):
        try:
            patch = _read_patch(ref, int(index[slot]))
        except TileError:
            # A damaged tile leaves a hole in the window, like a place without tissue.
            damaged += 1
            continue
        # Layout and pixels turn alike, so that neighbouring patches still fit together.
        pixels[int(slot)] = turn.apply(patch)
        shown = ref.source.slide, ref.grid, int(index[slot])
        keys[int(slot)] = patch_key(*shown, turn.quarters, turn.mirror)
    if len(pixels) < 2:
        return None
    masked = choose_masked(sorted(pixels), len(index), config.context.mask_ratio, rng)
    patches = {slot: int(index[slot]) for slot in pixels}
    # The control without layout: patches and masks move together to random places.
    if config.context.context_mode == "shuffled":
        places = np.random.default_rng((*ref.key, _SHUFFLE)).permutation(len(masked))
        pixels, keys = _moved(pixels, places), _moved(keys, places)
        patches = _moved(patches, places)
        # Slot i moves to places[i], so the moved mask is read through the inverse.
        masked = masked[np.argsort(places)]
    tissue = np.zeros(len(index), bool)
    tissue[list(pixels)] = True
    # Student and teacher see the same recoloured pixels.
    table = _brightness_table(rng, config.optimiser.jitter)
    if config.optimiser.jitter:
        # A key does not say how a patch was recoloured: nothing may be cached by it.
        keys = {}
    return Window(
        visible=tissue & ~masked,
        masked=masked,
        visible_pixels=table[_stack(pixels, tissue & ~masked)],
        masked_pixels=table[_stack(pixels, masked)],
        damaged=damaged,
        visible_keys=tuple(keys[s] for s in sorted(keys) if not masked[s]),
        masked_keys=tuple(keys[s] for s in sorted(keys) if masked[s]),
        patches=np.array([patches.get(s, -1) for s in range(len(index))], np.int64),
    )


def choose_masked(
    tissue: Sequence[int], slots: int, ratio: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose the patches to mask, uniformly and without replacement.

    Parameters
    ----------
    tissue : sequence of int
        Slots that hold tissue, at least two.
    slots : int
        Number of slots in the window, s·s.
    ratio : float
        Fraction of the tissue patches to mask; at least one is masked and one is not.
    rng : Generator
        Random generator.

    Returns
    -------
    ndarray of bool, shape (slots,)
        True for masked patches.
    """
    # At least one patch to predict, and one to predict it from.
    count = min(max(round(len(tissue) * ratio), 1), len(tissue) - 1)
    masked = np.zeros(slots, bool)
    masked[rng.permutation(np.asarray(tissue))[:count]] = True
    return masked


def _moved(by_slot: dict[int, _Value], places: NDArray[np.int64]) -> dict[int, _Value]:
    """Move what lies in a window's slots to other slots.

    Visible and masked patches move alike, with a generator of their own, so that
    shuffling does not change which patches are masked.
    """
    return {int(places[slot]): value for slot, value in by_slot.items()}


def patch_key(
    slide: Slide, grid: PatchGrid, patch: int, quarters: int = 0, mirror: bool = False
) -> bytes:
    """Return a hash of what a patch shows; the same key means the same pixels.

    Parameters
    ----------
    slide : Slide
        The slide.
    grid : PatchGrid
        Grid of the slide's patches.
    patch : int
        Row in the grid.
    quarters : int, optional
        Quarter turns, counter-clockwise.
    mirror : bool, optional
        Whether the patch is mirrored after the turns.

    Returns
    -------
    bytes
        16 bytes.
    """
    x, y = grid.xy[patch]
    description = (
        # !r keeps all digits: patches of nearly equal resolution are not the same.
        f"{slide.fingerprint} {slide.opened_with.icc} {grid.mpp!r} {grid.patch_size} "
        f"{x} {y} {quarters} {mirror}"
    )
    return hashlib.blake2b(description.encode(), digest_size=16).digest()


@dataclass(frozen=True)
class _Turn:
    """A symmetry of the square, applied to a window's layout and its pixels alike."""

    quarters: int = 0
    mirror: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Turn:
        return cls(int(rng.integers(4)), bool(rng.integers(2)))

    def apply(self, array: NDArray[_Item]) -> NDArray[_Item]:
        """Turn the first two axes, rows and columns."""
        turned = np.rot90(array, self.quarters)
        return turned[:, ::-1] if self.mirror else turned


def _read_patch(ref: WindowRef, patch: int) -> NDArray[np.uint8]:
    x, y = ref.grid.xy[patch]
    side = ref.grid.patch_size
    return ref.source.slide.read((x, y), (side, side), ref.grid.mpp)


def _stack(
    pixels: dict[int, NDArray[np.uint8]], which: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    return np.stack([pixels[int(slot)] for slot in np.flatnonzero(which)])


def _brightness_table(rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    """Draw a change of brightness and contrast as a table over the 256 grey values."""
    gain, shift = 1 + strength * rng.uniform(-1, 1, 2)
    values = (np.arange(256) - 128) * gain + 128 * shift
    table: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return table


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
    return HeldOut(
        tuple(np.asarray(b, np.float64).reshape(-1, 4) for b in boxes),
        tuple(ref for block in chosen for ref in block.refs),
    )


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
        ref = WindowRef(source, grid, index, (*key, number))
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
