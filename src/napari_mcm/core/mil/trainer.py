"""One model in training: its weights, its optimiser, and the best it has been."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_mcm.core.encoders.compute import ComputeConfig, choose_device, choose_dtype
from napari_mcm.core.mil.bags import Bags, Vectors
from napari_mcm.core.mil.config import AggregatorConfig, TrainingConfig
from napari_mcm.core.mil.models import Aggregator, make_aggregator, seed_dropout
from napari_mcm.core.runtime.threads import run_cancellable

LONG_BAG = 20_000
"""Patches from which a step is done in a thread, so that a cancel is acted on."""

_OPTIMISERS: dict[str, Any] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
}
_BETAS = {"dsmil": (0.5, 0.9)}


@dataclass(frozen=True)
class Labelled:
    """A slide to learn from."""

    slide: str
    label: int


@dataclass
class Best:
    """The best state so far.

    Attributes
    ----------
    loss : float
        Its validation loss.
    epoch : int
        When it was, from 0; -1 before the first.
    weights : dict of str to Tensor
        The model's.
    """

    loss: float = float("inf")
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)


class MilTrainer:
    """Everything that an epoch changes or needs.

    Parameters
    ----------
    aggregator : AggregatorConfig
        Which model.
    training : TrainingConfig
        With every ``auto`` settled.
    compute : ComputeConfig
        Where and how exactly.
    dim, classes : int
        Length of a feature vector; number of classes.
    key : tuple of int
        Seed and fold: all that is random depends on them, the epoch and the slide only.
    """

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
        self.device = choose_device(compute)
        self.mixed = choose_dtype(compute, self.device) != torch.float32
        seed = int(np.random.default_rng([*key, 1]).integers(2**31))
        model = make_aggregator(aggregator, dim, classes, seed)
        self.model: Aggregator = model.to(self.device)
        self.optimiser = _OPTIMISERS[training.optimiser](
            self.model.parameters(),
            lr=training.lr,
            weight_decay=training.weight_decay,
            betas=_BETAS.get(aggregator.model, (0.9, 0.999)),
        )
        self.best = Best()

    def plan(self, slides: Sequence[Labelled], epoch: int) -> list[list[Labelled]]:
        """Draw an epoch's slides, in steps; balanced, classes come equally often."""
        rng = np.random.default_rng([*self.key, 2, epoch])
        if self.training.balanced:
            labels = np.array([slide.label for slide in slides])
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
        """Take one step; yields between slides. Returns the mean loss."""
        self.model.train()
        seed_dropout(self.model, *self.key, 3, epoch, number)
        self._set_rate(epoch)
        self.optimiser.zero_grad(set_to_none=True)
        drawn = [
            self._draw(bags.read(slide.slide), epoch, number, place)
            for place, slide in enumerate(batch)
        ]
        groups = [range(len(batch))]
        if not self.training.padded:
            groups = [range(i, i + 1) for i in range(len(batch))]
        loss = 0.0
        for group in groups:
            chosen = [drawn[i] for i in group]
            labels = [batch[i].label for i in group]
            work = partial(self._learn_from, chosen, labels, len(chosen) / len(batch))
            long = sum(map(len, chosen)) >= LONG_BAG
            loss += yield from run_cancellable(work, long, "training step")
        self.optimiser.step()
        return loss

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

    def _set_rate(self, epoch: int) -> None:
        rate = self.training.lr
        assert rate != "auto"
        if self.training.schedule == "cosine":
            rate *= 0.5 * (1 + np.cos(np.pi * epoch / self.training.epochs))
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def evaluate(
        self, slides: Sequence[Labelled], bags: Bags
    ) -> Generator[None, None, tuple[float, NDArray[np.float64]]]:
        """Score slides with all their patches: mean loss, probabilities (S, C)."""
        logits = []
        for slide in slides:
            vectors = bags.read(slide.slide)
            logits.append((yield from score(self.model, vectors, self.device)))
        scores = torch.stack(logits)
        labels = torch.tensor([slide.label for slide in slides])
        loss = float(F.cross_entropy(scores, labels))
        return loss, scores.softmax(dim=1).numpy()

    def keep_if_best(self, loss: float, epoch: int) -> bool:
        """Remember these weights where they are better than before."""
        if not loss < self.best.loss:
            return False
        weights = {n: t.detach().clone() for n, t in self.model.state_dict().items()}
        self.best = Best(loss, epoch, weights)
        return True

    def use_best(self) -> None:
        """Go back to the best weights."""
        self.model.load_state_dict(self.best.weights)

    def state(self) -> dict[str, Tensor]:
        """All tensors from which training can go on."""
        tensors = {f"model/{n}": t for n, t in self.model.state_dict().items()}
        tensors |= {f"best/{n}": t for n, t in self.best.weights.items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"moments/{number}/{n}": t for n, t in values.items()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor], best: tuple[float, int]) -> None:
        """Go on from what :meth:`state` gave."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "moments": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        weights = {n: t.to(self.device) for n, t in parts["best"].items()}
        self.best = Best(*best, weights)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["moments"].items():
            number, _, key = name.partition("/")
            moments.setdefault(int(number), {})[key] = tensor
        whole = {**self.optimiser.state_dict(), "state": moments}
        self.optimiser.load_state_dict(whole)


def pad(
    vectors: Sequence[Vectors], device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Put bags into one batch (B, N, D) with its mask (B, N); one needs no mask."""
    tensors = [torch.from_numpy(np.ascontiguousarray(v)) for v in vectors]
    if len(tensors) == 1:
        return tensors[0].to(device).float()[None], None
    lengths = torch.tensor([len(t) for t in tensors])
    bag = nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    mask = torch.arange(bag.shape[1])[None] < lengths[:, None]
    return bag.to(device).float(), mask.to(device)


def bag_loss(
    model: Aggregator, bag: Tensor, mask: Tensor | None, labels: Tensor
) -> Tensor:
    """Mix the bag's cross-entropy with the method's auxiliary loss, where it has one."""
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
    """Score one slide with all its patches: logits (C,), on the CPU."""

    def work() -> Tensor:
        model.eval()
        with torch.inference_mode():
            bag, _ = pad([vectors], device)
            return model.aggregate(bag).logits[0].float().cpu()

    return (yield from run_cancellable(work, len(vectors) >= LONG_BAG, "evaluate"))
