"""The `Encoder`, which maps the pixels of patches to feature vectors."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from napari_mcm.core.errors import WeightsError

_CPU_CHUNK, _GPU_CHUNK = 8, 32

_LARGE = 40_000_000


@dataclass(frozen=True, eq=False)
class Encoder:
    """A patch encoder with its preprocessing, device and precision.

    :func:`load_encoder` makes one.

    Attributes
    ----------
    module : nn.Module
        A timm model without classifier, (B, 3, H, W) to (B, dim). A training may
        change its weights; :meth:`encode` uses the current ones.
    architecture : str
        Name of the model in timm.
    spec : str
        The encoder as the user named it.
    dim : int
        Length of a feature vector.
    mean, std : tuple of float
        Preprocessing of the weights' own configuration, per channel, for pixels
        from 0 to 1.
    input_size : int or None
        Side that patches are resized to, in pixels; None where they are not resized.
    fingerprint : str
        Hash of weights and preprocessing as loaded, 16 hex digits.
    recipe : dict
        Architecture, preprocessing, source of the weights and licence, as JSON types.
    device : torch.device
        Device that computes.
    dtype : torch.dtype
        Type that it computes in; the module's own weights are float32.
    compile : bool
        Whether it is compiled for speed; see :meth:`compiled`.
    auto_precision : bool
        Whether the precision was chosen automatically: an interrupted feature file
        in another precision is then resumed in that one.
    precision_note : str
        Why it computes in this precision, in one line; "" where nothing was measured.
    """

    module: nn.Module
    architecture: str
    spec: str
    dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: int | None
    fingerprint: str
    recipe: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    compile: bool = False
    auto_precision: bool = False
    precision_note: str = ""
    _fast: dict[int, Any] = field(default_factory=dict, init=False, repr=False)
    _halvings: list[None] = field(default_factory=list, init=False, repr=False)
    _others: dict[str, Encoder] = field(default_factory=dict, init=False, repr=False)

    @property
    def precision(self) -> str:
        """Return the number format it computes in.

        Returns
        -------
        str
            ``float32`` or ``bfloat16``.
        """
        return str(self.dtype).removeprefix("torch.")

    @property
    def chunk(self) -> int:
        """Return the number of patches per forward pass.

        It does not depend on the batch, and halves when memory runs out.

        Returns
        -------
        int
            At least 1.
        """
        return max(self._planned_chunk >> len(self._halvings), 1)

    @cached_property
    def _planned_chunk(self) -> int:
        if self.device.type != "cpu":
            return _GPU_CHUNK
        # A single patch keeps a CPU busy in a large model; more only delay a cancel.
        weights = sum(parameter.numel() for parameter in self.module.parameters())
        return _CPU_CHUNK if weights < _LARGE else 1

    def describe(self) -> dict[str, Any]:
        """Return the recipe, fingerprint and precision for metadata.

        Returns
        -------
        dict
            JSON types only.
        """
        return {
            **self.recipe,
            "spec": self.spec,
            "dim": self.dim,
            "fingerprint": self.fingerprint,
            "precision": self.precision,
        }

    def normalise(self, pixels: Tensor) -> Tensor:
        """Convert 8-bit pixels to the module's normalised input.

        Parameters
        ----------
        pixels : Tensor of uint8, shape (B, H, W, 3)
            RGB patches.

        Returns
        -------
        Tensor of float32, shape (B, 3, H', W')
            On the device, in channels-last layout; H' and W' equal `input_size` where
            that is set, else H and W.
        """
        # (B, H, W, 3) -> (B, 3, H, W)
        images = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        side = self.input_size
        if side is not None and images.shape[2:] != (side, side):
            mode = self.recipe["preprocessing"]["interpolation"]
            images = F.interpolate(images, (side, side), mode=mode, antialias=True)
            # (B, 3, H', W'); bicubic interpolation overshoots at edges
            images = images.clamp_(0, 255)
        mean, std = (
            torch.tensor(values, device=self.device).reshape(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        # (x / 255 - mean) / std in two passes over the memory, both in place
        images = images.sub_(255 * mean).div_(255 * std)
        return images.contiguous(memory_format=torch.channels_last)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the features of patches.

        A patch's features do not depend on the batch that contains it.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (B, H, W, 3)
            RGB patches, all of one size.

        Returns
        -------
        ndarray of float32, shape (B, dim)
            One row per patch.

        Raises
        ------
        WeightsError
            If a feature is not finite, or one patch does not fit into memory.
        """
        features = np.empty((len(pixels), self.dim), np.float32)
        start = 0
        while start < len(pixels):
            part = pixels[start : start + self.chunk]
            try:
                features[start : start + len(part)] = self._encode_chunk(part)
            except torch.OutOfMemoryError as error:
                self._halve_chunk(error)
                continue
            start += len(part)
        if not np.isfinite(features).all():
            raise WeightsError(
                f"features are not finite in {self.precision}",
                self.spec,
                "Try --precision float32; if that does not help, the weights are damaged",
            )
        return features

    def in_precision(self, precision: str) -> Encoder:
        """Return the same encoder, with the same module, in another precision.

        Parameters
        ----------
        precision : {"float32", "bfloat16"}
            The number format.

        Returns
        -------
        Encoder
            This encoder where it already computes in that precision.
        """
        if precision == self.precision:
            return self
        if precision not in self._others:
            dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
            self._others[precision] = replace(self, dtype=dtype, precision_note="")
        return self._others[precision]

    def compiled(self) -> tuple[Encoder, str]:
        """Return this encoder compiled for this machine, if that is possible.

        Compiling takes seconds the first time and less later. Features agree with those
        of the encoder that is not compiled up to rounding errors.

        Returns
        -------
        encoder : Encoder
            This encoder where it cannot be compiled.
        problem : str
            Why it cannot be compiled; "" where it is.
        """
        if self.compile:
            return self, ""
        faster = replace(self, compile=True)
        # This logger warns on every machine that has no GPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        side = self.input_size or 224
        try:
            faster.encode(np.zeros((1, side, side, 3), np.uint8))
        # A missing or old compiler fails with any kind of exception.
        except Exception as error:  # noqa: BLE001
            reason = str(error).strip().splitlines() or [type(error).__name__]
            return self, reason[0][:200]
        return faster, ""

    def _halve_chunk(self, error: torch.OutOfMemoryError) -> None:
        """Halve the patches per forward pass for the rest of the session.

        Raises
        ------
        WeightsError
            If it is one patch already.
        """
        if self.chunk == 1:
            raise WeightsError(
                f"does not fit into the memory of {self.device}, even for one patch",
                self.spec,
                "Use a smaller encoder, or --device cpu",
            ) from error
        self._halvings.append(None)
        torch.cuda.empty_cache()

    def _encode_chunk(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Libraries choose their algorithm by the batch size, and each rounds
        # differently. A constant size gives a patch the same bits in every batch.
        count = len(pixels)
        if count < self.chunk:
            filling = np.repeat(pixels[:1], self.chunk - count, axis=0)
            pixels = np.concatenate([pixels, filling])
        module = self._inference_module()
        mixed = self.dtype != torch.float32
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=mixed),
        ):
            raw = torch.from_numpy(np.ascontiguousarray(pixels))
            if self.device.type == "cuda":
                # From pinned memory the copy overlaps with the computation.
                raw = raw.pin_memory()
            images = self.normalise(raw)  # (B, 3, H', W')
            features: Tensor = module(images)  # (B, dim)
        return features[:count].float().cpu().numpy()

    def _inference_module(self) -> Any:
        """Return a copy made for speed, and renew it when the weights have changed."""
        tensors = chain(self.module.parameters(), self.module.buffers())
        version = hash(tuple((id(tensor), tensor._version) for tensor in tensors))
        if version not in self._fast:
            self._fast.clear()
            self._fast[version] = self._make_fast()
        return self._fast[version]

    def _make_fast(self) -> Any:
        side = self.input_size or 128
        noise = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
        example = self.normalise(torch.from_numpy(noise))
        fast = fold_batch_norms(self.module, example)
        for layer in fast.modules():
            # Norms, positions and the residual path stay float32, as in autocast:
            # otherwise a ViT's features differ far more, for hardly any speed.
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(self.dtype)
        fast = to_channels_last(fast)
        if not self.compile:
            return fast
        # Frozen weights are laid out once, in the order the compiled code reads.
        return torch.compile(fast, dynamic=False, options={"freezing": True})


def to_channels_last(module: nn.Module) -> nn.Module:
    """Lay out a model's weights channels last, which convolutions compute fastest.

    Parameters
    ----------
    module : nn.Module
        Any model; it is changed in place.

    Returns
    -------
    nn.Module
        The same model.
    """
    return module.to(memory_format=torch.channels_last)


# No other subclasses: some standardise their weights in every forward pass.
_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)

_TOLERANCE = 1e-4


def fold_batch_norms(module: nn.Module, example: Tensor) -> nn.Module:
    """Copy a model for inference, with batch norms folded into convolutions.

    In eval mode a batch norm is a fixed scale and shift per channel, which the
    convolution before it can apply at no cost. A forward pass shows which norm follows
    which convolution, so that any architecture works.

    Parameters
    ----------
    module : nn.Module
        A model; it is not changed.
    example : Tensor, shape (B, 3, H, W)
        Normalised input for the comparison, on the model's device.

    Returns
    -------
    nn.Module
        A copy in eval mode whose output agrees to 1e-4 of its largest value; nothing is
        folded where it would not agree.
    """
    plain = copy.deepcopy(module).eval().requires_grad_(False)
    folded = copy.deepcopy(plain)
    with torch.inference_mode(False), torch.no_grad():
        expected = plain(example)
        pairs = _follow(folded, example)
        if not pairs:
            return plain
        for convolution, norm in pairs:
            _fold(folded, convolution, norm)
        difference = (folded(example) - expected).abs().max()
    same = difference <= _TOLERANCE * expected.abs().max()
    return folded if bool(same) else plain


def _follow(module: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """List each convolution whose output goes unchanged into a batch norm."""
    outputs: dict[int, tuple[str, Tensor]] = {}
    pairs: list[tuple[str, str]] = []
    calls: list[str] = []
    hooks = []

    def record(name: str, layer: nn.Module) -> None:
        def after(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls.append(name)
            if type(layer) in _CONVOLUTIONS:
                # Kept alive, so that no later tensor has the same identity.
                outputs[id(output)] = (name, output)
            elif id(inputs[0]) in outputs:
                pairs.append((outputs[id(inputs[0])][0], name))

        hooks.append(layer.register_forward_hook(after))

    for name, layer in module.named_modules():
        if type(layer) in _CONVOLUTIONS or _foldable(layer):
            record(name, layer)
    try:
        module(example)
    finally:
        for hook in hooks:
            hook.remove()
    # A layer that is used twice would need two different foldings.
    return [pair for pair in pairs if all(calls.count(name) == 1 for name in pair)]


def _foldable(layer: nn.Module) -> bool:
    known = type(layer) in (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d)
    return known and isinstance(layer, _BatchNorm) and layer.running_mean is not None


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = module.get_submodule(convolution), module.get_submodule(norm)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(bn, _BatchNorm)
    assert bn.running_mean is not None and bn.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        bn.running_mean,
        bn.running_var,
        bn.eps,
        bn.weight,
        bn.bias,
    )
    rest = bn.act if isinstance(bn, BatchNormAct2d) else nn.Identity()
    parent, _, child = norm.rpartition(".")
    setattr(module.get_submodule(parent), child, rest)
