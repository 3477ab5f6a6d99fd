"""Student, teacher, context model and optimiser, and the step that moves them."""

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
from napari_mcm.core.encoders.seeding import SeededSteps, seeded
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.mcm.config import FinetuneConfig, OptimiserConfig
from napari_mcm.core.mcm.model import ContextModel, PatchModel, Target
from napari_mcm.core.mcm.teacher import TeacherCache
from napari_mcm.core.mcm.windows import Window
from napari_mcm.core.training.distributed import DistributedContext
from napari_mcm.core.training.monitor import effective_rank

CPU_CHUNK = 1


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What one step shows: loss, agreement with the teacher, and gauges of collapse.

    NaN is what a step does not have: a loss where only batch-norm statistics move. Of
    several processes, the gauges are those of the first one's patches.
    """

    loss: float
    cosine: float
    feature_std: float
    feature_rank: float
    grad_norm: float


class McmTrainer:
    """Everything that a step of MCM-KD changes or needs.

    Parameters
    ----------
    student : Encoder
        Its module is trained in place.
    teacher : Encoder
        Frozen: it only ever encodes.
    config : FinetuneConfig
        Options of the method.
    team : DistributedContext, optional
        The processes that train together; this one alone if not given.
    cache : TeacherCache, optional
        Keeps the teacher's features between runs.

    Attributes
    ----------
    settled : bool
        False from when weights begin to change until whoever drives has counted the step
        and sets it: a checkpoint in between would not know which step it is of.
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
        self.team = team or DistributedContext()
        self.cache = cache or TeacherCache(0)
        self.target = Target(config.target)
        self.settled = True
        self.by_itself = config.context.context_mode == "none"
        self.adapts_only = config.optimiser.learn == "statistics"
        prepare_student(student.module, config.optimiser)
        kind = PatchModel if self.by_itself else ContextModel
        with seeded(config.optimiser.seed):
            head = kind(student.dim, teacher.dim, config.context)
        self.head = head.to(student.device)
        self._seeding = SeededSteps(student.device)
        groups = parameter_groups(student.module, self.head, config.optimiser)
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.999))

    @property
    def precision(self) -> dict[str, str]:
        """What student and teacher compute in."""
        pair = {"student": self.student, "teacher": self.teacher}
        return {name: encoder.precision for name, encoder in pair.items()}

    def compute_in(self, precision: Mapping[str, str]) -> None:
        """Compute as a run was begun, whatever is chosen automatically on this machine.

        Parameters
        ----------
        precision : mapping
            As :attr:`precision` gives it; empty in checkpoints that do not state it.
        """
        if self.student.auto_precision:
            self.student = self.student.in_precision(
                precision.get("student", self.student.precision)
            )
        if self.teacher.auto_precision:
            self.teacher = self.teacher.in_precision(
                precision.get("teacher", self.teacher.precision)
            )

    def step(
        self, windows: Sequence[Window], factor: float, learning: bool, seed: int
    ) -> Generator[None, None, StepFigures]:
        """Take one optimiser step over some windows, a chunk of them at a time.

        Yields twice a chunk, so that whoever drives can stop in between; weights
        change in one go at the end.

        Parameters
        ----------
        windows : sequence of Window
            This process' part of the batch; it may be empty where others' are not.
        factor : float
            The schedule's factor on all rates.
        learning : bool
            False while only the head learns.
        seed : int
            Seeds dropout, where there is any.
        """
        set_mode(self.student.module, self.config.optimiser, learning)
        self.head.train()
        self.optimiser.zero_grad(set_to_none=True)
        # Batch-norm statistics that are learned move with every forward pass.
        self.settled = self.config.optimiser.batch_norm == "frozen"
        own = sum(int(self._taught(window).sum()) for window in windows)
        count = int(self.team.total(torch.tensor([own], dtype=torch.float64)))
        sums = torch.zeros(2, dtype=torch.float64)
        features: list[Tensor] = []
        for number, chunk in enumerate(self._chunks(windows)):
            targets = None if self.adapts_only else self.targets_of(chunk)
            yield
            own_seed = seed + number * self.team.size + self.team.rank
            with self._seeding.seed(own_seed, learning):
                added, seen = self._learn_from(chunk, targets, count, learning)
            sums += added
            features.append(seen)
            yield
        self.settled = False
        norm = self._update(factor, learning)
        loss, cosine = (float(s) for s in self.team.total(sums) / max(count, 1))
        return StepFigures(loss, cosine, *_gauges(features), norm)

    def _chunks(self, windows: Sequence[Window]) -> list[Sequence[Window]]:
        asked = self.config.chunk_windows
        # Statistics of a batch norm are those of a whole step, not of one window.
        small = self.student.device.type == "cpu" and not self.adapts_only
        auto = CPU_CHUNK if small else max(len(windows), 1)
        size = auto if asked == "auto" else asked
        return [windows[i : i + size] for i in range(0, len(windows), size)]

    def _learn_from(
        self,
        windows: Sequence[Window],
        targets: Tensor | None,
        count: int,
        learning: bool,
    ) -> tuple[Tensor, Tensor]:
        """Add one chunk's gradient; return sums of loss and cosine, and features."""
        if targets is None:
            return torch.full((2,), float("nan")).double(), self._see(windows, False)
        features, predictions = self.predict(windows, learning)
        loss = self.target.loss(predictions, targets)
        # The whole step's mean, whatever the chunks and whoever computes them.
        (loss / count).backward()
        with torch.no_grad():
            cosine = F.cosine_similarity(predictions, targets, dim=1).sum()
            return torch.stack([loss, cosine]).double().cpu(), features.detach()

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
        parameters: list[nn.Parameter] = []
        for group in self.optimiser.param_groups:
            idle = group["part"] == "student" and not learning
            group["lr"] = 0.0 if idle else group["peak_lr"] * factor
            parameters += [] if idle else group["params"]
        self.team.total_gradients(parameters)
        limit = self.config.optimiser.clip_norm
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if np.isfinite(norm):
            self.optimiser.step()
        return norm

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
        """All tensors from which training can go on."""
        tensors = {
            f"student/{k}": v for k, v in self.student.module.state_dict().items()
        }
        tensors |= {f"head/{k}": v for k, v in self.head.state_dict().items()}
        moments = self.optimiser.state_dict()["state"]
        for number, values in moments.items():
            tensors |= {f"adam/{number}/{k}": v for k, v in values.items()}
        return tensors | {
            f"target/{name}": tensor
            for name, tensor in self.target.statistics().items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from tensors that :meth:`state` gave."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
        self.student.module.load_state_dict(parts["student"])
        self.head.load_state_dict(parts["head"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts.get("adam", {}).items():
            number, _, key = name.partition("/")
            moments.setdefault(int(number), {})[key] = tensor
        state = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**state, "state": moments})
        device = self.student.device
        statistics = {k: t.to(device) for k, t in parts.get("target", {}).items()}
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
