"""Faster inference: batch norms folded into the convolutions before them."""

from __future__ import annotations

import copy

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

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
