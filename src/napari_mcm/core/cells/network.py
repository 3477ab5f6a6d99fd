"""The classifier as it is trained: an encoder and a linear head, with rates per layer.

A linear probe standardises the frozen features by the training set's mean μ and spread
σ; full fine-tuning leaves μ = 0 and σ = 1. Learning rates fall by a factor d from each
of the L layers to the one before it (Clark et al., "ELECTRA", ICLR 2020)::

    logits = W (f(x) - μ) / σ + b
    lr_l   = lr · d^(L - l)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from timm import optim as timm_optim
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_mcm.core.cells.config import ClassifyConfig, FitConfig
from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.encoders.compute import (
    choose_device,
    choose_dtype,
    settle_training,
)
from napari_mcm.core.encoders.seeding import seeded
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mae.config import AugmentConfig, ModelConfig
from napari_mcm.core.mae.model import (
    architecture,
    make_vit,
    model_arguments,
    set_positions,
)
from napari_mcm.core.training.trainer import Groups

SCRATCH, MAE = "scratch", "mae:"
_HEAD_STD = 2e-5
LEAST_SPREAD = 0.1
"""Smallest spread of a feature, relative to the root mean square of all spreads."""


@dataclass(frozen=True, eq=False)
class Start:
    """Encoder that a classifier starts from.

    Attributes
    ----------
    encoder : Encoder
        Its module is trained in place.
    learned : bool
        Whether its weights are pre-trained.
    augment : AugmentConfig or None
        Augmentation of its pre-training, if recorded.
    side : int
        Side of the input images, in pixels.
    """

    encoder: Encoder
    learned: bool
    augment: AugmentConfig | None
    side: int


def load_start(
    init: str,
    model: ModelConfig,
    augment: AugmentConfig,
    compute: ComputeConfig,
    seed: int,
) -> Start:
    """Load or create the encoder that a classifier starts from.

    Parameters
    ----------
    init : str
        ``scratch``, ``scratch:ENCODER``, ``mae:RUN`` or an encoder; see
        :class:`ClassifyConfig`.
    model : ModelConfig
        The ViT of ``scratch``; its image size is also that of encoders of any size.
    augment : AugmentConfig
        Its normalisation is that of ``scratch``.
    compute : ComputeConfig
        Where to compute.
    seed : int
        Random seed of random weights.

    Returns
    -------
    Start
        The encoder, and what is known of its pre-training.

    Raises
    ------
    ConfigError
        If ``mae:`` does not name a pre-training.
    WeightsError
        If the encoder's weights are missing or damaged.
    """
    compute = settle_training(compute)
    if init == SCRATCH:
        encoder = _fresh_vit(model, augment, compute, seed)
    # The named encoder's network and preprocessing with random weights.
    elif init.startswith(SCRATCH + ":"):
        encoder = _forget(load_encoder(init.partition(":")[2], compute), seed)
    else:
        encoder = load_encoder(init.removeprefix(MAE), compute)
    learned = not init.startswith((SCRATCH, "random:"))
    if init.startswith(MAE) and "pretraining" not in encoder.recipe:
        raise ConfigError(
            "is not a run of mae pretrain",
            init,
            "Name other encoders without the prefix mae:",
        )
    recorded = encoder.recipe.get("pretraining", {}).get("options", {}).get("augment")
    return Start(
        encoder,
        learned,
        AugmentConfig.model_validate(recorded) if recorded else None,
        encoder.input_size or model.image_size,
    )


def _fresh_vit(
    model: ModelConfig, augment: AugmentConfig, compute: ComputeConfig, seed: int
) -> Encoder:
    with seeded(seed):
        vit: Any = make_vit(model)
    device = choose_device(compute)
    recipe = {
        "architecture": architecture(model),
        "model_args": model_arguments(model),
        "preprocessing": {
            "mean": list(augment.mean),
            "std": list(augment.std),
            "input_size": model.image_size,
            "interpolation": "bicubic",
        },
        "weights": f"random, seed {seed}",
        "license": None,
    }
    return Encoder(
        module=vit.to(device),
        architecture=architecture(model),
        spec=SCRATCH,
        dim=int(vit.num_features),
        mean=augment.mean,
        std=augment.std,
        input_size=model.image_size,
        fingerprint="",
        recipe=recipe,
        device=device,
        dtype=choose_dtype(compute, device),
    )


def _forget(encoder: Encoder, seed: int) -> Encoder:
    """Return an encoder's network and preprocessing with random weights.

    A masked autoencoder's fixed positions are not learned weights: they stay.
    """
    recipe = encoder.recipe
    with seeded(seed):
        module = timm.create_model(
            recipe["architecture"], num_classes=0, **recipe.get("model_args", {})
        )
    if "pretraining" in recipe:
        set_positions(module)
    fresh = {
        **{k: v for k, v in recipe.items() if k not in ("pretraining", "fine_tuning")},
        "weights": f"random, seed {seed}",
        "license": None,
    }
    module = module.to(encoder.device)
    return replace(encoder, module=module, recipe=fresh, fingerprint="")


class Head(nn.Module):
    """A linear layer on features, standardised first where they are frozen.

    Parameters
    ----------
    dim : int
        Length of a feature vector.
    classes : int
        Number of classes.

    Attributes
    ----------
    mean, std : Tensor, shape (dim,)
        Standardisation; 0 and 1 unless :meth:`scale_by` set them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.linear = nn.Linear(dim, classes)
        # Near-zero weights: training starts from uniform probabilities, as in MAE.
        nn.init.trunc_normal_(self.linear.weight, std=_HEAD_STD)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def scale_by(self, features: Tensor) -> None:
        """Standardise by the mean and spread of some features.

        A feature that hardly varies among these, such as a cell's edge that few images
        show, would be amplified a thousandfold where it does vary: it is scaled less.

        Parameters
        ----------
        features : Tensor, shape (N, dim)
            Features of the training set.
        """
        spread = features.std(dim=0, correction=0)
        least = LEAST_SPREAD * spread.square().mean().sqrt()
        self.mean.copy_(features.mean(dim=0))
        self.std.copy_(spread.clamp_min(max(float(least), 1e-6)))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of features.

        Parameters
        ----------
        features : Tensor, shape (B, dim)
            Features of images.

        Returns
        -------
        Tensor, shape (B, classes)
            Logits.
        """
        logits: Tensor = self.linear((features - self.mean) / self.std)  # (B, classes)
        return logits


class Network(nn.Module):
    """Encoder and head.

    Parameters
    ----------
    encoder : Module
        A timm model without a classifier.
    head : Head
        Linear layer on its features.
    """

    def __init__(self, encoder: nn.Module, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head


def make_network(start: Start, classes: int, config: ClassifyConfig) -> Network:
    """Put a head on an encoder, and choose what is trained.

    Parameters
    ----------
    start : Start
        The encoder.
    classes : int
        Number of classes.
    config : ClassifyConfig
        Options of the run.

    Returns
    -------
    Network
        On the encoder's device; the encoder is frozen for a probe.
    """
    # The head's weights depend on the seed only, not on how the encoder was made.
    with seeded(config.fit.seed):
        head = Head(start.encoder.dim, classes)
    network = Network(start.encoder.module, head.to(start.encoder.device))
    network.encoder.requires_grad_(config.fit.learn == "full")
    return network


def rate_groups(network: Network, fit: FitConfig, learned: bool) -> Groups:
    """Group weights by learning rate and decay, for AdamW.

    timm counts the layers of its models, of ViTs as of convolutional networks. The rate
    falls by a factor from each layer to the one before it (Clark et al., ELECTRA).

    Parameters
    ----------
    network : Network
        Encoder and head.
    fit : FitConfig
        Rate, decay and layer decay.
    learned : bool
        Whether the encoder is pre-trained; layer decay applies only then.

    Returns
    -------
    list of dict
        Parameter groups with ``params``, ``lr`` and ``weight_decay``.
    """
    head = {
        "params": list(network.head.parameters()),
        "lr": fit.peak_lr,
        "weight_decay": 0.0,
    }
    if fit.learn == "probe":
        return [head]
    # Random lower layers have nothing to preserve: they train at the full rate.
    decay = fit.layer_decay if learned else 1.0
    named: Any = getattr(network.encoder, "no_weight_decay", set)
    optimisers: Any = timm_optim
    groups = optimisers.param_groups_layer_decay(
        network.encoder,
        weight_decay=fit.weight_decay,
        no_weight_decay_list=named(),
        layer_decay=decay,
    )
    return [
        *(
            {
                "params": group["params"],
                # The head is the layer above the encoder's last.
                "lr": fit.peak_lr * decay * group["lr_scale"],
                "weight_decay": group["weight_decay"],
            }
            for group in groups
        ),
        head,
    ]


def set_batch_norm(module: nn.Module, train: bool) -> bool:
    """Set whether batch norms re-estimate their statistics.

    Parameters
    ----------
    module : Module
        The network.
    train : bool
        Whether to re-estimate them.

    Returns
    -------
    bool
        Whether any layer does.
    """
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    for layer in layers:
        layer.train(train)
    return train and bool(layers)
