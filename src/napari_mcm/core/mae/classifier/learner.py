"""Steps of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from napari_mcm.core.mae.classifier.config import ClassifyConfig
from napari_mcm.core.mae.classifier.network import (
    Network,
    Start,
    rate_groups,
    set_batch_norm,
)
from napari_mcm.core.mae.learner import Learner, chunk_for, to_images

# Multiply-adds of an image of a convolutional network, for each of its weights.
_CONVOLUTION_REUSE = 150


class LabelledImage(NamedTuple):
    """An image (side, side, 3) of uint8, and its class as a number."""

    pixels: NDArray[np.uint8]
    target: int


class CellLearner(Learner[LabelledImage]):
    """Cross-entropy over classes, weighted where classes are rare.

    Parameters
    ----------
    network : Network
        Trained in place.
    start : Start
        What its encoder started from.
    config : ClassifyConfig
        All options.
    weights : ndarray, shape (C,)
        Of the classes in the loss.
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
        asked = fit.batch_norm
        self._batch_norm = learns and (
            asked == "train" or (asked == "auto" and not start.learned)
        )
        self.set_mode()
        auto = chunk_for(self.device, _work(start))
        self.chunk = auto if config.chunk_images == "auto" else config.chunk_images

    def set_mode(self) -> None:
        """Train; frozen encoders and batch norms stay in eval mode."""
        self.network.head.train()
        self.network.encoder.train(self.fit.learn == "full")
        self.moves_in_forward = set_batch_norm(self.network.encoder, self._batch_norm)

    def losses(
        self, samples: Sequence[LabelledImage]
    ) -> tuple[Tensor, dict[str, float]]:
        """Sum the weighted loss of images, and count those that come out right."""
        pixels, targets = zip(*samples, strict=True)
        true = torch.tensor(targets, device=self.device)
        logits = self.network.head(self.features(pixels))
        losses = F.cross_entropy(
            logits, true, reduction="none", label_smoothing=self.fit.label_smoothing
        )
        right = float((logits.argmax(dim=1) == true).sum())
        return (losses * self.weights[true]).sum(), {"train_accuracy": right}

    def features(self, pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Encode images; with gradients where the encoder learns."""
        encoder = self.start.encoder
        images = to_images(pixels, self.device, encoder.mean, encoder.std)
        learns = self.fit.learn == "full"
        with self.autocast(), torch.set_grad_enabled(learns):
            features: Tensor = self.network.encoder(images)
        return features.float()


def class_weights(targets: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Weigh classes so that each counts as much, and images one on average."""
    counts = np.bincount(targets, minlength=classes)
    present = counts > 0
    weights = np.ones(classes)
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
