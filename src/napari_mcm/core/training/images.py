"""What trainings on single images share: their order, their loop, their step.

Masked autoencoding and classifiers of cells derive from these. Every image of every epoch
is read once, in an order that depends on the seed and the epoch only, by threads that stay
ahead of the step.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_mcm.core.encoders.compute import (
    ComputeConfig,
    choose_device,
    settle_training,
)
from napari_mcm.core.errors import McmError
from napari_mcm.core.runtime.jobs import Job, Note
from napari_mcm.core.runtime.threads import prefetch, report_while_running
from napari_mcm.core.training.loop import Loop, LoopPlan
from napari_mcm.core.training.monitor import first_and_last, median
from napari_mcm.core.training.run import Run
from napari_mcm.core.training.trainer import ChunkSums, Groups, Trainer

Sample = TypeVar("Sample")
Draw = tuple[int, int]
"""An epoch and the index of an image."""

# About half a second of a slow core, forwards and backwards.
_CHUNK_WORK = 5e9
_MAX_NOTES = 20
_SECONDS_BETWEEN_SIGNS = 0.2


def steps_of_epochs(images: int, batch_size: int, epochs: int) -> int:
    """Count the steps of some epochs, of whole batches only.

    Parameters
    ----------
    images : int
        Number of images.
    batch_size : int
        Images per step.
    epochs : int
        Number of epochs; the last images of one share a batch with the next.

    Returns
    -------
    int
        At least 1.
    """
    return max(images * epochs // batch_size, 1)


def draws(
    images: int, batch_size: int, seed: int, start: int, stop: int
) -> Iterator[list[Draw]]:
    """Draw the images of some steps.

    Epochs follow each other without a gap, each in an order of its own, so that every
    step has as many images as the others.

    Parameters
    ----------
    images : int
        Number of images.
    batch_size : int
        Images per step.
    seed : int
        Seed of the orders.
    start, stop : int
        The first step, and the one after the last.

    Yields
    ------
    list of tuple of int
        Epoch and index of each image of a step.
    """
    orders: dict[int, NDArray[np.int64]] = {}
    for step in range(start, stop):
        batch = []
        for place in range(step * batch_size, (step + 1) * batch_size):
            epoch, at = divmod(place, images)
            if epoch not in orders:
                # Old orders are not needed, and would add up over hundreds of epochs.
                orders = {k: v for k, v in orders.items() if k >= epoch - 1}
                rng = np.random.default_rng((seed, epoch))
                orders[epoch] = rng.permutation(images)
            batch.append((epoch, int(orders[epoch][at])))
        yield batch


@dataclass(frozen=True)
class Damage:
    """An image that could not be read.

    Attributes
    ----------
    name : str
        Where it is.
    reason : str
        Why it could not be read.
    """

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImagePlan(LoopPlan, Generic[Sample]):
    """The images of a training, and how they are read.

    Attributes
    ----------
    images : int
        Number of images.
    batch_size : int
        Images per step.
    seed : int
        Seed of their order.
    factor : callable
        From the number of a step to the factor on all learning rates.
    read : callable
        From an epoch and the index of an image to a sample; runs in threads.
    workers : int
        Number of these threads.
    """

    unit: str = "images"
    data: str = "images"
    images: int
    batch_size: int
    seed: int
    factor: Callable[[int], float]
    read: Callable[[Draw], Sample]
    workers: int


class ImageTrainer(Trainer, ABC, Generic[Sample]):
    """Steps of AdamW on images; subclasses define the loss.

    Parameters
    ----------
    module : nn.Module
        Everything that is trained; moved to the device.
    groups : list of dict
        Parameter groups for AdamW, each with its peak ``lr``.
    betas : tuple of float
        AdamW's decay rates of its moments.
    clip_norm : float or None
        Bound on the norm of the gradient.
    seed : int
        Seed of dropout, where there is any.
    compute : ComputeConfig
        Device, precision and threads.

    Attributes
    ----------
    chunk : int
        Images computed at a time.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Groups,
        betas: tuple[float, float],
        clip_norm: float | None,
        seed: int,
        compute: ComputeConfig,
    ) -> None:
        device = choose_device(compute)
        if compute.threads:
            torch.set_num_threads(compute.threads)
        self.module = module.to(device)
        self.seed, self.chunk = seed, 1
        # Fused, a step of a ViT-Base on two cores takes 0.06 s rather than 0.4.
        optimiser = torch.optim.AdamW(groups, betas=betas, fused=True)
        super().__init__({"model": self.module}, optimiser, clip_norm, device)
        self.precision = settle_training(compute).precision

    @abstractmethod
    def losses(self, samples: Sequence[Sample]) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of a chunk.

        Parameters
        ----------
        samples : sequence
            The chunk.

        Returns
        -------
        loss : Tensor, shape ()
            Sum of the samples' losses.
        sums : dict of str to float
            Sums of other metrics over the samples.
        """

    def set_mode(self) -> None:
        """Put the module in training mode."""
        self.module.train()

    def step(
        self, samples: Sequence[Sample], factor: float, number: int
    ) -> Generator[None, None, dict[str, float]]:
        """Take one optimiser step, yielding after each chunk.

        Parameters
        ----------
        samples : sequence
            The batch.
        factor : float
            The schedule's factor on all learning rates.
        number : int
            Number of the step, from 0.

        Yields
        ------
        None
            After each chunk.

        Returns
        -------
        dict of str to float
            ``loss`` and other metrics, averaged over samples, and ``grad_norm``.
        """
        self.set_mode()
        chunks = (
            self._learn_from(samples, slice(start, start + self.chunk), number)
            for start in range(0, len(samples), self.chunk)
        )
        sums = yield from self.sum_gradients(chunks)
        norm = self.move_weights(factor)
        means = {name: value / len(samples) for name, value in sums.items()}
        return {**means, "grad_norm": norm}

    def _learn_from(
        self, samples: Sequence[Sample], part: slice, number: int
    ) -> ChunkSums:
        with self._seeding.seed(_key(self.seed, number, part.start)):
            loss, sums = self.losses(samples[part])
        # The batch's mean, whatever the chunks.
        (loss / len(samples)).backward()
        values = {"loss": float(loss.detach()), **sums}
        yield
        return values

    def autocast(self) -> torch.autocast:
        """Return a context that computes in the configured precision.

        Returns
        -------
        torch.autocast
            Enabled for bfloat16 only.
        """
        mixed = self.precision != "float32"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)


class ImageLoop(Loop[ImageTrainer[Sample]], Generic[Sample]):
    """The loop of a training on images.

    Damaged images are skipped and reported once.

    Parameters
    ----------
    run : Run
        Keeps metrics and checkpoint.
    trainer : ImageTrainer
        Takes the steps.
    plan : ImagePlan
        The images.
    """

    plan: ImagePlan[Sample]

    def __init__(
        self, run: Run, trainer: ImageTrainer[Sample], plan: ImagePlan[Sample]
    ) -> None:
        super().__init__(run, trainer, plan)
        self.damaged: list[str] = []

    def count_units(self, steps: int) -> int:
        """Count the images of the first steps.

        Parameters
        ----------
        steps : int
            Number of steps.

        Returns
        -------
        int
            Number of images.
        """
        return steps * self.plan.batch_size

    def read_ahead(self) -> Generator[Sample | Damage, None, None]:
        """Read the images of the steps that are left, in threads.

        Returns
        -------
        generator of object
            One sample per image, or `Damage`.
        """
        plan, size = self.plan, self.plan.batch_size
        batches = draws(plan.images, size, plan.seed, self.step, plan.steps)
        # Two batches: reading goes on during a step, and memory stays bounded.
        ahead = min(2 * size, 256)
        images = (draw for batch in batches for draw in batch)
        return prefetch(self._read, images, plan.workers, ahead)

    def take_step(
        self, reading: Generator[Sample | Damage, None, None]
    ) -> Job[dict[str, float]]:
        """Read a batch of images and train on it, as a job.

        Parameters
        ----------
        reading : generator
            What :meth:`read_ahead` reads.

        Returns
        -------
        dict of str to float
            Metrics of the step; ``loss`` is NaN where all images are damaged.
        """
        began = time.monotonic()
        samples = yield from self._batch(reading)
        factor = self.plan.factor(self.step)
        # A step without readable images counts, too: the order does not depend on damage.
        values: dict[str, float] = {"loss": float("nan")}
        if samples:
            stepping = self.trainer.step(samples, factor, self.step)
            values = yield from report_while_running(stepping, self.progress())
            self.check(values["loss"], values["grad_norm"])
        rate = len(samples) / max(time.monotonic() - began, 1e-9)
        return {**values, "lr_factor": factor, "images_per_s": rate}

    def summary(self) -> dict[str, Any]:
        """Summarise the metrics once all steps are done.

        Returns
        -------
        dict
            ``loss_first``, ``loss_last``, ``images_per_s`` and ``steps``.
        """
        metrics = self.run.metrics()
        return {
            **first_and_last(metrics.get("loss", [])),
            "images_per_s": median(metrics.get("images_per_s", [])),
            "steps": self.plan.steps,
        }

    def _read(self, draw: Draw) -> Sample | Damage:
        try:
            return self.plan.read(draw)
        except McmError as error:
            return Damage(str(error.where), str(error))

    def _batch(self, reading: Iterator[Sample | Damage]) -> Job[list[Sample]]:
        samples: list[Sample] = []
        reported = time.monotonic()
        for _ in range(self.plan.batch_size):
            sample = next(reading)
            if not isinstance(sample, Damage):
                samples.append(sample)
            elif sample.name not in self.damaged:
                self.damaged.append(sample.name)
                if len(self.damaged) <= _MAX_NOTES:
                    yield Note(f"skipped: {sample.reason}", "warning")
            if time.monotonic() - reported > _SECONDS_BETWEEN_SIGNS:
                reported = time.monotonic()
                yield self.progress()
        return samples


def chunk_for(device: torch.device, work: float) -> int:
    """Choose how many images are computed at a time.

    Parameters
    ----------
    device : torch.device
        The device that computes.
    work : float
        Multiply-adds per image, forwards.

    Returns
    -------
    int
        1 to 64 on a CPU, about half a second of work; 256 on a GPU.
    """
    if device.type != "cpu":
        return 256
    return min(max(int(_CHUNK_WORK / max(work, 1.0)), 1), 64)


def to_images(
    pixels: Sequence[Any], device: torch.device, mean: Sequence[float], std: Any
) -> Tensor:
    """Scale images to the batch that a network takes.

    Parameters
    ----------
    pixels : sequence of ndarray of uint8, shape (height, width, 3)
        RGB images of one size.
    device : torch.device
        The device of the batch.
    mean, std : sequence of float
        Mean and standard deviation per channel, of pixels from 0 to 1.

    Returns
    -------
    Tensor of float32, shape (n_images, 3, height, width)
        ``(pixels / 255 - mean) / std``.
    """
    # Sent as uint8, a quarter of the bytes, and scaled on the device.
    batch = torch.from_numpy(np.stack(list(pixels))).to(device, non_blocking=True)
    shape = (1, 3, 1, 1)
    middle = torch.tensor(mean, device=device).reshape(shape)
    spread = torch.tensor(std, device=device).reshape(shape)
    # (B, side, side, 3) -> (B, 3, side, side)
    scaled: Tensor = (batch.permute(0, 3, 1, 2).float() / 255 - middle) / spread
    return scaled.contiguous()


def _key(*numbers: int) -> int:
    # One seed of several numbers, different for each step and chunk.
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
