"""Labelled images: which there are, what they show, and what belongs together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mae.augment import Pixels
from napari_mcm.core.mae.pictures import PictureCache

Box = tuple[int, int, int, int]
TRAIN, VALIDATION = "train", "val"


@dataclass(frozen=True)
class Cell:
    """One labelled image.

    Attributes
    ----------
    path : Path
        Its file.
    label : str
        Its class.
    split : str
        ``train``, ``val``, or a test's own name; "" where nothing is split.
    group : str
        What it shares with images that are nearly the same: a field of view.
    box : tuple of int or None
        Left, top, right, bottom of the part of the file that it is.
    """

    path: Path
    label: str
    split: str
    group: str
    box: Box | None = None

    def read(self, cache: PictureCache) -> Pixels:
        """Give its pixels (height, width, 3)."""
        pixels = cache.read(self.path)
        if self.box is None:
            return pixels
        left, top, right, bottom = self.box
        return pixels[top:bottom, left:right]


@dataclass(frozen=True, eq=False)
class CellSet:
    """Labelled images with their classes in a fixed order.

    Attributes
    ----------
    cells : sequence of Cell
    classes : tuple of str
        The same whichever of them a split lacks.
    """

    cells: Sequence[Cell]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def targets(self) -> NDArray[np.int64]:
        """Each image's class as a number (N,)."""
        number = {name: n for n, name in enumerate(self.classes)}
        return np.array([number[cell.label] for cell in self.cells], np.int64)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, sorted."""
        return tuple(sorted({cell.split for cell in self.cells}))

    @property
    def support(self) -> dict[str, int]:
        """Images of each class."""
        counts = Counter(cell.label for cell in self.cells)
        return {name: counts[name] for name in self.classes}

    @property
    def fingerprint(self) -> str:
        """Tells other images, labels or classes apart, 16 hex digits."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update("|".join(self.classes).encode())
        for cell in self.cells:
            digest.update(f"{cell.path.name}:{cell.label}:{cell.box};".encode())
        return digest.hexdigest()

    def only(self, *splits: str) -> CellSet:
        """Keep some splits; the classes stay."""
        kept = [cell for cell in self.cells if cell.split in splits]
        return CellSet(kept, self.classes)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> CellSet:
        """Keep some images, by their numbers; the classes stay."""
        return CellSet([self.cells[int(row)] for row in rows], self.classes)


def make_set(cells: Sequence[Cell], classes: Sequence[str] = ()) -> CellSet:
    """Put labelled images together.

    Parameters
    ----------
    cells : sequence of Cell
    classes : sequence of str
        In their order; all labels, sorted, if not given.

    Raises
    ------
    ConfigError
        If there are no images, fewer than two classes, or labels of no class.
    """
    if not cells:
        raise ConfigError("there are no labelled images")
    found = sorted({cell.label for cell in cells})
    strange = sorted(set(found) - set(classes)) if classes else []
    if strange:
        first = next(cell for cell in cells if cell.label == strange[0])
        raise ConfigError(
            f"has the label {first.label!r}, which is none of {', '.join(classes)}",
            first.path,
            "Give all classes, or leave its images out",
        )
    names = tuple(classes or found)
    if len(names) < 2:
        raise ConfigError(f"there is one class only ({names[0]})")
    return CellSet(list(cells), names)
