"""What a `Slide` is made of: levels, how one is read, how it was opened."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from napari_mcm.core.slides.tiles import TileSource


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide.

    Attributes
    ----------
    source : TileSource
        Where its pixels come from.
    downsample : tuple of float
        Level-0 pixels per pixel of this level, along x and y; never rounded.
    stored : bool
        False for a level that is made from a finer one on demand.
    """

    source: TileSource
    downsample: tuple[float, float]
    stored: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in this level's pixels."""
        return self.source.size


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How a resolution is read: from which level, and shrunk by how much."""

    level: int
    factor: tuple[float, float]

    @property
    def exact(self) -> bool:
        """Whether the level's pixels serve as they are."""
        return self.factor == (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a slide was opened.

    Attributes
    ----------
    mpp : float or None
        Microns per level-0 pixel that the user stated in the file's stead.
    backend : str or None
        The one backend that was allowed; None tries all.
    icc : bool
        Whether colours were turned into sRGB by the slide's own profile.
    """

    mpp: float | None = None
    backend: str | None = None
    icc: bool = False


def sampled_hash(file: Path) -> str:
    """Hash a file's length and samples of its content.

    It tells another file of the same name apart, and takes no time for a large one.
    """
    length = file.stat().st_size
    digest = blake2b(str(length).encode(), digest_size=8)
    with file.open("rb") as opened:
        for part in range(16):
            opened.seek(part * max(length - 65536, 0) // 15)
            digest.update(opened.read(65536))
    return digest.hexdigest()
