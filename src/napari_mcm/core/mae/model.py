"""Masked autoencoder: a ViT that encodes few patches, a decoder that predicts the rest.

An image of N patches is shown in part: the encoder sees the K visible ones, with fixed
positions p. The decoder receives their tokens and, at the hidden places H, a learned
token m, adds its own positions q, and predicts the pixels of every patch. Targets are
the pixels of each patch, scaled to zero mean and unit variance::

    t_V = ViT(embed(x_V) + p_V)
    ŷ   = decoder( [W t_V, m, ..., m] + q )
    L   = 1 / |H| · Σ_{i in H} mean( (ŷ_i - (x_i - μ_i) / sqrt(σ_i² + 1e-6))² )

The decoder exists during pre-training only; afterwards the encoder stands alone.

References
----------
He et al., "Masked autoencoders are scalable vision learners", CVPR 2022, section 3.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mae.config import DECODERS, MaskingConfig, ModelConfig
from napari_mcm.core.mae.patches import (
    grid_positions,
    hidden_mask,
    kept_count,
    patch_statistics,
    patchify,
    take,
    with_class_token,
)

# The authors' value, and timm's for ViTs; Transformers' ViTMAE has 1e-12.
LAYER_NORM_EPS = 1e-6

TOKEN_STD = 0.02


def architecture(config: ModelConfig) -> str:
    """Return the name of the ViT in timm.

    Parameters
    ----------
    config : ModelConfig
        Size of the ViT.

    Returns
    -------
    str
        Such as ``"vit_base_patch16_224"``.
    """
    return f"vit_{config.model}_patch16_224"


def model_arguments(config: ModelConfig) -> dict[str, Any]:
    """Return the arguments of timm's factory, beside the name, that build this ViT.

    Parameters
    ----------
    config : ModelConfig
        Sizes and pooling.

    Returns
    -------
    dict of str to Any
        Keyword arguments of ``timm.create_model``.
    """
    depth = {} if config.depth is None else {"depth": config.depth}
    return {
        "img_size": config.image_size,
        "patch_size": config.vit_patch,
        "global_pool": config.pool,
        # The final norm stays before pooling, where pre-training needs it.
        "fc_norm": False,
        **depth,
    }


def make_vit(config: ModelConfig) -> nn.Module:
    """Create the ViT with random weights and fixed positions.

    Parameters
    ----------
    config : ModelConfig
        Sizes and pooling.

    Returns
    -------
    Module
        timm's VisionTransformer without a classifier.
    """
    vit: Any = timm.create_model(
        architecture(config), num_classes=0, **model_arguments(config)
    )
    set_positions(vit)
    vit.apply(_start)
    # The convolution is a linear layer on a patch's pixels: initialise it like one.
    nn.init.xavier_uniform_(vit.patch_embed.proj.weight.flatten(1))
    nn.init.normal_(vit.cls_token, std=TOKEN_STD)
    module: nn.Module = vit
    return module


def set_positions(vit: Any) -> None:
    """Set the position embeddings of a ViT with a class token to the fixed ones.

    Parameters
    ----------
    vit : VisionTransformer
        timm's model; changed in place.
    """
    side, width = vit.patch_embed.grid_size[0], vit.embed_dim
    with torch.no_grad():
        vit.pos_embed.copy_(with_class_token(grid_positions(side, width)))


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and loss of masked autoencoding.

    Parameters
    ----------
    encoder : Module
        timm's VisionTransformer with a class token; its positions are frozen here.
    size : str
        Name of the model's size, which sets the size of the decoder.
    config : MaskingConfig
        Mask ratio, targets, and a decoder of another size.

    Attributes
    ----------
    patch : int
        Side of a patch, in pixels.
    patches : int
        Number N of patches in an image.
    """

    def __init__(self, encoder: nn.Module, size: str, config: MaskingConfig) -> None:
        super().__init__()
        vit: Any = encoder
        # MAE's positions are fixed; timm makes a parameter of them.
        vit.pos_embed.requires_grad_(False)
        self.encoder, self.config = vit, config
        self.patch = int(vit.patch_embed.patch_size[0])
        self.patches = int(vit.patch_embed.num_patches)
        side = int(vit.patch_embed.grid_size[0])
        shape = decoder_shape(size, config)
        self.decoder = Decoder(int(vit.embed_dim), side, 3 * self.patch**2, *shape)

    def encode(self, images: Tensor, visible: Tensor) -> Tensor:
        """Encode some patches of each image, and nothing else of it.

        Parameters
        ----------
        images : Tensor, shape (B, 3, H, W)
            Normalised images.
        visible : Tensor of int64, shape (B, K)
            Which patches.

        Returns
        -------
        Tensor, shape (B, 1 + K, width)
            Tokens; the class token comes first.
        """
        vit: Any = self.encoder
        positions = vit.pos_embed.expand(len(images), -1, -1)  # (B, 1 + N, width)
        tokens = self._embed(images, visible) + take(positions[:, 1:], visible)
        first = vit.cls_token + positions[:, :1]  # (B, 1, width)
        tokens = torch.cat([first, tokens], dim=1)  # (B, 1 + K, width)
        encoded: Tensor = vit.norm(vit.blocks(vit.norm_pre(tokens)))
        return encoded

    def _embed(self, images: Tensor, visible: Tensor) -> Tensor:
        """Embed the visible patches: timm's convolution, without the other patches."""
        projection = self.encoder.patch_embed.proj
        # The order of values in patchify: row, column, channel.
        kernel = projection.weight.permute(0, 2, 3, 1).flatten(1)  # (width, p·p·3)
        patches = take(patchify(images, self.patch), visible)  # (B, K, p·p·3)
        return F.linear(patches, kernel, projection.bias)  # (B, K, width)

    def forward(
        self, images: Tensor, order: Tensor, mask_ratio: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict all patches of images from few of them.

        Parameters
        ----------
        images : Tensor, shape (B, 3, H, W)
            Normalised images.
        order : Tensor of int64, shape (B, N)
            Patches in random order; the first ones are visible.
        mask_ratio : float, optional
            Fraction of the patches to hide; by default the configured one.

        Returns
        -------
        predictions : Tensor, shape (B, N, patch·patch·3)
            Predicted patches, on the scale of the targets.
        mask : Tensor of float32, shape (B, N)
            1 where a patch was hidden.
        """
        ratio = self.config.mask_ratio if mask_ratio is None else mask_ratio
        kept = kept_count(self.patches, ratio)
        encoded = self.encode(images, order[:, :kept])  # (B, 1 + K, width)
        return self.decoder(encoded, order), hidden_mask(order, kept)

    def targets(self, images: Tensor) -> Tensor:
        """Return the targets of the predictions.

        Parameters
        ----------
        images : Tensor, shape (B, 3, H, W)
            Normalised images.

        Returns
        -------
        Tensor, shape (B, N, patch·patch·3)
            Pixels of each patch, scaled to zero mean and unit variance if configured.
        """
        patches = patchify(images, self.patch)
        if not self.config.norm_targets:
            return patches
        mean, std = patch_statistics(patches)
        return (patches - mean) / std  # (B, N, p·p·3)

    def errors(self, images: Tensor, predictions: Tensor) -> Tensor:
        """Return the mean squared error of each patch.

        Parameters
        ----------
        images : Tensor, shape (B, 3, H, W)
            Normalised images.
        predictions : Tensor, shape (B, N, patch·patch·3)
            Output of :meth:`forward`.

        Returns
        -------
        Tensor of float32, shape (B, N)
            Mean over the values of a patch.
        """
        # float32: squares of small differences lose their digits in bfloat16. (B, N)
        return (predictions.float() - self.targets(images)).square().mean(dim=-1)

    def loss(self, images: Tensor, predictions: Tensor, mask: Tensor) -> Tensor:
        """Return the mean error over the hidden patches only.

        Parameters
        ----------
        images : Tensor, shape (B, 3, H, W)
            Normalised images.
        predictions : Tensor, shape (B, N, patch·patch·3)
            Output of :meth:`forward`.
        mask : Tensor, shape (B, N)
            1 where a patch was hidden.

        Returns
        -------
        Tensor, shape ()
            The loss.
        """
        # The mean over all hidden patches of the batch, each with the same weight.
        return (self.errors(images, predictions) * mask).sum() / mask.sum()


class Decoder(nn.Module):
    """Light Transformer that predicts pixels from the visible tokens and a mask token.

    Parameters
    ----------
    encoder_width : int
        Width of the encoder's tokens.
    side : int
        Patches per side of the image.
    values : int
        Values of a patch, patch·patch·3.
    width, depth, heads : int
        Width, blocks and attention heads of the decoder.

    Attributes
    ----------
    positions : Tensor, shape (1, 1 + N, width)
        Fixed position embeddings; not part of the state.
    """

    positions: Tensor

    def __init__(
        self,
        encoder_width: int,
        side: int,
        values: int,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=LAYER_NORM_EPS)
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self._side = side
        self.set_positions()
        self.blocks = nn.Sequential(
            *(
                Block(width, heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm)
                for _ in range(depth)
            )
        )
        self.norm = norm(width)
        self.predict = nn.Linear(width, values)
        self.apply(_start)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def set_positions(self) -> None:
        """Compute the fixed positions, which weight files do not hold."""
        width = self.embed.out_features
        places = with_class_token(grid_positions(self._side, width))
        self.register_buffer("positions", places, persistent=False)

    def forward(self, encoded: Tensor, order: Tensor) -> Tensor:
        """Predict every patch.

        Parameters
        ----------
        encoded : Tensor, shape (B, 1 + K, encoder_width)
            The encoder's tokens; the class token comes first.
        order : Tensor of int64, shape (B, N)
            Patches in random order; the first K are the places of those tokens.

        Returns
        -------
        Tensor, shape (B, N, values)
            Predicted patches, in row-major order.
        """
        tokens = self.embed(encoded)  # (B, 1 + K, width)
        # N - K hidden patches: the encoder's tokens are K and the class token.
        missing = order.shape[1] + 1 - tokens.shape[1]
        filling = self.mask_token.to(tokens.dtype).expand(len(tokens), missing, -1)
        shuffled = torch.cat([tokens[:, 1:], filling], dim=1)  # (B, N, width)
        # The inverse of the permutation puts every token into its own place.
        restored = take(shuffled, order.argsort(dim=1))  # (B, N, width)
        tokens = torch.cat([tokens[:, :1], restored], dim=1)  # (B, 1 + N, width)
        tokens = self.norm(self.blocks(tokens + self.positions))
        predictions: Tensor = self.predict(tokens[:, 1:])  # (B, N, values)
        return predictions


def decoder_shape(size: str, config: MaskingConfig) -> tuple[int, int, int]:
    """Return the decoder's width, depth and heads.

    Parameters
    ----------
    size : str
        Name of the model's size, which gives the defaults.
    config : MaskingConfig
        May override them.

    Returns
    -------
    tuple of int
        Width, depth, heads.

    Raises
    ------
    ConfigError
        If the width is not a multiple of 4 and of the number of heads.
    """
    width, depth, heads = DECODERS[size]
    width = config.decoder_width or width
    heads = config.decoder_heads or heads
    if width % heads or width % 4:
        raise ConfigError(
            f"a decoder of width {width} does not divide into {heads} heads and four "
            "position waves",
            hint="Choose --decoder-width as a multiple of 4 and of --decoder-heads",
        )
    return width, config.decoder_depth or depth, heads


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
