"""The pixels of a context window: read, turned, masked, and who sees which.

In most modes the student sees a part of the window's own patches. In mode ``foreign`` it
sees patches of another place instead, and in mode ``neighbours`` the teacher also encodes
the ring of patches around the window. All draws come from the window's key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import TileError
from napari_mcm.core.grid import PatchGrid
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.windows import WindowRef
from napari_mcm.core.slides import Slide

_Item = TypeVar("_Item", np.uint8, np.int64)

# Keeps the draws of the shuffle apart from those of the window, which have the same key.
_SHUFFLE = 7_919


@dataclass(frozen=True, eq=False)
class Ring:
    """Patches around a window, and the average over 3 × 3 patches around each of its own.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (R, p, p, 3)
        RGB pixels of the patches with tissue around the window.
    keys : tuple of bytes
        Hash of what each of them shows; empty where colours were changed at random.
    weights : ndarray of float32, shape (V, V + R)
        For each of the window's V patches, the weights of the patches that touch it and
        of itself, among those of the window and of the ring; rows sum to 1.
    damaged : int
        Number of patches of the ring that could not be decoded.
    """

    pixels: NDArray[np.uint8]
    keys: tuple[bytes, ...]
    weights: NDArray[np.float32]
    damaged: int = 0


@dataclass(frozen=True, eq=False)
class Window:
    """One window, ready for a training step: n = s·s places, in row-major order.

    Attributes
    ----------
    visible, masked : ndarray of bool, shape (n,)
        Places that the student sees, and places to predict. A place that is neither holds
        no tissue.
    visible_pixels, masked_pixels : ndarray of uint8, shape (k, p, p, 3)
        RGB pixels of those patches, in the same order; p is the patch side in pixels.
    damaged : int
        Number of patches left out because they could not be decoded, in the ring as well.
    visible_keys, masked_keys : tuple of bytes
        Hash of what each patch shows, in the order of the pixels: the same key, the same
        pixels. Empty where colours were changed at random.
    patches : ndarray of int64, shape (n,)
        Row in the slide's grid of the window's own patch in each place; -1 for none.
    ring : Ring or None
        What lies around the window, in context mode ``"neighbours"``.
    """

    visible: NDArray[np.bool_]
    masked: NDArray[np.bool_]
    visible_pixels: NDArray[np.uint8]
    masked_pixels: NDArray[np.uint8]
    damaged: int = 0
    visible_keys: tuple[bytes, ...] = ()
    masked_keys: tuple[bytes, ...] = ()
    patches: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    ring: Ring | None = None

    def for_teacher(self, visible: bool) -> tuple[NDArray[np.uint8], tuple[bytes, ...]]:
        """Return the patches that the teacher encodes.

        Parameters
        ----------
        visible : bool
            Whether the visible patches are to be predicted, or else the masked ones.

        Returns
        -------
        pixels : ndarray of uint8, shape (k, p, p, 3)
            Patches to predict, then those of the ring, each once.
        keys : tuple of bytes
            What they show; may be empty.
        """
        pixels = self.visible_pixels if visible else self.masked_pixels
        keys = self.visible_keys if visible else self.masked_keys
        if self.ring is None or not len(self.ring.pixels):
            return pixels, keys
        return np.concatenate([pixels, self.ring.pixels]), keys + self.ring.keys


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
    draw = _Draw.of(ref, config)
    if draw is None:
        return None
    seen, visible = draw.own, draw.own.places & ~draw.masked
    if config.context.context_mode == "foreign":
        seen = _read_foreign(ref, config, visible)
        visible = seen.places
        if not visible.any():
            return None
    return draw.window(ref, config, seen, visible, draw.masked)


def read_unmasked(ref: WindowRef, config: FinetuneConfig) -> Window | None:
    """Read all patches of a window, for masks that are drawn later.

    Parameters
    ----------
    ref : WindowRef
        The window.
    config : FinetuneConfig
        As for :func:`read_window`.

    Returns
    -------
    Window or None
        Its ``masked`` patches are all of the window, for the teacher; its ``visible``
        patches are all that the student may see, which are the same, or all of the foreign
        window. None where damage leaves fewer than two patches.
    """
    draw = _Draw.of(ref, config)
    if draw is None:
        return None
    seen = draw.own
    if config.context.context_mode == "foreign":
        seen = _read_foreign(ref, config, None)
    return draw.window(ref, config, seen, seen.places, draw.own.places)


def assign_foreign(
    visible: NDArray[np.bool_], tissue: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose which patches of a foreign window are seen at a window's visible places.

    The same place where both have tissue. The other visible places get the patches that
    are left, in order, so that as many patches are seen as without the exchange; a place
    stays empty only where the foreign window has too few.

    Parameters
    ----------
    visible : ndarray of bool, shape (n,)
        Visible places of the window.
    tissue : ndarray of bool, shape (n,)
        Places of the foreign window with tissue.

    Returns
    -------
    places : ndarray of int64, shape (k,)
        Places of the window, ascending, at most all visible ones.
    sources : ndarray of int64, shape (k,)
        Place in the foreign window of the patch that is seen in each.
    """
    bare = np.flatnonzero(visible & ~tissue)
    left = np.flatnonzero(tissue & ~visible)
    filled = bare[: len(left)]
    source = np.arange(len(visible))
    source[filled] = left[: len(filled)]
    places = np.sort(np.concatenate([np.flatnonzero(visible & tissue), filled]))
    return places, source[places]


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
        Fraction of the tissue patches to mask, of which at least one is masked and one is
        not; 0 masks none.
    rng : Generator
        Random generator.

    Returns
    -------
    ndarray of bool, shape (slots,)
        True for masked patches.
    """
    # At least one patch to predict, and one to predict it from.
    least = 1 if ratio else 0
    count = min(max(round(len(tissue) * ratio), least), len(tissue) - 1)
    masked = np.zeros(slots, bool)
    masked[rng.permutation(np.asarray(tissue))[:count]] = True
    return masked


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


@dataclass(frozen=True, eq=False)
class _Patches:
    """Patches by their slot of a window with n slots."""

    slots: int
    pixels: dict[int, NDArray[np.uint8]]
    keys: dict[int, bytes]
    rows: dict[int, int]
    damaged: int = 0

    @property
    def places(self) -> NDArray[np.bool_]:
        """Whether there is a patch, shape (n,)."""
        places = np.zeros(self.slots, bool)
        places[list(self.pixels)] = True
        return places

    def moved(self, to: dict[int, int]) -> _Patches:
        """Move patches to other slots."""
        pixels = {to[slot]: value for slot, value in self.pixels.items()}
        keys = {to[slot]: value for slot, value in self.keys.items()}
        rows = {to[slot]: value for slot, value in self.rows.items()}
        return _Patches(self.slots, pixels, keys, rows, self.damaged)

    def stack(self, which: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Stack the pixels of some slots, shape (k, p, p, 3)."""
        chosen = [self.pixels[int(slot)] for slot in np.flatnonzero(which)]
        shape = next(iter(self.pixels.values())).shape if self.pixels else (1, 1, 3)
        return np.stack(chosen) if chosen else np.empty((0, *shape), np.uint8)

    def keys_at(self, which: NDArray[np.bool_]) -> tuple[bytes, ...]:
        """List the keys of some slots."""
        return tuple(self.keys[int(slot)] for slot in np.flatnonzero(which))


@dataclass(frozen=True, eq=False)
class _Draw:
    """What a window's key draws: orientation, masked places, change of colours."""

    own: _Patches
    masked: NDArray[np.bool_]
    turn: _Turn
    table: NDArray[np.uint8]

    @classmethod
    def of(cls, ref: WindowRef, config: FinetuneConfig) -> _Draw | None:
        context = config.context
        rng = np.random.default_rng(ref.key)
        turn = _Turn.draw(rng) if config.optimiser.flips else _Turn()
        own = _read(ref, turn.apply(ref.index).ravel(), turn)
        if len(own.pixels) < 2:
            return None
        ratio = 0.0 if context.context_mode == "neighbours" else context.mask_ratio
        masked = choose_masked(sorted(own.pixels), own.slots, ratio, rng)
        # The control without layout: patches and masks move together to random places.
        if context.context_mode == "shuffled":
            # With a generator of its own, shuffling does not change which are masked.
            places = np.random.default_rng((*ref.key, _SHUFFLE)).permutation(own.slots)
            own = own.moved(dict(enumerate(places.tolist())))
            # Slot i moves to places[i], so the moved mask is read through the inverse.
            masked = masked[np.argsort(places)]
        # Student and teacher see the same recoloured pixels.
        return cls(own, masked, turn, _brightness_table(rng, config.optimiser.jitter))

    def window(
        self,
        ref: WindowRef,
        config: FinetuneConfig,
        seen: _Patches,
        visible: NDArray[np.bool_],
        masked: NDArray[np.bool_],
    ) -> Window:
        own, table = self.own, self.table
        damaged = own.damaged + (0 if seen is own else seen.damaged)
        ring = None
        if config.context.context_mode == "neighbours":
            ring = _read_ring(ref, own, self.turn, table)
            damaged += ring.damaged
        window = Window(
            visible=visible,
            masked=masked,
            visible_pixels=table[seen.stack(visible)],
            masked_pixels=table[own.stack(masked)],
            damaged=damaged,
            visible_keys=seen.keys_at(visible),
            masked_keys=own.keys_at(masked),
            patches=np.array([own.rows.get(s, -1) for s in range(own.slots)], np.int64),
            ring=ring,
        )
        # A key does not say how a patch was recoloured: nothing may be cached by it.
        return _without_keys(window) if config.optimiser.jitter else window


def _without_keys(window: Window) -> Window:
    ring = None if window.ring is None else replace(window.ring, keys=())
    return replace(window, visible_keys=(), masked_keys=(), ring=ring)


def _read(
    ref: WindowRef,
    index: NDArray[np.int64],
    turn: _Turn,
    slots: Iterable[int] | None = None,
) -> _Patches:
    """Read the patches in some slots of a turned window, by default in all."""
    found = _Patches(len(index), {}, {}, {})
    damaged = 0
    for slot in np.flatnonzero(index >= 0) if slots is None else slots:
        row = int(index[slot])
        try:
            patch = _read_patch(ref, row)
        except TileError:
            # A damaged tile leaves a hole in the window, like a place without tissue.
            damaged += 1
            continue
        # Layout and pixels turn alike, so that neighbouring patches still fit together.
        found.pixels[int(slot)] = turn.apply(patch)
        shown = ref.source.slide, ref.grid, row
        found.keys[int(slot)] = patch_key(*shown, turn.quarters, turn.mirror)
        found.rows[int(slot)] = row
    return replace(found, damaged=damaged)


def _read_foreign(
    ref: WindowRef, config: FinetuneConfig, visible: NDArray[np.bool_] | None
) -> _Patches:
    """Read what is seen of another place, turned as that place's own window is.

    Raises
    ------
    ValueError
        If the window was placed for another context mode.
    """
    other = ref.foreign
    if other is None:
        raise ValueError("the window was placed without a foreign one")
    rng = np.random.default_rng(other.key)
    turn = _Turn.draw(rng) if config.optimiser.flips else _Turn()
    index = turn.apply(other.index).ravel()
    if visible is None:
        return _read(other, index, turn)
    places, sources = assign_foreign(visible, index >= 0)
    found = _read(other, index, turn, sources.tolist())
    return found.moved(dict(zip(sources.tolist(), places.tolist(), strict=True)))


def _read_ring(
    ref: WindowRef, own: _Patches, turn: _Turn, table: NDArray[np.uint8]
) -> Ring:
    """Read the ring around a window, turned along with it, and find who touches whom."""
    side = len(ref.index) + 2
    index = turn.apply(_around(ref)).ravel()
    # Places of the wider square, as (row, column).
    at = np.stack(np.divmod(np.arange(side**2), side), axis=1)
    inner = at[((at > 0) & (at < side - 1)).all(axis=1)][own.places]
    outside = np.flatnonzero((index >= 0) & ((at == 0) | (at == side - 1)).any(axis=1))
    touches = _are_near(inner, at[outside]).any(axis=0)
    ring = _read(ref, index, turn, outside[touches].tolist())
    places = np.concatenate([inner, at[ring.places]])
    near = _are_near(inner, places).astype(np.float32)
    return Ring(
        table[ring.stack(ring.places)],
        ring.keys_at(ring.places),
        near / near.sum(axis=1, keepdims=True),
        ring.damaged,
    )


def _are_near(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which places are the same or touch, at a corner at least."""
    near: NDArray[np.bool_] = (np.abs(one[:, None] - other) <= 1).all(axis=2)
    return near


def _around(ref: WindowRef) -> NDArray[np.int64]:
    """Return the grid's rows in a window and the ring around it, shape (s + 2, s + 2)."""
    first = np.argwhere(ref.index >= 0)[0]
    lattice = ref.grid.lattice
    corner = lattice[ref.index[tuple(first)]] - first - 1
    index = np.full((len(ref.index) + 2,) * 2, -1, np.int64)
    inside = ((lattice >= corner) & (lattice < corner + len(index))).all(axis=1)
    if ref.bounds is not None:
        inside &= ((lattice >= ref.bounds[0]) & (lattice < ref.bounds[1])).all(axis=1)
    rows = np.flatnonzero(inside)
    index[tuple((lattice[rows] - corner).T)] = rows
    return index


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


def _brightness_table(rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    """Draw a change of brightness and contrast as a table over the 256 grey values."""
    gain, shift = 1 + strength * rng.uniform(-1, 1, 2)
    values = (np.arange(256) - 128) * gain + 128 * shift
    table: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return table
