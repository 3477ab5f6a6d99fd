"""Reconstruct one image with a masked autoencoder, in a thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.errors import TrainingError
from napari_mcm.viewer.app.jobs import block_triton
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
    """Hold an image to reconstruct.

    Attributes
    ----------
    name : str
        Name for people.
    pixels : ndarray of uint8, shape (height, width, 3)
        The image before it is resized for the model.
    corner : tuple of float or None
        Upper left corner (x, y) in level-0 pixels of a slide; None for a picture.
    extent : tuple of float
        Width and height in level-0 pixels of a slide.
    """

    name: str
    pixels: Pixels
    corner: tuple[float, float] | None = None
    extent: tuple[float, float] = (0.0, 0.0)


Read = Callable[["PretrainConfig"], Source]


@dataclass(frozen=True)
class ReconstructionOptions:
    """Hold the options of a reconstruction.

    Attributes
    ----------
    ratio : float or None
        Mask ratio; None for that of the pre-training.
    paste : bool
        Show visible patches as they are.
    seed : int
        Seed of the mask.
    """

    ratio: float | None = None
    paste: bool = True
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ReconstructedImage:
    """Hold an image and its reconstruction.

    Attributes
    ----------
    source : Source
        The image.
    made : Reconstruction
        Its reconstruction.
    ratio : float
        Mask ratio.
    """

    source: Source
    made: Reconstruction
    ratio: float

    def describe(self) -> str:
        """Return the errors of masked and of visible patches as text."""
        made = self.made
        return (
            f"{self.source.name}, {self.ratio:.0%} masked. Masked patches: error "
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
        """Return the pictures as layers: on top of each other on a slide, or in a row."""
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
    """Reconstruct images, and keep the last model; for one thread."""

    def __init__(self, compute: ComputeConfig | None = None) -> None:
        self._compute = compute or ComputeConfig()
        self._known: tuple[Any, ...] = ()
        self._model: Any = None
        self._config: PretrainConfig | None = None

    def reconstruct(
        self, folder: Path, read: Read, asked: ReconstructionOptions
    ) -> ReconstructedImage:
        """Reconstruct an image with a run, finished or not.

        Parameters
        ----------
        folder : Path
            Folder of the pre-training.
        read : callable
            Returns the image, for the run's configuration.
        asked : ReconstructionOptions
            Mask ratio, seed and display.

        Raises
        ------
        McmError
            If the run has no weights yet, or the image cannot be read.
        """
        block_triton()
        from napari_mcm.core.mae.augment import resized
        from napari_mcm.core.mae.reconstruction import precision
        from napari_mcm.core.mae.reconstruction import reconstruct as fill_in

        with explain_out_of_memory(PICTURES):
            model, config = self._load(folder)
        source = read(config)
        ratio = asked.ratio or config.masking.mask_ratio
        image = resized(source.pixels, config.model.image_size)
        with explain_out_of_memory(PICTURES), precision(model, self._compute):
            (made,) = fill_in(
                model, [image], config.augment, ratio, asked.seed, asked.paste
            )
        return ReconstructedImage(source, made, ratio)

    def is_known(self, folder: Path) -> bool:
        """Return whether the kept model has the run's newest weights."""
        return self._known == _weights_of(folder)

    def _load(self, folder: Path) -> tuple[Any, PretrainConfig]:
        from napari_mcm.core.mae.reconstruction import load_autoencoder

        known = _weights_of(folder)
        if self._config is None or known != self._known:
            self._model, self._config = load_autoencoder(folder, self._compute)
            self._known = known
        return self._model, self._config


def read_picture_file(path: Path, config: PretrainConfig) -> Source:
    """Read a picture as the pre-training did: its middle tile, where it is tiled."""
    from napari_mcm.core.mae.images import Tile
    from napari_mcm.core.mae.pictures import PictureCache

    tiles = config.images.tiles
    tile = Tile(path, tiles // 2, tiles // 2, tiles)
    return Source(path.name, tile.read(PictureCache(0)))


def read_place(slide: Slide, x: float, y: float) -> Read:
    """Return a reader of the patch around a place (level-0 pixels) of a slide."""

    def read(config: PretrainConfig) -> Source:
        from napari_mcm.core.mae.images import read_around

        around = read_around(slide, (x, y), config.grid)
        return Source(around.name, around.pixels, around.corner, around.extent)

    return read


def first_image(config: PretrainConfig) -> Source:
    """Read the first training picture, or a patch of the first slide."""
    from napari_mcm.core.mae.images import gather
    from napari_mcm.core.mae.pictures import PictureCache, find_pictures
    from napari_mcm.core.runtime.jobs import run

    if config.pictures:
        return read_picture_file(find_pictures(config.pictures)[0], config)
    if not config.images.slides:
        raise TrainingError("the run has neither pictures nor slides to reconstruct")
    with config.read.open(config.images.slides[0]) as slide:
        images = run(gather(config, [slide])).images
        image = images[len(images) // 2]
        return Source(slide.name, image.read(PictureCache(0)))


def has_weights(folder: Path) -> bool:
    """Return whether a run has saved weights."""
    return len(_weights_of(folder)) > 1


def _weights_of(folder: Path) -> tuple[Any, ...]:
    """Return a key that changes with a run's weights."""
    files = (folder / "decoder.safetensors", folder / "checkpoint" / "last.safetensors")
    found = [(file.name, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return (folder, *found)
