"""Pre-train a Vision Transformer on unlabelled images by masked autoencoding.

Images are image files, tiles of them (--tiles), and tissue patches of slides
(--slides). The run's directory keeps configuration, metrics, encoder and decoder.
--resume DIR resumes an interrupted run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.cli.resuming import RESUME, run_to_resume
from napari_mcm.core.mae.config import PretrainConfig
from napari_mcm.core.runtime.jobs import format_seconds
from napari_mcm.core.slides.find import find_slides

if TYPE_CHECKING:
    from napari_mcm.core.mae.pretraining import PretrainResult


class PretrainOptions(PretrainConfig):
    """A new pre-training, or one to resume."""

    resume: Path | None = RESUME


OPTIONS, POSITIONAL = PretrainOptions, "pictures"


def run(options: PretrainOptions) -> Outcome:
    """Pre-train a model, or resume a run."""
    resume = run_to_resume(options)
    if resume is None:
        return _outcome(_start(options))
    return _outcome(_resume(resume))


def _start(options: PretrainOptions) -> PretrainResult:
    from napari_mcm.core.mae.pretraining import pretrain

    values = options.model_dump(exclude={"resume"})
    values["images"]["slides"] = find_slides(options.images.slides)
    config = PretrainConfig.model_validate(values)
    return drive(pretrain(config), _resume_hint(config.out))


def _resume(run_dir: Path) -> PretrainResult:
    from napari_mcm.core.mae.pretraining import resume_pretrain

    return drive(resume_pretrain(run_dir), _resume_hint(run_dir))


def _resume_hint(run_dir: Path | None) -> str:
    return f"resume with napari-mcm mae pretrain --resume {run_dir}"


def _outcome(done: PretrainResult) -> Outcome:
    result = {
        "run_dir": done.run_dir,
        "encoder": done.encoder,
        "loss_first": done.loss_first,
        "loss_last": done.loss_last,
        "images_per_s": done.images_per_s,
        "steps": done.steps,
        "images": done.images,
        "skipped": done.skipped,
        "seconds": done.seconds,
    }
    rows = [
        ("run", str(done.run_dir)),
        ("encoder", str(done.encoder)),
        ("loss", f"{done.loss_first:.4f} -> {done.loss_last:.4f}"),
        ("trained", f"{done.images:,} images in {done.steps:,} steps"),
        ("skipped", f"{done.skipped:,} damaged or unreadable"),
        ("time", format_seconds(done.seconds)),
        ("speed", f"{done.images_per_s:.3g} images/s"),
    ]
    return Outcome(result, table(rows))
