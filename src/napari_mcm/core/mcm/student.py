"""What of the student learns, and at which rates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mcm.config import OptimiserConfig

ParameterGroup = dict[str, object]


def prepare_student(module: nn.Module, config: OptimiserConfig) -> None:
    """Choose which of a student's weights learn.

    Parameters
    ----------
    module : nn.Module
        A timm model; its weights are made trainable, but for the stages to freeze.
    config : OptimiserConfig
        Its ``freeze_stages`` counts timm's own layer groups, the stem being the first.

    Raises
    ------
    ConfigError
        If nothing would be left to learn.
    """
    module.requires_grad_(config.moves_student)
    if config.learn == "statistics":
        _forget_statistics(module)
    if not config.freeze_stages:
        return
    timm_module: Any = module
    matcher = timm_module.group_matcher(coarse=True)
    groups = group_parameters(module, matcher)
    if config.freeze_stages >= len(groups):
        raise ConfigError(
            f"--freeze-stages {config.freeze_stages} leaves nothing to learn: this "
            f"student has {len(groups)} groups of layers"
        )
    parameters = dict(module.named_parameters())
    for number in sorted(groups)[: config.freeze_stages]:
        for name in groups[number]:
            parameters[name].requires_grad_(False)


def set_mode(module: nn.Module, config: OptimiserConfig, learning: bool) -> None:
    """Put a student in training mode, as the batch-norm policy has it.

    With frozen statistics a patch's features do not depend on the patches beside it in
    the batch, and few slides cannot spoil what many photographs taught. A student that
    does not learn yet does not re-estimate its statistics either.
    """
    if config.learn == "statistics":
        module.eval()
        for layer in _batch_norms(module):
            layer.train()
        return
    module.train(learning)
    frozen = config.batch_norm == "frozen"
    for layer in _batch_norms(module):
        if frozen or not _learns(layer):
            layer.eval()


def parameter_groups(
    student: nn.Module, head: nn.Module, config: OptimiserConfig
) -> list[ParameterGroup]:
    """Sort all weights that learn by rate and decay.

    Returns
    -------
    list of dict
        For AdamW; ``part`` says whether it is the student's or the head's. Biases, norms
        and other 1-D weights do not decay.
    """
    rates = {"student": config.student_lr, "head": config.head_lr}
    factor = rate_factor(config)
    groups: list[ParameterGroup] = []
    for part, module in (("student", student), ("head", head)):
        learning = [p for p in module.parameters() if p.requires_grad]
        for flat in (False, True):
            chosen = [p for p in learning if (p.ndim <= 1) == flat]
            decay = 0.0 if flat else config.weight_decay
            rate = rates[part] * factor
            groups.append(
                {
                    "params": chosen,
                    "weight_decay": decay,
                    "lr": rate,
                    "peak_lr": rate,
                    "part": part,
                }
            )
    return [group for group in groups if group["params"]]


def rate_factor(config: OptimiserConfig) -> float:
    """Tell how learning rates follow the batch; the configured ones are for 64 windows.

    The square root keeps the noise that Adam adds to the weights the same (Malladi et
    al., 2022); the linear rule is the one for plain gradient descent.
    """
    ratio = config.batch_windows / 64
    factors = {"none": 1.0, "linear": ratio, "sqrt": float(ratio**0.5)}
    return factors[config.lr_scaling]


def _forget_statistics(module: nn.Module) -> None:
    """Let batch norms average over all batches to come, each counting the same.

    Li et al., "Adaptive batch normalization", Pattern Recognition 2018: statistics of
    the new domain take the place of the old ones', and weights stay.
    """
    layers = list(_batch_norms(module))
    if not layers:
        raise ConfigError(
            "--learn statistics: this student has no batch norms",
            hint="Choose another student, or another --learn",
        )
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None


def _batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))


def _learns(layer: nn.Module) -> bool:
    parameters: Iterable[nn.Parameter] = layer.parameters()
    return any(p.requires_grad for p in parameters)
