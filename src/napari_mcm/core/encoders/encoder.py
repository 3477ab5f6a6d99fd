"""The noun `Encoder`: pixels of patches become feature vectors."""

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
    """A patch encoder. Made by :func:`load_encoder`.

    Attributes
    ----------
    module : nn.Module
        A timm model without classifier: (B, 3, H, W) to (B, dim). A training may
        change it; :meth:`encode` follows.
    architecture : str
        Its name in timm.
    spec : str
        What the user called it.
    dim : int
        Length of a feature vector.
    mean, std : tuple of float
        Preprocessing of the weights' own configuration, for pixels from 0 to 1.
    input_size : int or None
        Side that patches are resized to, in pixels; None where they go in as they are.
    fingerprint : str
        Hash of weights and preprocessing as loaded, 16 hex digits.
    recipe : dict
        Architecture, preprocessing, source of the weights, licence; ready for JSON.
    device : torch.device
        Where it computes.
    dtype : torch.dtype
        In what it computes; the module's own weights are float32.
    compile : bool
        Whether it is compiled for speed; see :meth:`compiled`.
    auto_precision : bool
        Whether the precision was left to be chosen: a file that was begun in another
        one is then continued in its own.
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
        """The number format it computes in, ``float32`` or ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def chunk(self) -> int:
        """Patches that are computed at a time, whatever the batch."""
        return max(self._planned_chunk >> len(self._halvings), 1)

    @cached_property
    def _planned_chunk(self) -> int:
        if self.device.type != "cpu":
            return _GPU_CHUNK
        # One patch through a large model keeps a CPU busy, and for long enough.
        weights = sum(parameter.numel() for parameter in self.module.parameters())
        return _CPU_CHUNK if weights < _LARGE else 1

    def describe(self) -> dict[str, Any]:
        """Give its recipe, fingerprint and precision, ready for JSON."""
        return {
            **self.recipe,
            "spec": self.spec,
            "dim": self.dim,
            "fingerprint": self.fingerprint,
            "precision": self.precision,
        }

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn pixels into the module's input.

        Parameters
        ----------
        pixels : Tensor of uint8, shape (B, H, W, 3)
            Patches.

        Returns
        -------
        Tensor of float32, shape (B, 3, H', W')
            In channels-last layout, on the device; resized if the size is fixed.
        """
        images = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        side = self.input_size
        if side is not None and images.shape[2:] != (side, side):
            mode = self.recipe["preprocessing"]["interpolation"]
            images = F.interpolate(images, (side, side), mode=mode, antialias=True)
            images = images.clamp_(0, 255)
        mean, std = (
            torch.tensor(values, device=self.device).reshape(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        images = images.sub_(255 * mean).div_(255 * std)
        return images.contiguous(memory_format=torch.channels_last)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the features of patches.

        A patch's features do not depend on the batch that it comes in.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (B, H, W, 3)
            Patches, all of one size.

        Returns
        -------
        ndarray of float32, shape (B, dim)

        Raises
        ------
        WeightsError
            If a feature is not a finite number.
        """
        features = np.empty((len(pixels), self.dim), np.float32)
        start = 0
        while start < len(pixels):
            part = pixels[start : start + self.chunk]
            try:
                features[start : start + len(part)] = self._encode_chunk(part)
            except torch.OutOfMemoryError as error:
                self._take_less(error)
                continue
            start += len(part)
        if not np.isfinite(features).all():
            raise WeightsError(
                f"gives features that are not finite in {self.precision}",
                self.spec,
                "Try --precision float32; if it stays so, the weights are damaged",
            )
        return features

    def in_precision(self, precision: str) -> Encoder:
        """Give the same encoder, with the same module, in another precision.

        Parameters
        ----------
        precision : {"float32", "bfloat16"}
            The number format.
        """
        if precision == self.precision:
            return self
        if precision not in self._others:
            dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
            self._others[precision] = replace(self, dtype=dtype, precision_note="")
        return self._others[precision]

    def compiled(self) -> tuple[Encoder, str]:
        """Give an encoder that is compiled for this machine, where that is possible.

        Compiling takes seconds, and less the second time. Features agree with those of
        the encoder as it is to rounding errors.

        Returns
        -------
        encoder : Encoder
            This one where nothing came of it.
        problem : str
            Why nothing came of it; "" where all is well.
        """
        if self.compile:
            return self, ""
        faster = replace(self, compile=True)
        # It tells everybody without a GPU that there is none.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        side = self.input_size or 224
        try:
            faster.encode(np.zeros((1, side, side, 3), np.uint8))
        # Compilers are missing, too old or of another opinion, each in its own way.
        except Exception as error:  # noqa: BLE001
            reason = str(error).strip().splitlines() or [type(error).__name__]
            return self, reason[0][:200]
        return faster, ""

    def _take_less(self, error: torch.OutOfMemoryError) -> None:
        """Halve what is computed at a time, for good."""
        if self.chunk == 1:
            raise WeightsError(
                f"does not fit into the memory of {self.device}, even a patch at a time",
                self.spec,
                "Use a smaller encoder, or --device cpu",
            ) from error
        self._halvings.append(None)
        torch.cuda.empty_cache()

    def _encode_chunk(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Libraries choose their algorithm by the batch's size, and each rounds in its
        # own way: the size is always the same, so that a patch gets the same bits.
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
                # From pinned memory a copy runs beside what is being computed.
                raw = raw.pin_memory()
            images = self.normalise(raw)
            features: Tensor = module(images)
        return features[:count].float().cpu().numpy()

    def _inference_module(self) -> Any:
        """Give a copy made for speed, made again whenever the weights have changed."""
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
            # Norms, positions and the residual path stay float32, as autocast has them:
            # without that, a ViT's features differ far more, and hardly any faster.
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(self.dtype)
        fast = to_channels_last(fast)
        if not self.compile:
            return fast
        # Frozen weights are laid out once as the compiled code wants them.
        return torch.compile(fast, dynamic=False, options={"freezing": True})


def to_channels_last(module: nn.Module) -> nn.Module:
    """Lay a model's weights out as convolutions compute fastest."""
    return module.to(memory_format=torch.channels_last)


# Not subclasses at large: some standardise their weights anew in each forward pass.
_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)

_TOLERANCE = 1e-4


def fold_batch_norms(module: nn.Module, example: Tensor) -> nn.Module:
    """Copy a model for inference, with batch norms folded into convolutions.

    In eval mode a batch norm is a fixed scale and shift a channel, which the
    convolution before it can apply for nothing. Which norm follows which convolution
    is seen in a forward pass, so that any architecture will do.

    Parameters
    ----------
    module : nn.Module
        A model; it is not changed.
    example : Tensor, shape (B, 3, H, W)
        Input to try it on, on the model's device.

    Returns
    -------
    nn.Module
        A copy in eval mode whose output is the same to 1e-4 of its range; without any
        folding where that would not hold.
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
    """Name each convolution whose output goes, as it is, into a batch norm."""
    outputs: dict[int, tuple[str, Tensor]] = {}
    pairs: list[tuple[str, str]] = []
    calls: list[str] = []
    hooks = []

    def watch(name: str, layer: nn.Module) -> None:
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
            watch(name, layer)
    try:
        module(example)
    finally:
        for hook in hooks:
            hook.remove()
    # A layer that is used twice would have to be folded two ways at once.
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
