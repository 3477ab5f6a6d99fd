"""What a masked autoencoder makes of one image, worked out in a thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.errors import TrainingError
from napari_mcm.viewer.app.jobs import keep_triton_out
from napari_mcm.viewer.app.out_of_memory import PICTURES, explain_out_of_memory
from napari_mcm.viewer.layers.manager import Overlay

if TYPE_CHECKING:
    from napari_mcm.core.mae.config import PretrainConfig
    from napari_mcm.core.mae.pictures import Pixels
    from napari_mcm.core.mae.reconstruction import Reconstruction
    from napari_mcm.core.slides import Slide

ORIGINAL, MASKED, FILLED = "original", "masked", "reconstruction"
_GAP = 1.05


@dataclass(frozen=True, eq=False)
class Source:
    """An image to be looked at.

    Attributes
    ----------
    name : str
        What it is, for people.
    pixels : ndarray of uint8, shape (height, width, 3)
        As it is read; the model's size is made of it.
    corner : tuple of float or None
        Its upper left corner (x, y) in a slide's level-0 pixels; None for a picture.
    extent : tuple of float
        Its width and height there.
    """

    name: str
    pixels: Pixels
    corner: tuple[float, float] | None = None
    extent: tuple[float, float] = (0.0, 0.0)


Read = Callable[["PretrainConfig"], Source]


@dataclass(frozen=True)
class ReconstructionOptions:
    """How an image is looked at.

    Attributes
    ----------
    ratio : float or None
        Part of the patches to hide; None for that of the pre-training.
    paste : bool
        Show visible patches as they are.
    seed : int
        Of what is hidden.
    """

    ratio: float | None = None
    paste: bool = True
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ReconstructedImage:
    """An image, what was seen of it, and what the model fills in.

    Attributes
    ----------
    source : Source
    made : Reconstruction
    ratio : float
        Part of the patches that was hidden.
    """

    source: Source
    made: Reconstruction
    ratio: float

    def describe(self) -> str:
        """Say what it is of, and how wrong hidden and visible patches are, apart."""
        made = self.made
        return (
            f"{self.source.name}, {self.ratio:.0%} hidden. Hidden patches: error "
            f"{made.error_hidden:.3f} ({made.pixel_error_hidden:.1f} grey levels). "
            f"Visible patches: error {made.error_visible:.3f} "
            f"({made.pixel_error_visible:.1f} grey levels)."
        )

    @property
    def pictures(self) -> dict[str, Pixels]:
        """The three pictures by name."""
        made = self.made
        return {ORIGINAL: made.original, MASKED: made.masked, FILLED: made.filled}

    def overlays(self) -> list[Overlay]:
        """Give the pictures as layers: over each other on a slide, or side by side."""
        found = []
        for number, (name, pixels) in enumerate(self.pictures.items()):
            side = pixels.shape[0]
            # Left of the origin, where no slide is.
            corner, step = (side * _GAP * (number - 3), 0.0), (1.0, 1.0)
            if self.source.corner is not None:
                corner = self.source.corner
                step = self.source.extent[0] / side, self.source.extent[1] / side
            found.append(Overlay(f"MAE {name}", pixels, corner, step))
        return found


class ReconstructionModelCache:
    """Keeps the model that was asked last; for one thread."""

    def __init__(self, compute: ComputeConfig | None = None) -> None:
        self._compute = compute or ComputeConfig()
        self._known: tuple[Any, ...] = ()
        self._model: Any = None
        self._config: PretrainConfig | None = None

    def look(
        self, folder: Path, read: Read, asked: ReconstructionOptions
    ) -> ReconstructedImage:
        """Have a run, finished or not, fill in an image.

        Parameters
        ----------
        folder : Path
            Of the pre-training.
        read : callable
            Gives the image, by the run's configuration.
        asked : ReconstructionOptions
            How.

        Raises
        ------
        McmError
            If the run has no weights yet, or the image cannot be read.
        """
        keep_triton_out()
        from napari_mcm.core.mae.augment import resized
        from napari_mcm.core.mae.reconstruction import precision, reconstruct

        with explain_out_of_memory(PICTURES):
            model, config = self._load(folder)
        source = read(config)
        ratio = asked.ratio or config.masking.mask_ratio
        image = resized(source.pixels, config.model.image_size)
        with explain_out_of_memory(PICTURES), precision(model, self._compute):
            (made,) = reconstruct(
                model, [image], config.augment, ratio, asked.seed, asked.paste
            )
        return ReconstructedImage(source, made, ratio)

    def is_known(self, folder: Path) -> bool:
        """Tell whether the run has no other weights than when it was asked last."""
        return self._known == _weights_of(folder)

    def _load(self, folder: Path) -> tuple[Any, PretrainConfig]:
        from napari_mcm.core.mae.reconstruction import load_autoencoder

        known = _weights_of(folder)
        if self._config is None or known != self._known:
            self._model, self._config = load_autoencoder(folder, self._compute)
            self._known = known
        return self._model, self._config


def read_picture_file(path: Path, config: PretrainConfig) -> Source:
    """Read a picture as the pre-training did: the tile in its middle, where it is cut."""
    from napari_mcm.core.mae.images import Tile
    from napari_mcm.core.mae.pictures import PictureCache

    tiles = config.images.tiles
    tile = Tile(path, tiles // 2, tiles // 2, tiles)
    return Source(path.name, tile.read(PictureCache(0)))


def read_place(slide: Slide, x: float, y: float) -> Read:
    """Give a reader of the patch around a place of a slide (level-0 pixels)."""

    def read(config: PretrainConfig) -> Source:
        from napari_mcm.core.mae.images import read_around

        around = read_around(slide, (x, y), config.grid)
        return Source(around.name, around.pixels, around.corner, around.extent)

    return read


def first_image(config: PretrainConfig) -> Source:
    """Read the first picture that is learned from, or a patch of the first slide."""
    from napari_mcm.core.mae.images import gather
    from napari_mcm.core.mae.pictures import PictureCache, find_pictures
    from napari_mcm.core.runtime.jobs import run

    if config.pictures:
        return read_picture_file(find_pictures(config.pictures)[0], config)
    if not config.images.slides:
        raise TrainingError("it has neither pictures nor slides to look at")
    with config.read.open(config.images.slides[0]) as slide:
        images = run(gather(config, [slide])).images
        image = images[len(images) // 2]
        return Source(slide.name, image.read(PictureCache(0)))


def has_weights(folder: Path) -> bool:
    """Tell whether a run has saved anything that can be asked."""
    return len(_weights_of(folder)) > 1


def _weights_of(folder: Path) -> tuple[Any, ...]:
    """Tell a run's weights apart from others, and from those of before."""
    files = (folder / "decoder.safetensors", folder / "checkpoint" / "last.safetensors")
    found = [(file.name, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return (folder, *found)
