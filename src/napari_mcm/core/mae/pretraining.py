"""Pre-training by masked autoencoding, as a job: start, resume, export."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_mcm.core.encoders import load_encoder
from napari_mcm.core.encoders.compute import settle_training
from napari_mcm.core.encoders.learned_from import training_record
from napari_mcm.core.encoders.seeding import seeded
from napari_mcm.core.errors import ConfigError, WeightsError
from napari_mcm.core.mae.augment import augment
from napari_mcm.core.mae.config import PretrainConfig
from napari_mcm.core.mae.export import export_pretraining, licence_of
from napari_mcm.core.mae.images import GATHERING, ImageSet, gather
from napari_mcm.core.mae.model import MaskedAutoencoder, architecture, make_vit
from napari_mcm.core.mae.patches import kept_count
from napari_mcm.core.mae.pictures import PictureCache
from napari_mcm.core.runtime.jobs import Job, Note
from napari_mcm.core.runtime.overall import Stages, weighed
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.training.images import (
    Draw,
    ImageLoop,
    ImagePlan,
    ImageTrainer,
    chunk_for,
    steps_of_epochs,
    to_images,
)
from napari_mcm.core.training.monitor import losses_of
from napari_mcm.core.training.run import Run
from napari_mcm.core.training.schedule import rate_factor
from napari_mcm.core.training.trainer import decay_groups

# Keeps the draws of the mask apart from those of the augmentation.
_MASKING = 1


@dataclass(frozen=True)
class PretrainResult:
    """Where a pre-training wrote its results, and what it measured.

    Attributes
    ----------
    run_dir : Path
        Configuration, metrics, encoder and decoder.
    encoder : Path
        Directory of the encoder: safetensors, recipe and model card.
    loss_first, loss_last : float
        Mean loss over the first and the last tenth of the steps.
    images_per_s : float
        Images trained on per second.
    steps, images : int
        Optimiser steps, and number of images.
    skipped : int
        Files that are no readable pictures, and damaged images.
    seconds : float
        Time spent in this process.
    """

    run_dir: Path
    encoder: Path
    loss_first: float
    loss_last: float
    images_per_s: float
    steps: int
    images: int
    skipped: int
    seconds: float


class MaskedImage(NamedTuple):
    """An image, and the order in which its patches are hidden.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (side, side, 3)
        The image as RGB.
    order : ndarray of int64, shape (n_patches,)
        Its patches in random order.
    """

    pixels: NDArray[np.uint8]
    order: NDArray[np.int64]


def pretrain(config: PretrainConfig) -> Job[PretrainResult]:
    """Pre-train a ViT on unlabelled images, as a job.

    Parameters
    ----------
    config : PretrainConfig
        Pictures or slides, run directory and options.

    Yields
    ------
    Event
        Progress in images, one `Metrics` per step, notes.

    Returns
    -------
    PretrainResult
        Where the encoder is, and what was measured.

    Raises
    ------
    ConfigError
        If images or the run directory are not given.
    RunError
        If the directory holds a run already.
    TrainingError
        If there is no image to train on, or the loss diverges.
    """
    if not config.pictures and not config.images.slides:
        raise ConfigError("no pictures or slides given to train on")
    if config.out is None:
        raise ConfigError("no run directory given", hint="Choose one with --out")
    run = Run.create(config.out, config.model_dump(mode="json"))
    return (yield from _pretrain(run, config))


def resume_pretrain(run_dir: Path) -> Job[PretrainResult]:
    """Resume a pre-training that was cancelled or killed, as a job.

    The final weights are those of an uninterrupted run, bit for bit on a CPU.

    Parameters
    ----------
    run_dir : Path
        Directory of the run.

    Returns
    -------
    PretrainResult
        Where the encoder is, and what was measured.

    Raises
    ------
    RunError
        If it is no run, or its images have changed.
    """
    run = Run.open(run_dir, "mae pretrain")
    config = run.options(PretrainConfig)
    return (yield from _pretrain(run, config.model_copy(update={"out": run.path})))


def _pretrain(run: Run, config: PretrainConfig) -> Job[PretrainResult]:
    done = run.summary()
    if done is not None:
        yield Note(f"{run.path} is finished already")
        return _result(run, done)
    began, stages = time.monotonic(), Stages(2.0, 1.0, 97.0)
    with ExitStack() as stack:
        slides = [
            stack.enter_context(config.read.open(path)) for path in config.images.slides
        ]
        gathering = gather(config, slides)
        images = yield from stages.next(weighed(gathering, GATHERING))
        model, start = yield from stages.next(
            run_in_thread("Building the model", build_model, config)
        )
        if start is not None:
            yield Note(f"{config.start} has the licence {licence_of(start)}")
        learned = training_record(slides, [] if start is None else [start])
        learner = MaeTrainer(model, config)
        loop = ImageLoop(run, learner, _plan(config, images))
        yield from stages.next(loop.learn())
    summary = _summary(loop, images, time.monotonic() - began)
    # Export, summary, then removal of the checkpoint: a kill in between loses nothing.
    export_pretraining(run.path, learner.model, config, summary, start, learned)
    run.finish(summary)
    run.remove_checkpoint()
    return _result(run, summary)


def build_model(
    config: PretrainConfig,
) -> tuple[MaskedAutoencoder, dict[str, Any] | None]:
    """Build the autoencoder with the weights that it starts from.

    Parameters
    ----------
    config : PretrainConfig
        All options.

    Returns
    -------
    model : MaskedAutoencoder
        Seeded, or with the weights of the encoder to start from.
    start : dict or None
        The encoder of these weights, as :meth:`Encoder.describe` returns it; None
        without them.

    Raises
    ------
    WeightsError
        If the encoder to start from is another ViT.
    """
    with seeded(config.recipe.seed):
        vit = make_vit(config.model)
        model = MaskedAutoencoder(vit, config.model.model, config.masking)
    if config.start is None:
        return model, None
    start = load_encoder(config.start, settle_training(config.compute))
    try:
        model.encoder.load_state_dict(start.module.state_dict())
    except RuntimeError as error:
        raise WeightsError(
            f"is not the {architecture(config.model)} that is asked for "
            f"({str(error).splitlines()[-1].strip()})",
            config.start,
            "Choose --model, --image-size and --vit-patch as it has them",
        ) from None
    return model, start.describe()


class MaeTrainer(ImageTrainer[MaskedImage]):
    """Train a masked autoencoder.

    Parameters
    ----------
    model : MaskedAutoencoder
        Trained in place.
    config : PretrainConfig
        All options.
    """

    def __init__(self, model: MaskedAutoencoder, config: PretrainConfig) -> None:
        recipe = config.recipe
        super().__init__(
            model,
            decay_groups(model, recipe.peak_lr, recipe.weight_decay),
            (recipe.beta1, recipe.beta2),
            recipe.clip_norm,
            recipe.seed,
            config.compute,
        )
        self.model, self.augmenting = model, config.augment
        given = config.chunk_images
        work = _work(model, config.masking.mask_ratio)
        self.chunk = chunk_for(self.device, work) if given == "auto" else given

    def losses(self, samples: Sequence[MaskedImage]) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of images over their hidden patches.

        Parameters
        ----------
        samples : sequence of MaskedImage
            B images.

        Returns
        -------
        loss : Tensor, shape ()
            Sum over the images of the mean over their hidden patches.
        sums : dict
            Empty.
        """
        pixels, orders = zip(*samples, strict=True)
        mean, std = self.augmenting.mean, self.augmenting.std
        images = to_images(pixels, self.device, mean, std)
        order = torch.from_numpy(np.stack(orders)).to(self.device)
        with self.autocast():
            predictions, mask = self.model(images, order)
        # Every image hides as many patches: their mean is the mean over images.
        return self.model.loss(images, predictions, mask) * len(samples), {}


def _work(model: MaskedAutoencoder, mask_ratio: float) -> float:
    """Estimate the multiply-adds of an image."""
    # Each weight is used once per token; the class token is one more.
    seen = kept_count(model.patches, mask_ratio) + 1
    encoder = sum(p.numel() for p in model.encoder.parameters())
    decoder = sum(p.numel() for p in model.decoder.parameters())
    return float(encoder * seen + decoder * (model.patches + 1))


def _plan(config: PretrainConfig, images: ImageSet) -> ImagePlan[MaskedImage]:
    recipe = config.recipe
    steps = recipe.steps or steps_of_epochs(
        len(images), recipe.batch_size, recipe.epochs
    )
    cache = PictureCache(config.images.cache_mb)

    def read(draw: Draw) -> MaskedImage:
        pixels = images.images[draw[1]].read(cache)
        key = (recipe.seed, *draw)
        side, rng = config.model.image_size, np.random.default_rng(key)
        shown = augment(pixels, side, config.augment, rng)
        # By a generator of its own: augmentation does not change what is masked.
        hide = np.random.default_rng((*key, _MASKING))
        return MaskedImage(shown, hide.permutation(config.model.grid**2))

    return ImagePlan(
        stage="Pre-training",
        images=len(images),
        identity=images.fingerprint,
        batch_size=recipe.batch_size,
        steps=steps,
        seed=recipe.seed,
        factor=lambda step: rate_factor(recipe.schedule, step, steps, recipe.warmup),
        read=read,
        workers=config.workers,
        checkpoint_seconds=config.checkpoint_seconds,
        advice="Try a lower --base-lr, or --clip-norm 1",
    )


def _summary(
    loop: ImageLoop[MaskedImage], images: ImageSet, seconds: float
) -> dict[str, Any]:
    return {
        **loop.summary(),
        "images": len(images),
        "pictures": images.pictures,
        "slide_patches": images.patches,
        "skipped": images.refused + len(loop.damaged),
        "seconds": seconds,
    }


def _result(run: Run, summary: dict[str, Any]) -> PretrainResult:
    first, last = losses_of(summary)
    return PretrainResult(
        run_dir=run.path,
        encoder=run.path / "encoder",
        loss_first=first,
        loss_last=last,
        images_per_s=summary["images_per_s"],
        steps=summary["steps"],
        images=summary["images"],
        skipped=summary["skipped"],
        seconds=summary["seconds"],
    )
