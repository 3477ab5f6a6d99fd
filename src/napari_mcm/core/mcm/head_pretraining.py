"""Head warm-up: the head is trained on cached features before the student is.

The gradients of an untrained head would only disturb the student. As long as the student is
unchanged, a patch's features do not change either: they are computed once, and Transformer
and predictor h are trained on them for many epochs, with other patches masked each time, at
a thirtieth of the cost. The loss is that of MCM-KD with f and t fixed::

    min_h  Σ_windows 1 / |M| · Σ_{i in M} | h(f(x_visible))_i - t(x_i) |_1
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from napari_mcm.core.encoders.seeding import SeededSteps
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.student import parameter_groups, rate_factor
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.mcm.window_pixels import (
    assign_foreign,
    choose_masked,
    read_unmasked,
)
from napari_mcm.core.mcm.windows import WindowRef
from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.core.runtime.jobs import Job, Meter, Note
from napari_mcm.core.training.schedule import warmup_cosine

BATCH = 16
"""Windows per step."""
# Windows per file: what an interruption costs at most.
_PART = 16
# Keeps these draws apart from those of the run's own epochs.
_KEY = 15_485_863


@dataclass(frozen=True, eq=False)
class KeptWindows:
    """Features of windows by both encoders.

    Attributes
    ----------
    tissue : ndarray of bool, shape (W, n)
        Places that hold tissue.
    seen : Tensor, shape (W, n, student_dim)
        Features of the student as loaded; zeros where there is no tissue.
    taught : Tensor, shape (W, n, teacher_dim)
        Features of the teacher, not scaled yet.
    shown : ndarray of bool, shape (W, n), or None
        Places that `seen` holds, where it is of foreign windows; None for `tissue`.
    """

    tissue: NDArray[np.bool_]
    seen: Tensor
    taught: Tensor
    shown: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.tissue)


class HeadPretraining:
    """Train Transformer and predictor on features of an unchanged student.

    Parameters
    ----------
    learner : McmTrainer
        Student, teacher and head; only the head is changed.
    refs : sequence of WindowRef
        Windows to train on, other ones than the steps see.
    config : FinetuneConfig
        Options of the run.
    folder : Path
        Keeps the encoded windows until the head is trained, so that an interrupted run
        resumes.
    """

    def __init__(
        self,
        learner: McmTrainer,
        refs: Sequence[WindowRef],
        config: FinetuneConfig,
        folder: Path,
    ) -> None:
        self._learner, self._refs = learner, list(refs)
        self._config, self._folder = config, folder
        self._is_foreign = config.context.context_mode == "foreign"
        self._seeding = SeededSteps(learner.student.device)

    def learn(self) -> Job[None]:
        """Encode the windows once and train the head on them, as a job."""
        kept = yield from self.encode()
        if len(kept):
            yield from self.train(kept)
        shutil.rmtree(self._folder, ignore_errors=True)

    def encode(self) -> Job[KeptWindows]:
        """Encode the windows, or read what an earlier process encoded, as a job.

        Returns
        -------
        KeptWindows
            Features of all windows.
        """
        meter = Meter("Encoding for the head warm-up", len(self._refs), "windows")
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(self._refs), _PART):
            file = self._folder / f"{start:06d}.safetensors"
            refs = self._refs[start : start + _PART]
            part = _read(file)
            # Encoding is the slow part: a resumed run reads the files that are complete.
            if part is None:
                part = yield from self._encode_part(refs, meter)
                with atomic_path(file) as path:
                    save_file(part, path)
            else:
                yield meter.advance(len(refs))
            parts.append(part)
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        shown = whole["shown"].numpy() if "shown" in whole else None
        return KeptWindows(
            whole["tissue"].numpy(), whole["seen"], whole["taught"], shown
        )

    def _encode_part(
        self, refs: Sequence[WindowRef], meter: Meter
    ) -> Job[dict[str, Tensor]]:
        places = self._config.context.s**2
        learner = self._learner
        shapes = {"seen": learner.student.dim, "taught": learner.teacher.dim}
        part = {name: torch.zeros(len(refs), places, d) for name, d in shapes.items()}
        for name in ("tissue", "shown") if self._is_foreign else ("tissue",):
            part[name] = torch.zeros(len(refs), places, dtype=torch.bool)
        for row, ref in enumerate(refs):
            window = read_unmasked(ref, self._config)
            if window is not None:
                yield meter.progress()
                part["seen"][row, window.visible] = learner.encode_visible(window)
                yield meter.progress()
                part["taught"][row, window.masked] = learner.teach([window]).cpu()
                part["tissue"][row, window.masked] = True
                if self._is_foreign:
                    part["shown"][row, window.visible] = True
            meter.advance()
        return part

    def train(self, kept: KeptWindows) -> Job[None]:
        """Train the head on the encoded windows, as a job; each epoch masks other patches.

        Parameters
        ----------
        kept : KeptWindows
            Features of the windows.

        Yields
        ------
        Event
            Progress in windows; a note with the loss of the first and the last epoch.
        """
        options = self._config.optimiser
        epochs = options.head_epochs
        # An identity in place of the student, which has no weights to train here.
        groups = parameter_groups(torch.nn.Identity(), self._learner.head, options)
        # The rate is scaled by the windows of these steps, not by those of the run's.
        same = options.model_copy(update={"batch_windows": BATCH})
        scale = rate_factor(same) / rate_factor(options)
        optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.999))
        steps = epochs * -(-len(kept) // BATCH)
        meter = Meter("Head warm-up", epochs * len(kept), "windows")
        losses: list[float] = []
        self._learner.head.train()
        for epoch, rows in self._batches(len(kept)):
            yield meter.progress()
            factor = warmup_cosine(len(losses), steps, options.warmup) * scale
            for group in optimiser.param_groups:
                group["lr"] = group["peak_lr"] * factor
            losses.append(self._step(kept, rows, epoch, optimiser))
            meter.advance(len(rows))
        yield meter.progress()
        first = float(np.mean(losses[: max(steps // epochs, 1)]))
        last = float(np.mean(losses[-max(steps // epochs, 1) :]))
        yield Note(
            f"head warm-up on {len(kept)} windows: loss {first:.4f} in the first "
            f"epoch, {last:.4f} in the last of {epochs}"
        )

    def _batches(self, count: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        options = self._config.optimiser
        for epoch in range(options.head_epochs):
            order = np.random.default_rng((options.seed, _KEY, epoch))
            shuffled = order.permutation(count)
            for start in range(0, count, BATCH):
                yield epoch, shuffled[start : start + BATCH]

    def _step(
        self,
        kept: KeptWindows,
        rows: NDArray[np.int64],
        epoch: int,
        optimiser: torch.optim.Optimizer,
    ) -> float:
        options, learner = self._config.optimiser, self._learner
        masked = self._masks(kept, rows, epoch)
        visible = kept.tissue[rows] & ~masked
        seen = kept.seen[rows]
        if kept.shown is not None:
            visible, seen = _exchange(visible, seen, kept.shown[rows])
        # Distillation without context predicts each visible patch from itself.
        taught = visible if learner.by_itself else masked
        if not taught.any():
            return float("nan")
        # Dropout depends on the batch only, not on what ran before it.
        seed = options.seed * 1_000_003 + epoch * 1_009 + int(rows[0])
        with self._seeding.seed(seed):
            loss = learner.head_loss(
                seen[visible], visible, masked, kept.taught[rows][taught]
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.head.parameters(), options.clip_norm)
        optimiser.step()
        return float(loss.detach())

    def _masks(
        self, kept: KeptWindows, rows: NDArray[np.int64], epoch: int
    ) -> NDArray[np.bool_]:
        """Draw which places of some windows are masked in an epoch, shape (rows, n)."""
        masked = np.zeros_like(kept.tissue[rows])
        context, seed = self._config.context, self._config.optimiser.seed
        if context.context_mode == "neighbours":
            return masked
        for number, row in enumerate(rows):
            tissue = np.flatnonzero(kept.tissue[row])
            # A single patch has nothing to be predicted from: it stays visible.
            if len(tissue) > 1:
                rng = np.random.default_rng((seed, _KEY, epoch, int(row)))
                masked[number] = choose_masked(
                    tissue.tolist(), masked.shape[1], context.mask_ratio, rng
                )
        return masked


def _exchange(
    visible: NDArray[np.bool_], seen: Tensor, shown: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], Tensor]:
    """Put what is seen of foreign windows at the visible places, for each window."""
    filled, moved = np.zeros_like(visible), torch.zeros_like(seen)
    for row, own in enumerate(visible):
        places, sources = assign_foreign(own, shown[row])
        filled[row, places] = True
        moved[row, places] = seen[row, sources]
    return filled, moved


def _read(file: Path) -> dict[str, Tensor] | None:
    """Read what an earlier process encoded; return None where it is missing or damaged."""
    try:
        return load_file(file)
    except (OSError, SafetensorError):
        return None
