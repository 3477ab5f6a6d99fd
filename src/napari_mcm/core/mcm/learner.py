"""Student, teacher, context model and optimiser, and the step that moves them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_mcm.core.encoders import Encoder
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.loss import Target
from napari_mcm.core.mcm.model import ContextModel
from napari_mcm.core.mcm.student import parameter_groups, prepare_student, set_mode
from napari_mcm.core.mcm.windows import Window

CPU_CHUNK = 1


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What one step shows: loss, agreement with the teacher, and gauges of collapse."""

    loss: float
    cosine: float
    feature_std: float
    grad_norm: float


class Learner:
    """Everything that a step of MCM-KD changes or needs.

    Parameters
    ----------
    student : Encoder
        Its module is trained in place.
    teacher : Encoder
        Frozen: it only ever encodes.
    config : FinetuneConfig
        Options of the method.

    Attributes
    ----------
    settled : bool
        False from when weights begin to change until whoever drives has counted the step
        and sets it: a checkpoint in between would not know which step it is of.
    """

    def __init__(
        self, student: Encoder, teacher: Encoder, config: FinetuneConfig
    ) -> None:
        self.student, self.teacher, self.config = student, teacher, config
        self.target = Target(config.target)
        self.settled = True
        prepare_student(student.module, config.optimiser)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.optimiser.seed)
            head = ContextModel(student.dim, teacher.dim, config.context)
        self.head = head.to(student.device)
        groups = parameter_groups(student.module, self.head, config.optimiser)
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.999))

    def step(
        self, windows: Sequence[Window], factor: float, learning: bool, seed: int
    ) -> Generator[None, None, StepFigures]:
        """Take one optimiser step over some windows, a chunk of them at a time.

        Yields after each chunk, so that whoever drives can stop in between; weights
        change in one go at the end.

        Parameters
        ----------
        windows : sequence of Window
            The batch.
        factor : float
            The schedule's factor on all rates.
        learning : bool
            False while only the head is warmed up.
        seed : int
            Seeds dropout, where there is any.
        """
        set_mode(self.student.module, self.config.optimiser, learning)
        self.head.train()
        self.optimiser.zero_grad(set_to_none=True)
        # Batch-norm statistics that are learned move with every forward pass.
        self.settled = self.config.optimiser.batch_norm == "frozen"
        masked = sum(int(window.masked.sum()) for window in windows)
        sums = torch.zeros(3, dtype=torch.float64)
        for number, chunk in enumerate(self._chunks(windows)):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + number)
                sums += self._learn_from(chunk, masked, learning)
            yield
        self.settled = False
        norm = self._update(factor, learning)
        visible = sum(int(window.visible.sum()) for window in windows)
        loss, cosine, spread = (float(s) for s in sums)
        return StepFigures(loss / masked, cosine / masked, spread / visible, norm)

    def _chunks(self, windows: Sequence[Window]) -> list[Sequence[Window]]:
        size = self.config.chunk_windows
        if size == "auto":
            size = CPU_CHUNK if self.student.device.type == "cpu" else len(windows)
        return [windows[i : i + size] for i in range(0, len(windows), size)]

    def _learn_from(
        self, windows: Sequence[Window], masked: int, learning: bool
    ) -> Tensor:
        """Add one chunk's gradient; return its sums of loss, cosine and spread."""
        targets = self.target.scale(
            self._teach(np.concatenate([w.masked_pixels for w in windows]))
        )
        features, predictions = self.predict(windows, learning)
        loss = self.target.loss(predictions, targets)
        (loss / masked).backward()
        with torch.no_grad():
            cosine = F.cosine_similarity(predictions, targets, dim=1).sum()
            spread = features.std(dim=0, correction=0).mean() * len(features)
            return torch.stack([loss, cosine, spread]).double().cpu()

    def predict(
        self, windows: Sequence[Window], learning: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Encode the visible patches and predict the masked ones.

        Masked pixels never enter: their features would be replaced by the mask token,
        so the student is not run on them at all, which halves its cost.

        Returns
        -------
        tuple of Tensor
            The student's features (V, student_dim), predictions (M, teacher_dim).
        """
        device = self.student.device
        visible = torch.from_numpy(np.stack([w.visible for w in windows])).to(device)
        masked = torch.from_numpy(np.stack([w.masked for w in windows])).to(device)
        pixels = np.concatenate([w.visible_pixels for w in windows])
        mixed = self.student.dtype != torch.float32
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            with torch.set_grad_enabled(learning and torch.is_grad_enabled()):
                images = self.student.normalise(torch.from_numpy(pixels))
                features: Tensor = self.student.module(images)
            predictions: Tensor = self.head(features, visible, masked)
        return features.float(), predictions.float()

    def _teach(self, pixels: NDArray[np.uint8]) -> Tensor:
        features = torch.from_numpy(self.teacher.encode(pixels))
        return features.to(self.student.device)

    def _update(self, factor: float, learning: bool) -> float:
        parameters: list[nn.Parameter] = []
        for group in self.optimiser.param_groups:
            idle = group["part"] == "student" and not learning
            group["lr"] = 0.0 if idle else group["peak_lr"] * factor
            parameters += group["params"]
        limit = self.config.optimiser.clip_norm
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if np.isfinite(norm):
            self.optimiser.step()
        return norm

    def measure_targets(self, windows: Sequence[Window]) -> None:
        """Look at some windows' targets before the first step.

        Takes the statistics that standardised targets need, and lets the predictions
        begin at the targets' median. That is the best constant under an l1 loss: a
        short run need not spend its steps on finding it.
        """
        features = torch.cat([self._teach(w.masked_pixels) for w in windows])
        if self.config.target.target_norm == "standardise":
            std = features.std(dim=0).clamp_min(1e-6)
            self.target = Target(self.config.target, features.mean(dim=0), std)
        if self.config.target.start_at_median:
            self.head.begin_at(self.target.scale(features).median(dim=0).values)

    def state(self) -> dict[str, Tensor]:
        """All tensors from which training can go on."""
        tensors = {
            f"student/{k}": v for k, v in self.student.module.state_dict().items()
        }
        tensors |= {f"head/{k}": v for k, v in self.head.state_dict().items()}
        moments = self.optimiser.state_dict()["state"]
        for number, values in moments.items():
            tensors |= {f"adam/{number}/{k}": v for k, v in values.items()}
        if self.target.mean is not None and self.target.std is not None:
            tensors |= {"target/mean": self.target.mean, "target/std": self.target.std}
        return tensors

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
        if "target" in parts:
            device = self.student.device
            mean, std = parts["target"]["mean"], parts["target"]["std"]
            self.target = Target(self.config.target, mean.to(device), std.to(device))
