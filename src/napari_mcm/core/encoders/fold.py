"""Folding batch norm into the convolution before it, for inference."""

from __future__ import annotations

import copy

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Copy a model for inference, with batch norms folded where that is possible.

    In evaluation a batch norm is a scale and a shift, which the convolution before it
    can do as well. What that saves is memory traffic: half a small CNN's time on a CPU.

    Parameters
    ----------
    module : nn.Module
        It is left as it is.

    Returns
    -------
    nn.Module
        In evaluation mode; the same function up to rounding.
    """
    folded = copy.deepcopy(module).eval().requires_grad_(False)
    try:
        graph = _Tracer().trace(folded)
    # Models with control flow cannot be traced; they run as they are.
    except Exception:  # noqa: BLE001
        return folded
    modules = dict(folded.named_modules())
    for node in graph.nodes:
        pair = _conv_and_norm(node, modules)
        if pair is not None:
            _fold(folded, node.target, *pair)
    return folded


class _Tracer(fx.Tracer):
    """Keeps convolutions and batch norms whole, timm's own kinds included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm2d | nn.Conv2d) or super().is_leaf_module(
            m, module_qualified_name
        )


def _conv_and_norm(
    node: fx.Node, modules: dict[str, nn.Module]
) -> tuple[nn.Conv2d, nn.BatchNorm2d] | None:
    """Find a convolution whose only use is the batch norm at this node."""
    norm = modules.get(str(node.target)) if node.op == "call_module" else None
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        return None
    before = node.args[0] if node.args else None
    if not isinstance(before, fx.Node) or before.op != "call_module":
        return None
    conv = modules.get(str(before.target))
    if not isinstance(conv, nn.Conv2d) or len(before.users) != 1:
        return None
    return conv, norm


def _fold(root: nn.Module, name: object, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    # timm's batch norms may hold an activation, which stays.
    rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
    parent, _, child = str(name).rpartition(".")
    replacement = nn.Sequential(*rest) if rest else nn.Identity()
    setattr(root.get_submodule(parent), child, replacement)
