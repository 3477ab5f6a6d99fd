"""The step of MCM-KD: student, frozen teacher, head, and one update of their weights.

The student f encodes the visible patches of the windows W, the head h predicts the
teacher's features t(x) of the masked ones M from them, and both are moved along the
gradient of the mean over all masked patches of the step, whatever the chunks::

    L = 1 / Σ_W |M_W| · Σ_W Σ_{i in M_W} | h(f(x_visible))_i - t(x_i) |_1
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_mcm.core.encoders import Encoder
from napari_mcm.core.encoders.seeding import seeded
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mcm.config import FinetuneConfig, OptimiserConfig
from napari_mcm.core.mcm.model import ContextModel, PatchModel, Target
from napari_mcm.core.mcm.teacher import TeacherCache
from napari_mcm.core.mcm.windows import Window
from napari_mcm.core.training.distributed import DistributedContext
from napari_mcm.core.training.monitor import effective_rank
from napari_mcm.core.training.trainer import (
    ChunkSums,
    Groups,
    Trainer,
    by_prefix,
    decay_groups,
)

CPU_CHUNK = 1


@dataclass(frozen=True, slots=True)
class StepFigures:
    """Metrics of one step.

    Attributes
    ----------
    loss : float
        Mean over the predicted patches; NaN where only batch-norm statistics move.
    cosine : float
        Mean cosine similarity of predictions and targets, likewise.
    feature_std, feature_rank : float
        Spread and effective rank of the student's features, which fall where they
        collapse; of several processes, of the first one's patches.
    grad_norm : float
        Norm of the gradient before it is clipped.
    """

    loss: float
    cosine: float
    feature_std: float
    feature_rank: float
    grad_norm: float


class McmTrainer(Trainer):
    """Train a student and its head to predict the features of a teacher.

    Parameters
    ----------
    student : Encoder
        Its module is trained in place.
    teacher : Encoder
        Frozen: it only ever encodes.
    config : FinetuneConfig
        Options of the method.
    team : DistributedContext, optional
        The processes that train together; by default this one alone.
    cache : TeacherCache, optional
        Keeps the teacher's features between runs.

    Attributes
    ----------
    head : ContextModel or PatchModel
        Predicts the teacher's features.
    target : Target
        Scales them, and measures the loss.
    by_itself : bool
        Whether each patch is predicted from itself, without context.
    adapts_only : bool
        Whether nothing but batch-norm statistics moves.
    """

    def __init__(
        self,
        student: Encoder,
        teacher: Encoder,
        config: FinetuneConfig,
        team: DistributedContext | None = None,
        cache: TeacherCache | None = None,
    ) -> None:
        self.student, self.teacher, self.config = student, teacher, config
        self.cache = cache or TeacherCache(0)
        self.target = Target(config.target)
        self.by_itself = config.context.context_mode == "none"
        self.adapts_only = config.optimiser.learn == "statistics"
        prepare_student(student.module, config.optimiser)
        kind = PatchModel if self.by_itself else ContextModel
        with seeded(config.optimiser.seed):
            head = kind(student.dim, teacher.dim, config.context)
        self.head = head.to(student.device)
        groups = parameter_groups(student.module, self.head, config.optimiser)
        super().__init__(
            {"student": student.module, "head": self.head},
            torch.optim.AdamW(groups, betas=(0.9, 0.999)),
            config.optimiser.clip_norm,
            student.device,
            team,
        )
        # Batch-norm statistics that are learned move with every forward pass.
        self.moves_in_forward = config.optimiser.batch_norm != "frozen"

    @property
    def precision(self) -> dict[str, str]:
        """The number formats of student and teacher, by role."""
        pair = {"student": self.student, "teacher": self.teacher}
        return {name: encoder.precision for name, encoder in pair.items()}

    def compute_in(self, precision: Mapping[str, str]) -> None:
        """Compute as an interrupted run did, whatever ``auto`` means on this machine.

        Parameters
        ----------
        precision : mapping of str to str
            As :attr:`precision` returned it.
        """
        if self.student.auto_precision:
            self.student = self.student.in_precision(precision["student"])
        if self.teacher.auto_precision:
            self.teacher = self.teacher.in_precision(precision["teacher"])

    def step(
        self, windows: Sequence[Window], factor: float, learning: bool, seed: int
    ) -> Generator[None, None, StepFigures]:
        """Take one optimiser step over some windows, a chunk of them at a time.

        Parameters
        ----------
        windows : sequence of Window
            This process' part of the batch; it may be empty where others' are not.
        factor : float
            The schedule's factor on all learning rates.
        learning : bool
            False while only the head is trained.
        seed : int
            Seed of dropout, where there is any.

        Yields
        ------
        None
            Twice per chunk; a cancel is acted on here.

        Returns
        -------
        StepFigures
            Metrics of the step.
        """
        set_mode(self.student.module, self.config.optimiser, learning)
        self.head.train()
        own = sum(int(self._taught(window).sum()) for window in windows)
        count = int(self.team.total(torch.tensor([own], dtype=torch.float64)))
        features: list[Tensor] = []
        chunks = (
            self._learn_from(
                chunk,
                count,
                learning,
                seed + number * self.team.size + self.team.rank,
                features,
            )
            for number, chunk in enumerate(self._chunks(windows))
        )
        sums = yield from self.sum_gradients(chunks)
        norm = self._update(factor, learning)
        own_sums = [sums.get(name, 0.0) for name in ("loss", "cosine")]
        total = self.team.total(torch.tensor(own_sums, dtype=torch.float64))
        loss, cosine = (float(s) for s in total / max(count, 1))
        return StepFigures(loss, cosine, *_gauges(features), norm)

    def _chunks(self, windows: Sequence[Window]) -> list[Sequence[Window]]:
        given = self.config.chunk_windows
        # Statistics of a batch norm are those of a whole step, not of one window.
        small = self.device.type == "cpu" and not self.adapts_only
        auto = CPU_CHUNK if small else max(len(windows), 1)
        size = auto if given == "auto" else given
        return [windows[i : i + size] for i in range(0, len(windows), size)]

    def _learn_from(
        self,
        windows: Sequence[Window],
        count: int,
        learning: bool,
        seed: int,
        features: list[Tensor],
    ) -> ChunkSums:
        """Add one chunk's gradient and features; return sums of loss and cosine."""
        targets = None if self.adapts_only else self.targets_of(windows)
        yield
        sums = {"loss": float("nan"), "cosine": float("nan")}
        with self._seeding.seed(seed, learning):
            if targets is None:
                features.append(self._see(windows, False))
            else:
                seen, predictions = self.predict(windows, learning)
                loss = self.target.loss(predictions, targets)
                # The whole step's mean, whatever the chunks and whoever computes them.
                (loss / count).backward()
                with torch.no_grad():
                    cosine = F.cosine_similarity(predictions, targets, dim=1).sum()
                sums = {"loss": float(loss.detach()), "cosine": float(cosine)}
                features.append(seen.detach())
        yield
        return sums

    def predict(
        self, windows: Sequence[Window], learning: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Encode the visible patches and predict the teacher's features.

        Masked pixels never enter: their features would be replaced by the mask token,
        so the student is not run on them at all, which halves its cost.

        Returns
        -------
        tuple of Tensor
            The student's features (V, student_dim); predictions (M, teacher_dim) for the
            masked patches, or without context (V, teacher_dim) for the visible ones.
        """
        device = self.student.device
        visible = torch.from_numpy(np.stack([w.visible for w in windows])).to(device)
        masked = torch.from_numpy(np.stack([w.masked for w in windows])).to(device)
        with self._autocast():
            features = self._see(windows, learning)
            predictions: Tensor = self.head(features, visible, masked)
        return features.float(), predictions.float()

    def _see(self, windows: Sequence[Window], learning: bool) -> Tensor:
        pixels = np.concatenate([w.visible_pixels for w in windows])
        with (
            self._autocast(),
            torch.set_grad_enabled(learning and torch.is_grad_enabled()),
        ):
            images = self.student.normalise(torch.from_numpy(pixels))
            features: Tensor = self.student.module(images)
        return features

    def _autocast(self) -> torch.autocast:
        mixed = self.student.dtype != torch.float32
        return torch.autocast(self.student.device.type, torch.bfloat16, enabled=mixed)

    def _taught(self, window: Window) -> NDArray[np.bool_]:
        """Tell whose features are predicted: masked patches, or those that are seen."""
        return window.visible if self.by_itself else window.masked

    def targets_of(self, windows: Sequence[Window]) -> Tensor:
        """Encode by the teacher what is to be predicted, and scale it."""
        return self.target.scale(self._teach(windows))

    def _teach(self, windows: Sequence[Window]) -> Tensor:
        part_of = _visible if self.by_itself else _masked
        parts = [part_of(window) for window in windows]
        pixels = np.concatenate([part for part, _ in parts])
        # All of them have keys, or none has.
        return self._encode_by_teacher(pixels, [k for _, keys in parts for k in keys])

    def _encode_by_teacher(
        self, pixels: NDArray[np.uint8], keys: Sequence[bytes]
    ) -> Tensor:
        features = self.cache.encode(self.teacher, pixels, keys)
        return torch.from_numpy(features).to(self.student.device)

    def encode_by_both(
        self, pixels: NDArray[np.uint8], keys: Sequence[bytes]
    ) -> tuple[Tensor, Tensor]:
        """Encode patches by the student as it is, and by the teacher, unscaled."""
        self.student.module.eval()
        seen = self.cache.encode(self.student, pixels, keys)
        return torch.from_numpy(seen), self._encode_by_teacher(pixels, keys)

    def head_loss(
        self,
        features: Tensor,
        visible: NDArray[np.bool_],
        masked: NDArray[np.bool_],
        taught: Tensor,
    ) -> Tensor:
        """Give the head's mean loss on features of the student that are known.

        Parameters
        ----------
        features : Tensor, shape (V, student_dim)
            Of the visible patches, window by window.
        visible, masked : ndarray of bool, shape (W, n)
            Where they belong, and which places to predict.
        taught : Tensor, shape (M, teacher_dim)
            The teacher's features of what is predicted, unscaled.
        """
        device = self.student.device
        places = (torch.from_numpy(where).to(device) for where in (visible, masked))
        with self._autocast():
            predictions = self.head(features.to(device), *places).float()
        targets = self.target.scale(taught.to(device))
        return self.target.loss(predictions, targets) / len(targets)

    def visible_targets(self, window: Window) -> Tensor:
        """Encode a window's visible patches by the teacher, scaled as targets are."""
        return self.target.scale(self._encode_by_teacher(*_visible(window)))

    @torch.no_grad()
    def judge(self, window: Window, targets: Tensor) -> Tensor:
        """Predict a window without learning from it: sums of loss and cosine."""
        self.student.module.eval()
        self.head.eval()
        _, predictions = self.predict([window])
        cosine = F.cosine_similarity(predictions, targets, dim=1).sum()
        return torch.stack([self.target.loss(predictions, targets), cosine]).double()

    def _update(self, factor: float, learning: bool) -> float:
        if self.adapts_only:
            return 0.0
        return self.move_weights(factor, idle=None if learning else "student")

    def measure_targets(self, windows: Iterable[Window]) -> Generator[None, None, None]:
        """Look at some windows' targets before the first step.

        Takes the statistics that scaled targets need, and lets the predictions begin at
        the targets' median. That is the best constant under an l1 loss: a short run need
        not spend its steps on finding it. Yields after each window.
        """
        if self.adapts_only:
            return
        parts: list[Tensor] = []
        for window in windows:
            parts.append(self._teach([window]))
            yield
        features = torch.cat(parts)
        self.target = self.target.measured(features)
        if self.config.target.start_at_median:
            constant = self.target.scale(features).median(dim=0).values
            self.head.predictor.begin_at(constant)

    def state(self) -> dict[str, Tensor]:
        """Collect all tensors from which the training can resume.

        Returns
        -------
        dict of str to Tensor
            Weights, moments of the optimiser and statistics of the targets, by name.
        """
        statistics = self.target.statistics()
        return super().state() | {f"target/{k}": t for k, t in statistics.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the tensors of a checkpoint.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            As :meth:`state` returned them.
        """
        super().load_state(tensors)
        saved = by_prefix(tensors).get("target", {})
        statistics = {k: t.to(self.device) for k, t in saved.items()}
        self.target = Target(self.config.target, **statistics)


def _visible(window: Window) -> tuple[NDArray[np.uint8], tuple[bytes, ...]]:
    return window.visible_pixels, window.visible_keys


def _masked(window: Window) -> tuple[NDArray[np.uint8], tuple[bytes, ...]]:
    return window.masked_pixels, window.masked_keys


def _gauges(features: Sequence[Tensor]) -> tuple[float, float]:
    """Tell how far a step's features spread, and in how many directions."""
    if not features:
        return float("nan"), float("nan")
    together = torch.cat(list(features)).float()
    spread = together.std(dim=0, correction=0).mean()
    return float(spread), effective_rank(together)


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

    Raises
    ------
    ConfigError
        If there is no batch norm.
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
