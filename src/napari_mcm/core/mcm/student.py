"""Which weights of a student and its head are trained, how fast, and in which mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mcm.config import OptimiserConfig
from napari_mcm.core.training.trainer import Groups, decay_groups


def prepare_student(module: nn.Module, config: OptimiserConfig) -> None:
    """Choose which of a student's weights are trained.

    Parameters
    ----------
    module : nn.Module
        A timm model; its weights are made trainable, but for the stages to freeze.
    config : OptimiserConfig
        Its ``freeze_stages`` counts timm's own layer groups, the stem being the first.

    Raises
    ------
    ConfigError
        If nothing would be left to train.
    """
    module.requires_grad_(config.moves_student)
    if config.learn == "statistics":
        _forget_statistics(module)
    if not config.freeze_stages:
        return
    timm_module: Any = module
    # Coarse groups are the stem, then each stage of a CNN or block of a transformer.
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
    """Put a student in training mode, as the batch-norm policy says.

    With frozen statistics a patch's features do not depend on the patches beside it in
    the batch, and few slides cannot spoil what many photographs taught. A student that
    is not trained yet does not re-estimate its statistics either.

    Parameters
    ----------
    module : nn.Module
        The student.
    config : OptimiserConfig
        Its ``batch_norm`` and ``learn`` are the policy.
    learning : bool
        False while only the head is trained.
    """
    if config.learn == "statistics":
        # Only batch norms train: dropout would change what they average.
        module.eval()
        for layer in _batch_norms(module):
            layer.train()
        return
    module.train(learning)
    frozen = config.batch_norm == "frozen"
    for layer in _batch_norms(module):
        # A frozen stage keeps its statistics with its weights, or its features would move.
        if frozen or not _learns(layer):
            layer.eval()


def parameter_groups(
    student: nn.Module, head: nn.Module, config: OptimiserConfig
) -> Groups:
    """Group all weights that are trained by rate and decay.

    Parameters
    ----------
    student, head : nn.Module
        Weights that require no gradient are left out.
    config : OptimiserConfig
        Rates and decay.

    Returns
    -------
    list of dict
        For AdamW; ``part`` is ``student`` or ``head``, ``peak_lr`` the rate that the
        schedule scales. Biases, norms and other 1-D weights do not decay.
    """
    factor = rate_factor(config)
    parts = [("student", student, config.student_lr), ("head", head, config.head_lr)]
    return [
        {**group, "peak_lr": group["lr"], "part": part}
        for part, module, rate in parts
        for group in decay_groups(module, rate * factor, config.weight_decay)
    ]


def rate_factor(config: OptimiserConfig) -> float:
    """Return how learning rates follow the batch; the configured ones are for 64 windows.

    The square root keeps the noise that Adam adds to the weights the same (Malladi et
    al., "On the SDEs and scaling rules for adaptive gradient algorithms", NeurIPS 2022);
    the linear rule is the one for plain gradient descent.

    Parameters
    ----------
    config : OptimiserConfig
        Windows per step, and the rule.

    Returns
    -------
    float
        Factor on the configured rates.
    """
    ratio = config.batch_windows / 64
    factors = {"none": 1.0, "linear": ratio, "sqrt": float(ratio**0.5)}
    return factors[config.lr_scaling]


def _forget_statistics(module: nn.Module) -> None:
    """Let batch norms average over all batches to come, each counting the same.

    Li et al., "Adaptive batch normalization", Pattern Recognition 2018: statistics of
    the new domain take the place of the old ones', and weights stay.

    Raises
    ------
    ConfigError
        If there is no batch norm.
    """
    layers = list(_batch_norms(module))
    if not layers:
        raise ConfigError(
            "--train statistics: this student has no batch norms",
            hint="Choose another student, or another --train",
        )
    for layer in layers:
        layer.reset_running_stats()
        # None is PyTorch's cumulative average, the same for any order of the batches.
        layer.momentum = None


def _batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))


def _learns(layer: nn.Module) -> bool:
    parameters: Iterable[nn.Parameter] = layer.parameters()
    return any(p.requires_grad for p in parameters)
