"""Reconstructions of a masked autoencoder, their errors, and figures of them.

Predictions of a model with normalised targets hold each patch up to its mean and
contrast. To draw them, both are taken from the image itself; visible patches, which the
loss does not train, are pasted unchanged unless requested otherwise::

    x̂_i = ŷ_i · sqrt(σ_i² + 1e-6) + μ_i

Errors of hidden patches are reported beside those of a blur of the visible ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.encoders.compute import choose_device, choose_dtype
from napari_mcm.core.encoders.recipe import WEIGHTS_FILE
from napari_mcm.core.errors import McmError, RunError, TrainingError
from napari_mcm.core.heatmaps.panels import DPI, FONT
from napari_mcm.core.mae.augment import resized
from napari_mcm.core.mae.config import AugmentConfig, PretrainConfig, ReconstructConfig
from napari_mcm.core.mae.export import DECODER_FILE
from napari_mcm.core.mae.images import Tile, read_around
from napari_mcm.core.mae.model import MaskedAutoencoder, make_vit
from napari_mcm.core.mae.patches import patch_statistics, patchify, unpatchify
from napari_mcm.core.mae.pictures import PictureCache, find_pictures
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.run_verbs import resume_command
from napari_mcm.core.training.images import to_images
from napari_mcm.core.training.run import Run

Pixels = NDArray[np.uint8]

_HIDDEN_GREY = 128


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One image of which patches were hidden and reconstructed.

    Attributes
    ----------
    original, masked, filled : ndarray of uint8, shape (side, side, 3)
        The image, the image with hidden patches in grey, and the reconstruction.
    hidden : ndarray of bool, shape (n, n)
        Which patches were hidden.
    error_hidden, error_visible : float
        Mean squared error of hidden and of visible patches, on the scale of the loss.
    pixel_error_hidden, pixel_error_visible : float
        Root mean squared error in grey levels (0 to 255) of the model's own output, not of
        pasted pixels.
    pixel_error_blur : float
        The same for hidden patches, filled with a blur of the visible ones around them.
    """

    original: Pixels
    masked: Pixels
    filled: Pixels
    hidden: NDArray[np.bool_]
    error_hidden: float
    error_visible: float
    pixel_error_hidden: float
    pixel_error_visible: float
    pixel_error_blur: float


@dataclass(frozen=True)
class ReconstructResult:
    """Errors by mask ratio, averaged over images.

    Attributes
    ----------
    errors : dict of float to dict
        Mean errors by name, for each mask ratio.
    images, skipped : int
        Number of images measured, and of files that could not be read.
    figure : Path or None
        The figure written.
    """

    errors: dict[float, dict[str, float]]
    images: int
    skipped: int
    figure: Path | None


def reconstruct(
    model: MaskedAutoencoder,
    images: Sequence[Pixels],
    scaling: AugmentConfig,
    mask_ratio: float,
    seed: int = 0,
    paste: bool = True,
) -> list[Reconstruction]:
    """Hide a part of images and let the model reconstruct it.

    The same seed hides the same patches first, whatever the ratio: what is visible at a
    high ratio is visible at a lower one, too.

    Parameters
    ----------
    model : MaskedAutoencoder
        The model; set to evaluation mode.
    images : sequence of ndarray of uint8, shape (side, side, 3)
        Of the model's image size.
    scaling : AugmentConfig
        Normalisation of the pixels.
    mask_ratio : float
        Fraction of the patches to hide.
    seed : int, optional
        Random seed of the hidden patches.
    paste : bool, optional
        Whether to show visible patches unchanged instead of the model's output, which the
        loss does not train.

    Returns
    -------
    list of Reconstruction
    """
    model.eval()
    device = next(model.parameters()).device
    orders = [
        np.random.default_rng((seed, number)).permutation(model.patches)
        for number in range(len(images))
    ]
    batch = to_images(images, device, scaling.mean, scaling.std)
    order = torch.from_numpy(np.stack(orders)).to(device)
    with torch.inference_mode():
        predictions, mask = model(batch, order, mask_ratio)
        predictions = predictions.float()
        errors = model.errors(batch, predictions)  # (B, N)
        drawn = denormalise(model, batch, predictions)  # (B, N, p·p·3)
    return [
        _one(
            image,
            _to_pixels(unpatchify(drawn[i : i + 1], model.patch), scaling),
            mask[i].cpu().numpy() > 0,
            errors[i].cpu().numpy(),
            paste,
        )
        for i, image in enumerate(images)
    ]


def denormalise(
    model: MaskedAutoencoder, images: Tensor, predictions: Tensor
) -> Tensor:
    """Convert predictions to patches on the images' own scale.

    A model with normalised targets predicts each patch up to its mean and contrast;
    both come from the image itself: ``prediction · sqrt(variance + 1e-6) + mean``.

    Parameters
    ----------
    model : MaskedAutoencoder
        The model that made the predictions.
    images : Tensor, shape (B, 3, H, W)
        Normalised images.
    predictions : Tensor, shape (B, N, values)
        Its output.

    Returns
    -------
    Tensor, shape (B, N, values)
    """
    if not model.config.norm_targets:
        return predictions
    mean, std = patch_statistics(patchify(images, model.patch))
    return predictions * std + mean


def precision(model: MaskedAutoencoder, compute: ComputeConfig) -> torch.autocast:
    """Return a context that computes in the configured precision.

    Parameters
    ----------
    model : MaskedAutoencoder
        Its device is used.
    compute : ComputeConfig
        Device and precision.

    Returns
    -------
    torch.autocast
    """
    device = next(model.parameters()).device
    enabled = choose_dtype(compute, device) != torch.float32
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def load_autoencoder(
    run_dir: Path, compute: ComputeConfig | None = None
) -> tuple[MaskedAutoencoder, PretrainConfig]:
    """Load a run's encoder and decoder; those of its checkpoint if it is not finished.

    Parameters
    ----------
    run_dir : Path
        Directory of a pre-training.
    compute : ComputeConfig, optional
        Where to compute.

    Returns
    -------
    tuple of MaskedAutoencoder and PretrainConfig
        The model, in evaluation mode, and the options of the run.

    Raises
    ------
    RunError
        If the run has neither, or they are damaged.
    """
    run = Run.open(run_dir, "mae pretrain")
    config = run.options(PretrainConfig)
    # The meta device draws no random weights: drawing would advance torch's generator
    # while another thread seeds a training with it.
    with torch.device("meta"):
        vit = make_vit(config.model)
        model = MaskedAutoencoder(vit, config.model.model, config.masking)
    model.decoder.set_positions()
    try:
        model.load_state_dict(_weights(run), assign=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"its weights cannot be loaded ({reason})", run_dir) from error
    compute = compute or ComputeConfig()
    return model.to(choose_device(compute)).eval(), config


def _weights(run: Run) -> dict[str, Tensor]:
    decoder = run.path / DECODER_FILE
    encoder = run.path / "encoder" / WEIGHTS_FILE
    if decoder.is_file() and encoder.is_file():
        parts = {"encoder": load_file(encoder), "decoder": load_file(decoder)}
        return {
            f"{part}.{name}": tensor
            for part, state in parts.items()
            for name, tensor in state.items()
        }
    checkpoint = run.load_checkpoint()
    if checkpoint is None:
        raise RunError(
            "has no weights yet",
            run.path,
            f"Resume it with: {resume_command(run.path)}",
        )
    prefix = "model/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint[0].items()
        if name.startswith(prefix)
    }


def reconstruct_pictures(config: ReconstructConfig) -> Job[ReconstructResult]:
    """Measure and draw reconstructions at some mask ratios, as a job.

    Parameters
    ----------
    config : ReconstructConfig
        Run, pictures or slides, mask ratios and figure.

    Yields
    ------
    Event
        Progress in images; a note for each file that cannot be read.

    Returns
    -------
    ReconstructResult

    Raises
    ------
    RunError
        If the run has no weights, or they are damaged.
    TrainingError
        If none of the pictures can be read.
    """
    yield Progress("Loading the model", 0, None, "models")
    model, trained = load_autoencoder(config.run, config.compute)
    ratios = config.mask_ratio or (trained.masking.mask_ratio,)
    reading = _read_places if config.at else _read
    images, skipped = yield from reading(config, trained)
    found: dict[float, list[Reconstruction]] = {ratio: [] for ratio in ratios}
    done, total = 0, len(images) * len(ratios)
    for ratio in ratios:
        for number, image in enumerate(images):
            with precision(model, config.compute):
                found[ratio] += reconstruct(
                    model,
                    [image],
                    trained.augment,
                    ratio,
                    config.seed + number,
                    config.paste,
                )
            done += 1
            yield Progress("Reconstructing", done, total, "images")
    figure = _draw(found, config)
    errors = {ratio: _mean_errors(several) for ratio, several in found.items()}
    return ReconstructResult(errors, len(images), skipped, figure)


def _read(
    config: ReconstructConfig, trained: PretrainConfig
) -> Job[tuple[list[Pixels], int]]:
    tiles, side = config.tiles or trained.images.tiles, trained.model.image_size
    files, cache = find_pictures(config.inputs), PictureCache(256)
    # One tile of every picture comes before a second tile of any.
    refs = [
        Tile(file, (start + tiles // 2) % tiles, (column + tiles // 2) % tiles, tiles)
        for start in range(tiles)
        for column in range(tiles)
        for file in files
    ]
    images: list[Pixels] = []
    damaged: set[Path] = set()
    for ref in refs:
        if len(images) >= config.limit or ref.path in damaged:
            continue
        try:
            images.append(resized(ref.read(cache), side))
        except McmError as error:
            damaged.add(ref.path)
            yield Note(f"skipped: {error}", "warning")
        yield Progress("Reading pictures", len(images), None, "images")
    if not images:
        raise TrainingError("no readable picture", hint="Name pictures or folders")
    return images, len(damaged)


def _read_places(
    config: ReconstructConfig, trained: PretrainConfig
) -> Job[tuple[list[Pixels], int]]:
    """Read the patches around the same places of each slide."""
    images: list[Pixels] = []
    for path in config.inputs:
        with config.read.open(path) as slide:
            for place in config.at:
                around = read_around(slide, place, trained.grid)
                images.append(resized(around.pixels, trained.model.image_size))
                yield Progress("Reading places", len(images), None, "places")
    return images, 0


def _draw(
    found: dict[float, list[Reconstruction]], config: ReconstructConfig
) -> Path | None:
    if config.out is None:
        return None
    # matplotlib is slow to import: do it only if a figure is drawn.
    from napari_mcm.core.heatmaps.figures import save_figure

    shown = {ratio: several[: config.shown] for ratio, several in found.items()}
    return save_figure(draw_reconstructions(shown), config.out)


def _mean_errors(several: Sequence[Reconstruction]) -> dict[str, float]:
    names = (
        "error_hidden",
        "error_visible",
        "pixel_error_hidden",
        "pixel_error_visible",
        "pixel_error_blur",
    )
    return {
        name: float(np.mean([getattr(one, name) for one in several])) for name in names
    }


def _one(
    image: Pixels,
    drawn: Pixels,
    hidden: NDArray[np.bool_],
    errors: NDArray[np.float32],
    paste: bool,
) -> Reconstruction:
    side = round(len(hidden) ** 0.5)
    patch = image.shape[0] // side  # in pixels
    square = hidden.reshape(side, side)  # row-major, as in patchify
    pixels = np.kron(square, np.ones((patch, patch), bool))[..., None]  # (H, W, 1)
    covered = np.broadcast_to(pixels, image.shape)
    return Reconstruction(
        original=image,
        masked=np.where(pixels, np.uint8(_HIDDEN_GREY), image),
        filled=np.where(pixels | (not paste), drawn, image),
        hidden=square,
        error_hidden=float(errors[hidden].mean()),
        error_visible=float(errors[~hidden].mean()),
        pixel_error_hidden=_root_mean_square(drawn, image, covered),
        pixel_error_visible=_root_mean_square(drawn, image, ~covered),
        pixel_error_blur=_root_mean_square(blur_over(image, square), image, covered),
    )


def _root_mean_square(drawn: Pixels, image: Pixels, at: NDArray[np.bool_]) -> float:
    return float(np.sqrt(((drawn.astype(np.float32) - image)[at] ** 2).mean()))


def _to_pixels(image: Tensor, scaling: AugmentConfig) -> Pixels:
    values = image[0].permute(1, 2, 0).cpu().numpy()
    values = (values * np.asarray(scaling.std) + np.asarray(scaling.mean)) * 255
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


NEAR = 0.5
"""Width of the nearer Gaussian, in patches; the best of several on pathology images."""
_FAR_WEIGHT = 1e-4  # only counts where no visible pixel is near


def blur_over(image: Pixels, hidden: NDArray[np.bool_]) -> Pixels:
    """Fill hidden patches with a blur of the visible pixels around them.

    The mean of the visible pixels, weighted by a Gaussian half a patch wide; far from
    any of them, by one half an image wide. A model without learned structure does no
    better.

    Parameters
    ----------
    image : ndarray of uint8, shape (side, side, 3)
        The image.
    hidden : ndarray of bool, shape (n, n)
        Which patches are hidden.

    Returns
    -------
    ndarray of uint8, shape (side, side, 3)
    """
    patch = len(image) // len(hidden)
    seen = np.asarray(np.kron(~hidden, np.ones((patch, patch))), np.float32)
    weight = _spread(seen, patch, len(image))
    values = image.astype(np.float32)
    filled = [_spread(values[..., c] * seen, patch, len(image)) for c in range(3)]
    blurred = np.stack(filled, axis=-1) / weight[..., None]  # a mean of visible pixels
    return np.where(seen[..., None] > 0, image, np.rint(blurred)).astype(np.uint8)


def _spread(values: NDArray[np.float32], patch: int, side: int) -> NDArray[np.float32]:
    near = gaussian_filter(values, NEAR * patch)
    far = gaussian_filter(values, side / 2)
    return np.asarray(near + _FAR_WEIGHT * far, np.float32)


_INCHES = 1.5
_SMALL = {**FONT, "size": 6.0}


def draw_reconstructions(found: Mapping[float, Sequence[Reconstruction]]) -> Figure:
    """Draw originals, and for each mask ratio the masked and the reconstructed images.

    Parameters
    ----------
    found : mapping of float to sequence of Reconstruction
        Reconstructions by mask ratio, of the same images for each.

    Returns
    -------
    matplotlib.figure.Figure
        One row per image.
    """
    rows = len(next(iter(found.values())))
    columns = 1 + 2 * len(found)
    figure = Figure(
        figsize=(_INCHES * columns, _INCHES * rows + 0.5), dpi=DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for row in range(rows):
        pictures, titles = [], []
        for ratio, several in found.items():
            one = several[row]
            pictures += [one.masked, one.filled]
            titles += [
                f"{ratio:.0%} hidden",
                f"error {one.error_hidden:.2f} | visible {one.error_visible:.2f}",
            ]
        originals = [next(iter(found.values()))[row].original]
        for column, picture in enumerate(originals + pictures):
            axes[row, column].imshow(picture, interpolation="nearest")
            if column:
                axes[row, column].set_title(titles[column - 1], **_SMALL)
        axes[row, 0].set_title("original", **_SMALL)
    return figure
