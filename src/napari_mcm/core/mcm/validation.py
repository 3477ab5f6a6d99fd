"""Metrics on held-out windows, and the trivial predictions that they must beat.

The masked loss and the cosine to the teacher are measured on windows whose pixels training
never sees. A loss above those of the trivial predictions means that no context was
learned::

    constant           L(median over these patches of y, y), the mean for an l2 loss
    training_constant  L(median over training patches of y, y), likewise
    visible_mean       L(mean of the window's visible y, y)

The first is an oracle's: it knows the held-out targets. The second is what a head without
context can reach.
"""

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
from napari_mcm.core.mcm.window_pixels import Window, read_window
from napari_mcm.core.mcm.windows import WindowRef
from napari_mcm.core.runtime.jobs import Job, Meter, Note, Progress
from napari_mcm.core.tissue import find_tissue


class Validation:
    """Measure a student and its head repeatedly on the same held-out windows.

    Trivial predictions that need no student stand beside the loss: the best constant,
    which is the targets' own median (their mean for an l2 loss), that of the training
    windows, and the mean of the teacher's features of a window's visible patches.

    Parameters
    ----------
    learner : McmTrainer
        Student, teacher and head.
    refs : sequence of WindowRef
        Held-out windows; may be empty.
    config : FinetuneConfig
        Options of the run; flips and jitter are off here.
    """

    def __init__(
        self, learner: McmTrainer, refs: Sequence[WindowRef], config: FinetuneConfig
    ) -> None:
        # The same pixels in every measurement: only the student changes between them.
        plain = config.optimiser.model_copy(update={"flips": False, "jitter": 0.0})
        self._config = config.model_copy(update={"optimiser": plain})
        self._learner = learner
        # AdaBN has no head, hence no predictions to measure.
        self._refs = [] if learner.adapts_only else list(refs)
        self._targets: list[Tensor | None] = []
        self._guesses: dict[str, float] = {}

    def _windows(self) -> Iterator[Window | None]:
        return (read_window(ref, self._config) for ref in self._refs)

    def prepare(self) -> Job[None]:
        """Encode the windows by the teacher and measure the trivial predictions, as a job.

        Yields
        ------
        Event
            Progress in windows; a note with the losses of the trivial predictions.
        """
        if not self._refs:
            return
        means: list[Tensor] = []
        meter = Meter("Measuring held-out windows", len(self._refs), "windows")
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
            f"{len(means)} windows are held out of training: "
            f"{describe_guesses(self._guesses)}"
        )

    def _judge_guesses(self, means: list[Tensor]) -> dict[str, float]:
        targets = torch.cat([t for t in self._targets if t is not None])
        target = self._learner.target
        guesses = {"constant": target.best_constant(targets).expand_as(targets)}
        # Checkpoints of early versions do not hold it.
        if target.constant is not None:
            guesses["training_constant"] = target.constant.expand_as(targets)
        guesses["visible_mean"] = torch.cat(means)
        return {
            name: float(target.loss(guess, targets)) / len(targets)
            for name, guess in guesses.items()
        }

    def measure(self, meter: Meter) -> Job[dict[str, float]]:
        """Measure the loss and the cosine to the teacher of the student as it is, as a job.

        Parameters
        ----------
        meter : Meter
            Progress to report meanwhile.

        Returns
        -------
        dict of str to float
            ``held_out_loss`` and ``held_out_cosine``; empty without held-out windows.
        """
        if not self._refs:
            return {}
        # float64: rounding must not add up over many windows.
        sums, count = torch.zeros(2, dtype=torch.float64), 0
        for window, targets in zip(self._windows(), self._targets, strict=True):
            yield meter.progress()
            if window is not None and targets is not None:
                sums += self._learner.judge(window, targets).cpu()
                count += len(targets)
        loss, cosine = (float(s) for s in sums / max(count, 1))
        return {"held_out_loss": loss, "held_out_cosine": cosine}

    def summary(self, metrics: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Summarise the last and the best metrics beside the trivial predictions.

        Parameters
        ----------
        metrics : mapping of str to sequence of float
            Metrics of all measurements, by name; NaN where none was taken.

        Returns
        -------
        dict of str to float
            ``windows``, and where they were measured ``constant``, ``training_constant``,
            ``visible_mean``, ``loss``, ``loss_best`` and ``cosine``.
        """
        summary = dict(self._guesses) | {"windows": len(self._refs)}
        losses = np.asarray(metrics.get("held_out_loss", ()))
        losses = losses[np.isfinite(losses)]
        if len(losses):
            summary |= {"loss": float(losses[-1]), "loss_best": float(losses.min())}
            cosines = np.asarray(metrics["held_out_cosine"])
            summary["cosine"] = float(cosines[np.isfinite(cosines)][-1])
        return summary


def describe_guesses(guesses: Mapping[str, float]) -> str:
    """Return the losses of the trivial predictions as text.

    Parameters
    ----------
    guesses : mapping of str to float
        ``constant`` and ``visible_mean``, and ``training_constant`` where it is known.

    Returns
    -------
    str
        For a note, a table or a model card.
    """
    of_training = guesses.get("training_constant")
    known = "" if of_training is None else f", that of training {of_training:.4f}"
    return (
        f"best constant {guesses['constant']:.4f}{known}, mean of visible patches "
        f"{guesses['visible_mean']:.4f}"
    )


def read_probe_slides(
    config: FinetuneConfig, mpp: float, stack: ExitStack
) -> Job[HeldOutProbe]:
    """Read the labelled patches of the probe slides, as a job.

    Parameters
    ----------
    config : FinetuneConfig
        Options of the run; ``held_out`` names slides and labels.
    mpp : float
        Resolution of the patches, in microns per pixel.
    stack : ExitStack
        Closes the slides.

    Returns
    -------
    HeldOutProbe
        The probe, ready to measure a student.

    Raises
    ------
    ConfigError
        If a probe slide is in the training set.
    """
    held_out = config.held_out
    training_set = {path.resolve() for path in config.slides}
    for path in held_out.probe_slides:
        if path.resolve() in training_set:
            raise ConfigError(
                "this slide is in the training set",
                f"--probe-slides {path}",
                hint="Probe on slides that are not trained on",
            )
    # The probe must see patches at the resolution of the training set.
    grid_config = config.grid.model_copy(update={"mpp": mpp, "allow_upsampling": True})
    slides = [stack.enter_context(config.read.open(p)) for p in held_out.probe_slides]
    grids: list[PatchGrid] = []
    for number, slide in enumerate(slides):
        yield Progress("Finding tissue to probe on", number, len(slides), "slides")
        tissue = find_tissue(slide, config.tissue)
        grids.append(make_grid(slide, tissue, grid_config))
    return (
        yield from read_probe(
            slides, grids, held_out.probe_labels, seed=config.optimiser.seed
        )
    )
