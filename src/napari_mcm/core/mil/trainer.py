"""One aggregator in training: steps over bags, scores of slides, the best weights so far.

A step averages the cross-entropy of some slides' bags, mixed with the method's auxiliary
loss where it has one; bags are computed one after the other, or padded to one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_mcm.core.encoders.compute import ComputeConfig, choose_device, choose_dtype
from napari_mcm.core.mil.bags import Bags, Vectors
from napari_mcm.core.mil.config import AggregatorConfig, TrainingConfig
from napari_mcm.core.mil.models import Aggregator, make_aggregator, seed_dropout
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.training.schedule import cosine
from napari_mcm.core.training.trainer import ChunkSums, Trainer, by_prefix

LONG_BAG = 20_000
"""Number of patches from which a step runs in a thread, so that it can be cancelled."""

_OPTIMISERS: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
}
# As in DSMIL's published recipe; the others have PyTorch's.
_BETAS = {"dsmil": (0.5, 0.9)}


@dataclass(frozen=True)
class Labelled:
    """A slide with its class.

    Attributes
    ----------
    slide : str
        Its name.
    label : int
        Index of its class.
    """

    slide: str
    label: int


@dataclass
class Best:
    """The epoch with the lowest validation loss so far.

    Attributes
    ----------
    loss : float
        Its validation loss.
    epoch : int
        Its number, from 0; -1 before the first.
    weights : dict of str to Tensor
        Weights of the model after it.
    """

    loss: float = float("inf")
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)


class MilTrainer(Trainer):
    """Train one aggregator on one fold.

    Parameters
    ----------
    aggregator : AggregatorConfig
        Which model.
    training : TrainingConfig
        Options with every ``auto`` settled.
    compute : ComputeConfig
        Device and precision.
    dim : int
        Length of a feature vector.
    classes : int
        Number of classes.
    key : tuple of int
        Seed and fold: all that is random depends on them, the epoch and the slide only.

    Attributes
    ----------
    model : Aggregator
        Trained in place.
    best : Best
        The best epoch so far.
    """

    moments = "moments"

    def __init__(
        self,
        aggregator: AggregatorConfig,
        training: TrainingConfig,
        compute: ComputeConfig,
        dim: int,
        classes: int,
        key: tuple[int, int],
    ) -> None:
        self.training, self.key, self.classes = training, key, classes
        device = choose_device(compute)
        self.mixed = choose_dtype(compute, device) != torch.float32
        # The number after the key names the use: 1 weights, 2 order, 3 dropout, 4 patches.
        seed = int(np.random.default_rng([*key, 1]).integers(2**31))
        model = make_aggregator(aggregator, dim, classes, seed)
        self.model: Aggregator = model.to(device)
        optimiser = _OPTIMISERS[training.optimiser](
            self.model.parameters(),
            lr=training.lr,
            weight_decay=training.weight_decay,
            betas=_BETAS.get(aggregator.model, (0.9, 0.999)),
        )
        super().__init__({"model": self.model}, optimiser, None, device)
        # A checkpoint is of a whole epoch, which begins with the first pass.
        self.moves_in_forward = True
        self.best = Best()

    def plan(self, slides: Sequence[Labelled], epoch: int) -> list[list[Labelled]]:
        """Draw the slides of an epoch, in steps.

        Parameters
        ----------
        slides : sequence of Labelled
            The training set.
        epoch : int
            Number of the epoch, from 0.

        Returns
        -------
        list of list of Labelled
            As many slides as there are; balanced, each class comes equally often.
        """
        rng = np.random.default_rng([*self.key, 2, epoch])
        if self.training.balanced:
            labels = np.array([slide.label for slide in slides])
            # Each class is drawn equally often; slides may come twice in an epoch.
            weight = 1 / np.bincount(labels, minlength=self.classes)[labels]
            order = rng.choice(len(slides), len(slides), p=weight / weight.sum())
        else:
            order = rng.permutation(len(slides))
        size = self.training.batch_bags
        drawn = [slides[int(i)] for i in order]
        return [drawn[i : i + size] for i in range(0, len(drawn), size)]

    def step(
        self, batch: Sequence[Labelled], bags: Bags, epoch: int, number: int
    ) -> Generator[None, None, float]:
        """Take one optimiser step, yielding between slides.

        Parameters
        ----------
        batch : sequence of Labelled
            The slides of the step.
        bags : Bags
            Their features.
        epoch, number : int
            Numbers of the epoch, and of the step in it, from 0.

        Yields
        ------
        None
            Between slides, and during long ones.

        Returns
        -------
        float
            Mean loss over the slides; NaN where the gradient is not finite.
        """
        self.model.train()
        seed_dropout(self.model, *self.key, 3, epoch, number)
        drawn = [
            self._draw(bags.read(slide.slide), epoch, number, place)
            for place, slide in enumerate(batch)
        ]
        # One bag after the other needs no padding: bags differ widely in length.
        size = len(batch) if self.training.padded else 1
        chunks = (
            self._chunk(drawn[i : i + size], batch[i : i + size], len(batch))
            for i in range(0, len(batch), size)
        )
        sums = yield from self.sum_gradients(chunks)
        norm = self.move_weights(self.rate_factor(epoch))
        return sums["loss"] if np.isfinite(norm) else float("nan")

    def _chunk(
        self, vectors: Sequence[Vectors], slides: Sequence[Labelled], count: int
    ) -> ChunkSums:
        labels = [slide.label for slide in slides]
        work = partial(self._learn_from, vectors, labels, len(slides) / count)
        patches = sum(map(len, vectors))
        return {"loss": (yield from run_step("training step", work, patches))}

    def _learn_from(
        self, vectors: Sequence[Vectors], labels: Sequence[int], part: float
    ) -> float:
        bag, mask = pad(vectors, self.device)
        wanted = torch.tensor(labels, device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            loss = bag_loss(self.model, bag, mask, wanted) * part
        loss.backward()
        return float(loss.detach())

    def _draw(self, vectors: Vectors, epoch: int, number: int, place: int) -> Vectors:
        """Choose the patches of a slide that an epoch sees."""
        count = len(vectors)
        wanted = max(round(count * (1 - self.training.patch_dropout)), 1)
        wanted = min(wanted, self.training.max_patches or count)
        if wanted == count:
            return vectors
        rng = np.random.default_rng([*self.key, 4, epoch, number, place])
        # In their order, which TransMIL sees.
        return vectors[np.sort(rng.choice(count, wanted, replace=False))]

    def rate_factor(self, epoch: int) -> float:
        """Return the schedule's factor on the learning rate.

        Parameters
        ----------
        epoch : int
            Number of the epoch, from 0.

        Returns
        -------
        float
            1 without a schedule; from 1 to 0 along half a cosine.
        """
        if self.training.schedule != "cosine":
            return 1.0
        return cosine(epoch, self.training.epochs)

    def evaluate(
        self, slides: Sequence[Labelled], bags: Bags
    ) -> Generator[None, None, tuple[float, NDArray[np.float64]]]:
        """Score slides with all their patches.

        Parameters
        ----------
        slides : sequence of Labelled
            S slides.
        bags : Bags
            Their features.

        Yields
        ------
        None
            Between slides, and during long ones.

        Returns
        -------
        loss : float
            Mean cross-entropy.
        probabilities : ndarray of float64, shape (S, n_classes)
            Probability of each class.
        """
        logits = []
        for slide in slides:
            vectors = bags.read(slide.slide)
            logits.append((yield from score(self.model, vectors, self.device)))
        scores = torch.stack(logits)  # (S, C)
        labels = torch.tensor([slide.label for slide in slides])
        loss = float(F.cross_entropy(scores, labels))
        return loss, scores.softmax(dim=1).numpy()

    def keep_if_best(self, loss: float, epoch: int) -> bool:
        """Keep a copy of the weights where they are better than ever.

        Parameters
        ----------
        loss : float
            Validation loss.
        epoch : int
            Number of the epoch, from 0.

        Returns
        -------
        bool
            Whether they are.
        """
        # Also false for NaN, which must never be the best.
        if not loss < self.best.loss:
            return False
        # Copies: the optimiser changes the weights in place.
        weights = {n: t.detach().clone() for n, t in self.model.state_dict().items()}
        self.best = Best(loss, epoch, weights)
        return True

    def use_best(self) -> None:
        """Put the best weights back into the model."""
        self.model.load_state_dict(self.best.weights)

    def state(self) -> dict[str, Tensor]:
        """Collect all tensors from which the training can resume.

        Returns
        -------
        dict of str to Tensor
            Weights now and at their best, and moments of the optimiser, by name.
        """
        return super().state() | {f"best/{n}": t for n, t in self.best.weights.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the tensors of a checkpoint.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            As :meth:`state` returned them.
        """
        super().load_state(tensors)
        saved = by_prefix(tensors).get("best", {})
        weights = {n: t.to(self.device) for n, t in saved.items()}
        self.best = replace(self.best, weights=weights)


def pad(
    vectors: Sequence[Vectors], device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Put bags into one batch.

    Parameters
    ----------
    vectors : sequence of ndarray, shape (n_patches, n_features)
        B bags of up to N patches.
    device : torch.device
        The device of the batch.

    Returns
    -------
    bag : Tensor of float32, shape (B, N, n_features)
        Bags, padded with zeros.
    mask : Tensor of bool, shape (B, N), or None
        True where there is a patch; None for a single bag.
    """
    tensors = [torch.from_numpy(np.ascontiguousarray(v)) for v in vectors]
    if len(tensors) == 1:
        return tensors[0].to(device).float()[None], None
    lengths = torch.tensor([len(t) for t in tensors])
    bag = nn.utils.rnn.pad_sequence(tensors, batch_first=True)  # (B, N, D)
    mask = torch.arange(bag.shape[1])[None] < lengths[:, None]  # (B, N)
    return bag.to(device).float(), mask.to(device)


def bag_loss(
    model: Aggregator, bag: Tensor, mask: Tensor | None, labels: Tensor
) -> Tensor:
    """Compute the loss of bags, with the method's auxiliary loss where it has one.

    Parameters
    ----------
    model : Aggregator
        Its ``auxiliary_weight`` w mixes the two: ``(1 - w) * loss + w * auxiliary``.
    bag : Tensor, shape (B, N, n_features)
        As :func:`pad` returns it.
    mask : Tensor of bool, shape (B, N), or None
        Likewise.
    labels : Tensor of int64, shape (B,)
        Indices of the classes.

    Returns
    -------
    Tensor, shape ()
        Mean over the bags.
    """
    state = model.aggregate(bag, mask)
    loss = F.cross_entropy(state.logits, labels)
    auxiliary = model.auxiliary_loss(state, labels, mask)
    if auxiliary is None:
        return loss
    weight = model.auxiliary_weight
    return (1 - weight) * loss + weight * auxiliary


def score(
    model: Aggregator, vectors: Vectors, device: torch.device
) -> Generator[None, None, Tensor]:
    """Score one slide with all its patches.

    Parameters
    ----------
    model : Aggregator
        A trained model.
    vectors : ndarray, shape (n_patches, n_features)
        Features of the slide.
    device : torch.device
        The device of the model.

    Yields
    ------
    None
        While it computes a long bag.

    Returns
    -------
    Tensor of float32, shape (n_classes,)
        Logits, on the CPU.
    """

    def work() -> Tensor:
        model.eval()
        with torch.inference_mode():
            bag, _ = pad([vectors], device)
            return model.aggregate(bag).logits[0].float().cpu()

    return (yield from run_step("evaluate", work, len(vectors)))


_T = TypeVar("_T")


def run_step(
    name: str, work: Callable[[], _T], patches: int
) -> Generator[None, None, _T]:
    """Run a step on bags; in a thread where they are long, so that it can be cancelled.

    Parameters
    ----------
    name : str
        What the thread is called.
    work : callable
        The step.
    patches : int
        Number of patches that it computes with.

    Yields
    ------
    None
        Once before a short step, and ten times per second during a long one.

    Returns
    -------
    object
        What `work` returns.
    """
    if patches < LONG_BAG:
        yield
        return work()
    job = run_in_thread(name, work, abandon=True)
    try:
        while True:
            try:
                next(job)
            except StopIteration as end:
                result: _T = end.value
                return result
            yield
    finally:
        job.close()
