"""Training of a classifier of cells or patches, as a job: start, resume, validate.

An encoder and a linear head are trained by cross-entropy, weighted by class where classes
are rare; a probe trains the head alone, on frozen features.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_mcm.core.cells.config import ClassifyConfig
from napari_mcm.core.cells.datasets import TRAIN, VALIDATION, CellSet
from napari_mcm.core.cells.metrics import Scores
from napari_mcm.core.cells.model import CellClassifier, save_classifier
from napari_mcm.core.cells.network import (
    Network,
    Start,
    load_start,
    make_network,
    rate_groups,
    set_batch_norm,
)
from napari_mcm.core.cells.prediction import predict_cells, write_results
from napari_mcm.core.cells.splits import labelled_images
from napari_mcm.core.errors import ConfigError, McmError
from napari_mcm.core.mae.augment import augment, resized
from napari_mcm.core.mae.config import AugmentConfig
from napari_mcm.core.mae.pictures import PictureCache
from napari_mcm.core.runtime.jobs import Job, Meter, Note, Progress
from napari_mcm.core.runtime.overall import Stages
from napari_mcm.core.training.images import (
    Draw,
    ImageLoop,
    ImagePlan,
    ImageTrainer,
    chunk_for,
    to_images,
)
from napari_mcm.core.training.monitor import losses_of
from napari_mcm.core.training.run import Run
from napari_mcm.core.training.schedule import rate_factor

# Keeps the draws of balanced sampling apart from those of the augmentation.
_BALANCING = 3

# Enough images for mean and spread; encoding all would take as long as an epoch.
_SCALED_ON = 512


@dataclass(frozen=True)
class ClassifyResult:
    """Where a training wrote its classifier, and what it measured.

    Attributes
    ----------
    run_dir : Path
        Configuration, metrics, encoder and head.
    classes : tuple of str
        Classes in the order of the outputs.
    images : int
        Number of images trained on.
    loss_first, loss_last : float
        Mean loss over the first and the last tenth of the steps.
    scores : dict
        Scores on the validation images; empty where there are none.
    steps : int
        Optimiser steps.
    seconds : float
        Time spent in this process.
    """

    run_dir: Path
    classes: tuple[str, ...]
    images: int
    loss_first: float
    loss_last: float
    scores: dict[str, Any]
    steps: int
    seconds: float


def classify(config: ClassifyConfig) -> Job[ClassifyResult]:
    """Train a classifier on labelled images, as a job.

    Parameters
    ----------
    config : ClassifyConfig
        Data, what it starts from, run directory and options.

    Yields
    ------
    Event
        Progress in images, one `Metrics` per step, notes.

    Returns
    -------
    ClassifyResult
        Where the classifier is, and its scores.

    Raises
    ------
    ConfigError
        If data or the run directory are missing, or a group stands in two splits.
    RunError
        If the directory holds a run already.
    TrainingError
        If the loss diverges.
    """
    if config.data is None:
        raise ConfigError("no labelled images given")
    if config.out is None:
        raise ConfigError("no run directory given", hint="Choose one with --out")
    cells = labelled_images(config.data, config.labels, config.fit.seed)
    run = Run.create(config.out, config.model_dump(mode="json"))
    return (yield from classify_cells(run, config, cells))


def resume_classify(run_dir: Path) -> Job[ClassifyResult]:
    """Resume a training that was cancelled or killed, as a job.

    The final weights are those of an uninterrupted run, bit for bit on a CPU.

    Parameters
    ----------
    run_dir : Path
        Directory of the run.

    Returns
    -------
    ClassifyResult
        Where the classifier is, and its scores.

    Raises
    ------
    ConfigError
        If its configuration names no data.
    RunError
        If it is no run, or its images have changed.
    """
    run = Run.open(run_dir, "classify train")
    config = run.options(ClassifyConfig)
    if config.data is None:
        raise ConfigError("its data are not named", run_dir)
    cells = labelled_images(config.data, config.labels, config.fit.seed)
    return (yield from classify_cells(run, config, cells))


def classify_cells(
    run: Run, config: ClassifyConfig, cells: CellSet
) -> Job[ClassifyResult]:
    """Train a classifier on images that are split already, as a job.

    Parameters
    ----------
    run : Run
        An existing run; it resumes from its checkpoint, if there is one.
    config : ClassifyConfig
        All options.
    cells : CellSet
        Images for training and validation.

    Yields
    ------
    Event
        Progress in images, one `Metrics` per step, notes.

    Returns
    -------
    ClassifyResult
        Where the classifier is, and its scores.
    """
    done = run.summary()
    if done is not None:
        yield Note(f"{run.path} is finished already")
        return _result(run, done)
    began = time.monotonic()
    training, validation = cells.only(TRAIN), cells.only(VALIDATION)
    stages = Stages(2.0, 93.0, 5.0)
    yield Note(_about(training, validation))
    yield Progress("Loading the encoder", 0, None, "encoders", overall=0.0)
    start = load_start(
        config.init, config.model, config.augment, config.compute, config.fit.seed
    )
    augmenting = _same_augmentation(start, config)
    learner = yield from stages.next(_learner(run, start, training, config))
    loop = ImageLoop(run, learner, _plan(config, training, start.side, augmenting))
    yield from stages.next(loop.learn())
    classifier = CellClassifier(
        start.encoder, learner.network.head, cells.classes, start.side
    )
    save_classifier(run.path, classifier, config, augmenting, _figures(loop, training))
    summary = {
        **_figures(loop, training),
        "classes": list(cells.classes),
        "scores": (yield from stages.next(_validate(run, classifier, validation))),
        "seconds": time.monotonic() - began,
    }
    run.finish(summary)
    run.remove_checkpoint()
    return _result(run, summary)


def _about(training: CellSet, validation: CellSet) -> str:
    counts = ", ".join(f"{name} {n}" for name, n in training.support.items())
    return (
        f"{len(training)} images to train on ({counts}), {len(validation)} to validate"
    )


def _same_augmentation(start: Start, config: ClassifyConfig) -> AugmentConfig:
    """Augment as the pre-training did, except for options that are given."""
    if start.augment is None or not config.augment_as_mae:
        return config.augment
    given = config.augment.model_dump(include=config.augment.model_fields_set)
    defaults = AugmentConfig().model_dump()
    changed = {name: v for name, v in given.items() if v != defaults[name]}
    return start.augment.model_copy(update=changed)


def _learner(
    run: Run, start: Start, training: CellSet, config: ClassifyConfig
) -> Job[CellTrainer]:
    network = make_network(start, len(training.classes), config)
    weights = np.ones(len(training.classes))
    if config.fit.balance == "weights":
        weights = class_weights(training.targets, len(training.classes))
    learner = CellTrainer(network, start, config, weights)
    yield from run.checkpoint_written(Progress("Loading the encoder", 0, None))
    if config.fit.learn == "probe" and not run.checkpoint_file.is_file():
        yield from _scale_head(learner, start, training)
    return learner


def _scale_head(learner: CellTrainer, start: Start, training: CellSet) -> Job[None]:
    cache, parts = PictureCache(0), []
    some = np.random.default_rng(0).permutation(len(training))[:_SCALED_ON]
    rows, at_once = np.sort(some), start.encoder.chunk
    meter = Meter("Looking at features", len(rows), "images")
    for first in range(0, len(rows), at_once):
        yield meter.progress()
        several = []
        for row in rows[first : first + at_once]:
            try:
                several.append(resized(training.cells[row].read(cache), start.side))
            except McmError:
                continue
        if several:
            parts.append(start.encoder.encode(np.stack(several)))
        meter.advance(len(rows[first : first + at_once]))
    if parts:
        features = torch.from_numpy(np.concatenate(parts))
        learner.network.head.scale_by(features.to(learner.device))


def _plan(
    config: ClassifyConfig, training: CellSet, side: int, augmenting: AugmentConfig
) -> ImagePlan[LabelledImage]:
    fit, targets = config.fit, training.targets
    cache = PictureCache(config.cache_mb)

    def read(draw: Draw) -> LabelledImage:
        key = (fit.seed, *draw)
        row = draw[1]
        if fit.balance == "sampling":
            row = balanced_row(targets, np.random.default_rng((*key, _BALANCING)))
        pixels = training.cells[row].read(cache)
        shown = augment(pixels, side, augmenting, np.random.default_rng(key))
        return LabelledImage(shown, int(targets[row]))

    return ImagePlan(
        stage="Training",
        images=len(training),
        identity=training.fingerprint,
        batch_size=fit.batch_size,
        steps=fit.steps,
        seed=fit.seed,
        factor=lambda step: rate_factor(fit.schedule, step, fit.steps, fit.warmup),
        read=read,
        workers=config.workers,
        checkpoint_seconds=config.checkpoint_seconds,
        advice="Try a lower --base-lr",
        # A loss that starts below that of uniform probabilities is judged against that.
        least_loss=float(np.log(max(len(training.classes), 2))),
    )


def balanced_row(targets: NDArray[np.int64], rng: np.random.Generator) -> int:
    """Draw a class, each with the same probability, and then one of its images.

    Parameters
    ----------
    targets : ndarray of int64, shape (n_images,)
        Index of the class of each image.
    rng : Generator
        Source of random numbers.

    Returns
    -------
    int
        Index of the image.
    """
    present = np.unique(targets)
    rows = np.flatnonzero(targets == present[rng.integers(len(present))])
    return int(rows[rng.integers(len(rows))])


def _validate(
    run: Run, classifier: CellClassifier, validation: CellSet
) -> Job[dict[str, Any]]:
    if not len(validation):
        return {}
    predictions = yield from predict_cells(classifier, validation)
    scores: Scores = write_results(run.path / "validation", predictions, validation)
    return scores.plain()


def _figures(loop: ImageLoop[LabelledImage], training: CellSet) -> dict[str, Any]:
    return {
        **loop.summary(),
        "images": len(training),
        "support": training.support,
        "skipped": len(loop.damaged),
    }


def _result(run: Run, summary: dict[str, Any]) -> ClassifyResult:
    first, last = losses_of(summary)
    return ClassifyResult(
        run_dir=run.path,
        classes=tuple(summary["classes"]),
        images=summary["images"],
        loss_first=first,
        loss_last=last,
        scores=summary["scores"],
        steps=summary["steps"],
        seconds=summary["seconds"],
    )


# Multiply-adds of an image of a convolutional network, for each of its weights.
_CONVOLUTION_REUSE = 150


class LabelledImage(NamedTuple):
    """An image and its class.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (side, side, 3)
        The image as RGB.
    target : int
        Index of its class.
    """

    pixels: NDArray[np.uint8]
    target: int


class CellTrainer(ImageTrainer[LabelledImage]):
    """Train an encoder with a head, or the head alone, by weighted cross-entropy.

    Parameters
    ----------
    network : Network
        Trained in place.
    start : Start
        What its encoder started from.
    config : ClassifyConfig
        All options.
    weights : ndarray of float64, shape (n_classes,)
        Weights of the classes in the loss.
    """

    def __init__(
        self,
        network: Network,
        start: Start,
        config: ClassifyConfig,
        weights: NDArray[np.float64],
    ) -> None:
        fit = config.fit
        super().__init__(
            network,
            rate_groups(network, fit, start.learned),
            (0.9, 0.999),
            fit.clip_norm,
            fit.seed,
            config.compute,
        )
        self.network, self.start, self.fit = network, start, fit
        self.weights = torch.as_tensor(weights, dtype=torch.float32).to(self.device)
        learns = fit.learn == "full"
        given = fit.batch_norm
        self._batch_norm = learns and (
            # Random weights have no statistics worth keeping.
            given == "train" or (given == "auto" and not start.learned)
        )
        self.set_mode()
        auto = chunk_for(self.device, _work(start))
        self.chunk = auto if config.chunk_images == "auto" else config.chunk_images

    def set_mode(self) -> None:
        """Put the network in training mode; what is frozen stays in evaluation mode."""
        self.network.head.train()
        self.network.encoder.train(self.fit.learn == "full")
        self.moves_in_forward = set_batch_norm(self.network.encoder, self._batch_norm)

    def losses(
        self, samples: Sequence[LabelledImage]
    ) -> tuple[Tensor, dict[str, float]]:
        """Compute the weighted loss of images.

        Parameters
        ----------
        samples : sequence of LabelledImage
            B images.

        Returns
        -------
        loss : Tensor, shape ()
            Sum of the images' weighted cross-entropy.
        sums : dict of str to float
            ``train_accuracy``: number of images that are classified correctly.
        """
        pixels, targets = zip(*samples, strict=True)
        true = torch.tensor(targets, device=self.device)
        logits = self.network.head(self.features(pixels))
        losses = F.cross_entropy(
            logits, true, reduction="none", label_smoothing=self.fit.label_smoothing
        )
        right = float((logits.argmax(dim=1) == true).sum())
        # A sum: the step divides by the batch's number of images, not by the weights'.
        return (losses * self.weights[true]).sum(), {"train_accuracy": right}

    def features(self, pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Encode images, with gradients where the encoder is trained.

        Parameters
        ----------
        pixels : sequence of ndarray of uint8, shape (side, side, 3)
            B images.

        Returns
        -------
        Tensor of float32, shape (B, n_features)
            Features on the device.
        """
        encoder = self.start.encoder
        images = to_images(pixels, self.device, encoder.mean, encoder.std)
        learns = self.fit.learn == "full"
        with self.autocast(), torch.set_grad_enabled(learns):
            features: Tensor = self.network.encoder(images)
        return features.float()


def class_weights(targets: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Weight classes so that each counts the same, and an image 1 on average.

    Parameters
    ----------
    targets : ndarray of int64, shape (n_images,)
        Index of the class of each image.
    classes : int
        Number of classes.

    Returns
    -------
    ndarray of float64, shape (n_classes,)
        ``n_images / (n_present · count)``; 1 for classes without images.
    """
    counts = np.bincount(targets, minlength=classes)
    present = counts > 0
    weights = np.ones(classes)
    # Classes without images keep 1, and do not count in the mean.
    weights[present] = len(targets) / (present.sum() * counts[present])
    return weights


def _work(start: Start) -> float:
    """Estimate the multiply-adds of an image, forwards."""
    module = start.encoder.module
    weights = sum(p.numel() for p in module.parameters())
    tokens = getattr(getattr(module, "patch_embed", None), "num_patches", None)
    if tokens is not None:
        return float(weights * (tokens + 1))
    return float(weights * _CONVOLUTION_REUSE * (start.side / 224) ** 2)
