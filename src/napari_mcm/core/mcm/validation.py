"""Figures on windows kept out of training, and the guesses they must beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.evaluation.probe_callback import HeldOutProbe, read_probe
from napari_mcm.core.grid import PatchGrid, make_grid
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.mcm.windows import Window, WindowRef, read_window
from napari_mcm.core.runtime.jobs import Job, Meter, Note, Progress
from napari_mcm.core.tissue import find_tissue


class Validation:
    """Judges a student and its head on the same windows again and again.

    Two guesses that no student is needed for stand beside the loss: the best constant,
    which is the targets' own median, and the mean of what the teacher says of a window's
    visible patches. A loss above them says that nothing was learned of context.

    Parameters
    ----------
    learner : McmTrainer
        Student, teacher and head.
    refs : sequence of WindowRef
        Windows kept out of training; there may be none.
    config : FinetuneConfig
        Of the run; windows are neither turned nor recoloured here.
    """

    def __init__(
        self, learner: McmTrainer, refs: Sequence[WindowRef], config: FinetuneConfig
    ) -> None:
        plain = config.optimiser.model_copy(update={"flips": False, "jitter": 0.0})
        self._config = config.model_copy(update={"optimiser": plain})
        self._learner = learner
        # Without a head there is nothing to judge.
        self._refs = [] if learner.adapts_only else list(refs)
        self._targets: list[Tensor | None] = []
        self._guesses: dict[str, float] = {}

    def _windows(self) -> Iterator[Window | None]:
        return (read_window(ref, self._config) for ref in self._refs)

    def prepare(self) -> Job[None]:
        """Encode the windows by the teacher, once, and judge the two guesses."""
        if not self._refs:
            return
        means: list[Tensor] = []
        meter = Meter("Measuring what is kept out", len(self._refs), "windows")
        for window in self._windows():
            yield meter.progress()
            targets = None if window is None else self._learner.targets_of([window])
            self._targets.append(targets)
            if window is not None and targets is not None:
                visible = self._learner.visible_targets(window).mean(dim=0)
                means.append(visible.expand_as(targets))
            meter.advance()
        self._guesses = self._judge_guesses(means)
        yield Note(
            f"{len(means)} windows are kept out of training: best constant "
            f"{self._guesses['constant']:.4f}, mean of visible patches "
            f"{self._guesses['visible_mean']:.4f}"
        )

    def _judge_guesses(self, means: list[Tensor]) -> dict[str, float]:
        targets = torch.cat([t for t in self._targets if t is not None])
        constant = targets.median(dim=0).values.expand_as(targets)
        judge = self._learner.target.loss
        return {
            "constant": float(judge(constant, targets)) / len(targets),
            "visible_mean": float(judge(torch.cat(means), targets)) / len(targets),
        }

    def measure(self, meter: Meter) -> Job[dict[str, float]]:
        """Judge the student as it is: the loss and the cosine to the teacher."""
        if not self._refs:
            return {}
        sums, count = torch.zeros(2, dtype=torch.float64), 0
        for window, targets in zip(self._windows(), self._targets, strict=True):
            yield meter.progress()
            if window is not None and targets is not None:
                sums += self._learner.judge(window, targets).cpu()
                count += len(targets)
        loss, cosine = (float(s) for s in sums / max(count, 1))
        return {"held_out_loss": loss, "held_out_cosine": cosine}

    def summary(self, metrics: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Give the last and the best figures beside the two guesses."""
        found = dict(self._guesses) | {"windows": len(self._refs)}
        losses = np.asarray(metrics.get("held_out_loss", ()))
        losses = losses[np.isfinite(losses)]
        if len(losses):
            found |= {"loss": float(losses[-1]), "loss_best": float(losses.min())}
            cosines = np.asarray(metrics["held_out_cosine"])
            found["cosine"] = float(cosines[np.isfinite(cosines)][-1])
        return found


def read_probe_slides(
    config: FinetuneConfig, mpp: float, stack: ExitStack
) -> Job[HeldOutProbe]:
    """Read labelled patches of the slides to probe on.

    Parameters
    ----------
    config : FinetuneConfig
        Its ``held_out`` names slides and labels.
    mpp : float
        Resolution of patches, in microns per pixel.
    stack : ExitStack
        Closes the slides.

    Raises
    ------
    ConfigError
        If a slide is one of those learned from.
    """
    asked = config.held_out
    learned = {path.resolve() for path in config.slides}
    for path in asked.probe_slides:
        if path.resolve() in learned:
            raise ConfigError("is learned from", f"--probe-slides {path}")
    grid_config = config.grid.model_copy(update={"mpp": mpp, "allow_upsampling": True})
    slides = [stack.enter_context(config.read.open(p)) for p in asked.probe_slides]
    grids: list[PatchGrid] = []
    for number, slide in enumerate(slides):
        yield Progress("Finding tissue to probe on", number, len(slides), "slides")
        tissue = find_tissue(slide, config.tissue)
        grids.append(make_grid(slide, tissue, grid_config))
    return (
        yield from read_probe(
            slides, grids, asked.probe_labels, seed=config.optimiser.seed
        )
    )
