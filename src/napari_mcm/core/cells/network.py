"""The classifier: an encoder and a linear layer, whatever the encoder started from."""

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
"""Of a feature, in parts of the root mean square of all features' spreads."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a classifier starts from.

    Attributes
    ----------
    encoder : Encoder
        Its module is trained in place.
    learned : bool
        Whether its weights have learned something already.
    augment : AugmentConfig or None
        What its pre-training did to images, where it tells.
    side : int
        Side of the images that go in, in pixels.
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
    """Build what a classifier starts from.

    Parameters
    ----------
    init : str
        ``scratch``, ``scratch:ENCODER``, ``mae:RUN`` or an encoder; see
        :class:`ClassifyConfig`.
    model : ModelConfig
        The ViT of ``scratch``; its image size is that of encoders of any size too.
    augment : AugmentConfig
        Its normalisation is that of ``scratch``.
    compute : ComputeConfig
    seed : int
        Of random weights.
    """
    compute = settle_training(compute)
    if init == SCRATCH:
        encoder = _fresh_vit(model, augment, compute, seed)
    elif init.startswith(SCRATCH + ":"):
        encoder = _forget(load_encoder(init.partition(":")[2], compute), seed)
    else:
        encoder = load_encoder(init.removeprefix(MAE), compute)
    learned = not init.startswith((SCRATCH, "random:"))
    if init.startswith(MAE) and "pretraining" not in encoder.recipe:
        raise ConfigError(
            "is no run of mae pretrain",
            init,
            "Give other encoders without the prefix mae:",
        )
    told = encoder.recipe.get("pretraining", {}).get("options", {}).get("augment")
    return Start(
        encoder,
        learned,
        AugmentConfig.model_validate(told) if told else None,
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
    """Give an encoder's network and preprocessing with random weights.

    A masked autoencoder's fixed positions are no learned weights: they stay.
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
    """A linear layer on features, scaled first where they are frozen.

    Parameters
    ----------
    dim : int
        Length of a feature vector.
    classes : int
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.linear = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.linear.weight, std=_HEAD_STD)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def scale_by(self, features: Tensor) -> None:
        """Scale features to the mean and spread of these (N, dim).

        A feature that hardly varies among these, a cell's edge that few images show,
        would be blown up a thousandfold where it does: it is scaled less.
        """
        spread = features.std(dim=0, correction=0)
        least = LEAST_SPREAD * spread.square().mean().sqrt()
        self.mean.copy_(features.mean(dim=0))
        self.std.copy_(spread.clamp_min(max(float(least), 1e-6)))

    def forward(self, features: Tensor) -> Tensor:
        """Give logits (B, classes) of features (B, dim)."""
        logits: Tensor = self.linear((features - self.mean) / self.std)
        return logits


class Network(nn.Module):
    """Encoder and head.

    Parameters
    ----------
    encoder : nn.Module
        A timm model without classifier.
    head : Head
    """

    def __init__(self, encoder: nn.Module, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head


def make_network(start: Start, classes: int, config: ClassifyConfig) -> Network:
    """Put a head on an encoder, and choose what learns."""
    with seeded(config.fit.seed):
        head = Head(start.encoder.dim, classes)
    network = Network(start.encoder.module, head.to(start.encoder.device))
    network.encoder.requires_grad_(config.fit.learn == "full")
    return network


def rate_groups(network: Network, fit: FitConfig, learned: bool) -> Groups:
    """Sort weights by rate and decay, for AdamW.

    timm counts the layers of its models, of ViTs as of convolutional networks: the rate
    falls by a factor from each layer to the one before it (Clark et al., ELECTRA).
    """
    head = {
        "params": list(network.head.parameters()),
        "lr": fit.peak_lr,
        "weight_decay": 0.0,
    }
    if fit.learn == "probe":
        return [head]
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
    """Let batch norms learn their statistics or not; tells whether any does."""
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    for layer in layers:
        layer.train(train)
    return train and bool(layers)
