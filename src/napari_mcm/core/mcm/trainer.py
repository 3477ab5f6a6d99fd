"""The step of MCM-KD: student, frozen teacher, head, and one update of their weights.

The student f encodes the visible patches of the windows W, the head h predicts the
teacher's features t(x) of the masked ones M from them, and both are moved along the
gradient of the mean over all masked patches of the step, whatever the chunks::

    L = 1 / Σ_W |M_W| · Σ_W Σ_{i in M_W} | h(f(x_visible))_i - t(x_i) |_1
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_mcm.core.encoders import Encoder
from napari_mcm.core.encoders.seeding import seeded
from napari_mcm.core.mcm.coherence import GradientCoherence
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.model import ContextModel, PatchModel, Target
from napari_mcm.core.mcm.student import parameter_groups, prepare_student, set_mode
from napari_mcm.core.mcm.teacher import TeacherCache
from napari_mcm.core.mcm.window_pixels import Window
from napari_mcm.core.training.distributed import DistributedContext
from napari_mcm.core.training.monitor import effective_rank
from napari_mcm.core.training.trainer import ChunkSums, Trainer, by_prefix

# Windows at a time on a CPU, so that a cancel acts within a second.
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
    gradient_coherence : float
        How far the student's gradients agree between the steps of a block that ends here;
        NaN at other steps.
    """

    loss: float
    cosine: float
    feature_std: float
    feature_rank: float
    grad_norm: float
    gradient_coherence: float = float("nan")


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
        Whether predictions are made of the visible patches, each from itself alone: its
        own target, or that of its neighbourhood.
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
        self.by_itself = config.context.context_mode in ("none", "neighbours")
        self.adapts_only = config.optimiser.learn == "statistics"
        prepare_student(student.module, config.optimiser)
        kind = PatchModel if self.by_itself else ContextModel
        # The head's weights depend on the seed only, whatever student was loaded before.
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
        self._coherence = GradientCoherence(student.module.parameters())
        # Batch-norm statistics that are learned move with every forward pass.
        self.moves_in_forward = config.optimiser.batch_norm != "frozen"
        self.precision = self._precision_of_both()

    def compute_in(self, precision: Mapping[str, str]) -> None:
        """Compute as an interrupted run did, whatever ``auto`` means on this machine.

        Parameters
        ----------
        precision : mapping of str to str
            ``float32`` or ``bfloat16`` of ``student`` and ``teacher``.
        """
        if self.student.auto_precision:
            self.student = self.student.in_precision(precision["student"])
        if self.teacher.auto_precision:
            self.teacher = self.teacher.in_precision(precision["teacher"])
        self.precision = self._precision_of_both()

    def _precision_of_both(self) -> dict[str, str]:
        pair = {"student": self.student, "teacher": self.teacher}
        return {role: encoder.precision for role, encoder in pair.items()}

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
        # Counted before the chunks: each divides its loss by the whole step's number.
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
        # As the optimiser got them: of the whole step and all processes, clipped.
        moves = learning and not self.adapts_only
        coherence = self._coherence.add() if moves else float("nan")
        own_sums = [sums.get(name, 0.0) for name in ("loss", "cosine")]
        total = self.team.total(torch.tensor(own_sums, dtype=torch.float64))
        loss, cosine = (float(s) for s in total / max(count, 1))
        return StepFigures(loss, cosine, *_gauges(features), norm, coherence)

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

        Parameters
        ----------
        windows : sequence of Window
            Windows with V visible and M masked patches in total.
        learning : bool, optional
            Whether gradients reach the student.

        Returns
        -------
        features : Tensor, shape (V, student_dim)
            The student's features of the visible patches.
        predictions : Tensor, shape (M, teacher_dim)
            Of the masked patches; without context (V, teacher_dim), of the visible ones.
        """
        device = self.device
        # (W, n) each, where n = s² places
        visible = torch.from_numpy(np.stack([w.visible for w in windows])).to(device)
        masked = torch.from_numpy(np.stack([w.masked for w in windows])).to(device)
        with self._autocast():
            features = self._see(windows, learning)
            predictions: Tensor = self.head(features, visible, masked)
        # float32: an l1 loss over many values loses digits in bfloat16.
        return features.float(), predictions.float()

    def _see(self, windows: Sequence[Window], learning: bool) -> Tensor:
        pixels = np.concatenate([w.visible_pixels for w in windows])  # (V, p, p, 3)
        with (
            self._autocast(),
            torch.set_grad_enabled(learning and torch.is_grad_enabled()),
        ):
            images = self.student.normalise(torch.from_numpy(pixels))
            features: Tensor = self.student.module(images)  # (V, student_dim)
        return features

    def _autocast(self) -> torch.autocast:
        mixed = self.student.dtype != torch.float32
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    def _taught(self, window: Window) -> NDArray[np.bool_]:
        """Return whose features are predicted: masked patches, or the visible ones."""
        return window.visible if self.by_itself else window.masked

    def targets_of(self, windows: Sequence[Window]) -> Tensor:
        """Encode by the teacher what is to be predicted, and scale it.

        Parameters
        ----------
        windows : sequence of Window
            Windows with M masked patches in total.

        Returns
        -------
        Tensor, shape (M, teacher_dim)
            The targets, on the device.
        """
        return self.target.scale(self.teach(windows))

    def teach(self, windows: Sequence[Window]) -> Tensor:
        """Encode by the teacher what is to be predicted, without scaling it.

        Parameters
        ----------
        windows : sequence of Window
            Windows with M patches to predict in total.

        Returns
        -------
        Tensor, shape (M, teacher_dim)
            Features of the masked patches; without context, of the visible ones; in mode
            ``"neighbours"`` their means over the patches around each visible one.
        """
        parts = [window.for_teacher(self.by_itself) for window in windows]
        pixels = np.concatenate([part for part, _ in parts])
        # All of them have keys, or none has.
        keys = [k for _, own in parts for k in own]
        features = self._encode_by_teacher(pixels, keys)
        split = features.split([len(part) for part, _ in parts])
        return torch.cat([_average(*pair) for pair in zip(windows, split, strict=True)])

    def _encode_by_teacher(
        self, pixels: NDArray[np.uint8], keys: Sequence[bytes]
    ) -> Tensor:
        features = self.cache.encode(self.teacher, pixels, keys)
        return torch.from_numpy(features).to(self.device)

    def encode_visible(self, window: Window) -> Tensor:
        """Encode a window's visible patches by the student as it is, without gradients.

        Parameters
        ----------
        window : Window
            With V visible patches.

        Returns
        -------
        Tensor, shape (V, student_dim)
            Features, on the CPU.
        """
        self.student.module.eval()
        pixels, keys = window.visible_pixels, window.visible_keys
        return torch.from_numpy(self.cache.encode(self.student, pixels, keys))

    def head_loss(
        self,
        features: Tensor,
        visible: NDArray[np.bool_],
        masked: NDArray[np.bool_],
        taught: Tensor,
    ) -> Tensor:
        """Return the head's mean loss on features of the student that are known.

        Parameters
        ----------
        features : Tensor, shape (V, student_dim)
            Of the visible patches, window by window.
        visible, masked : ndarray of bool, shape (W, n)
            Where they belong, and which places to predict.
        taught : Tensor, shape (M, teacher_dim)
            The teacher's features of what is predicted, not scaled.

        Returns
        -------
        Tensor, shape ()
            Mean over the M predicted patches.
        """
        device = self.device
        places = (torch.from_numpy(where).to(device) for where in (visible, masked))
        with self._autocast():
            predictions = self.head(features.to(device), *places).float()
        targets = self.target.scale(taught.to(device))
        return self.target.loss(predictions, targets) / len(targets)

    def visible_targets(self, window: Window) -> Tensor:
        """Return the targets of a window's visible patches.

        Parameters
        ----------
        window : Window
            With V visible patches.

        Returns
        -------
        Tensor, shape (V, teacher_dim)
            Scaled features of the teacher; those of another place where it is seen.
        """
        if self.by_itself:
            return self.targets_of([window])
        pixels, keys = window.visible_pixels, window.visible_keys
        return self.target.scale(self._encode_by_teacher(pixels, keys))

    @torch.no_grad()
    def judge(self, window: Window, targets: Tensor) -> Tensor:
        """Measure the predictions of a window without training on it.

        Parameters
        ----------
        window : Window
            With M masked patches.
        targets : Tensor, shape (M, teacher_dim)
            As :meth:`targets_of` returns them.

        Returns
        -------
        Tensor of float64, shape (2,)
            Sums of loss and cosine over the patches.
        """
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
        """Measure the targets of some windows before the first step.

        Takes the statistics that scaled targets need, and lets the predictions begin at
        the best constant, the targets' median (their mean under an l2 loss): a short run
        need not spend its steps on finding it.

        Parameters
        ----------
        windows : iterable of Window
            Windows from all over the run.

        Yields
        ------
        None
            After each window.
        """
        if self.adapts_only:
            return
        parts: list[Tensor] = []
        for window in windows:
            parts.append(self.teach([window]))
            yield
        features = torch.cat(parts)
        # Once: losses of different steps compare only for the same targets.
        self.target = self.target.measured(features)
        constant = self.target.constant
        if self.config.target.start_at_median and constant is not None:
            self.head.predictor.begin_at(constant)

    def state(self) -> dict[str, Tensor]:
        """Collect all tensors from which the training can resume.

        Returns
        -------
        dict of str to Tensor
            Weights, moments of the optimiser, statistics of the targets, and the sums of
            gradients whose coherence is measured, by name.
        """
        target, coherence = self.target.statistics(), self._coherence.state()
        return (
            super().state()
            | {f"target/{k}": t for k, t in target.items()}
            | {f"coherence/{k}": t for k, t in coherence.items()}
        )

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the tensors of a checkpoint.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            As :meth:`state` returned them.
        """
        super().load_state(tensors)
        saved = by_prefix(tensors)
        target = {k: t.to(self.device) for k, t in saved.get("target", {}).items()}
        self.target = Target(self.config.target, **target)
        self._coherence.load_state(saved.get("coherence", {}))


def _average(window: Window, features: Tensor) -> Tensor:
    """Average the teacher's features over the patches around each, (V + R, D) -> (V, D)."""
    if window.ring is None:
        return features
    return torch.from_numpy(window.ring.weights).to(features) @ features


def _gauges(features: Sequence[Tensor]) -> tuple[float, float]:
    """Return how far a step's features spread, and in how many directions."""
    if not features:
        return float("nan"), float("nan")
    together = torch.cat(list(features)).float()
    spread = together.std(dim=0, correction=0).mean()
    return float(spread), effective_rank(together)
