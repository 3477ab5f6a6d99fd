"""Fine-tune an encoder on slides by masked context modelling with distillation.

The run's directory keeps its configuration, figures and checkpoint; a run that was
cancelled or killed goes on with --resume DIR.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from napari_mcm.cli.drive import drive
from napari_mcm.cli.inputs import find_slides
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.jobs import format_seconds
from napari_mcm.core.mcm.config import FinetuneConfig

if TYPE_CHECKING:
    from napari_mcm.core.mcm.finetune import FinetuneResult


class FinetuneOptions(FinetuneConfig):
    """A new fine-tuning, or one to go on with."""

    resume: Path | None = Field(
        None,
        description="Directory of a run to go on with; its options stay as they are.",
    )


OPTIONS, POSITIONAL = FinetuneOptions, "slides"


def run(options: FinetuneOptions) -> Outcome:
    """Fine-tune, or go on with it."""
    if options.resume is None:
        return _outcome(_start(options))
    others = sorted(options.model_fields_set - {"resume"})
    if others:
        raise ConfigError(
            "takes no other options: the run has its own",
            "--resume",
            f"Leave out {', '.join(others)}",
        )
    return _outcome(_resume(options.resume))


def _start(options: FinetuneOptions) -> FinetuneResult:
    from napari_mcm.core.mcm.finetune import finetune

    given = options.model_dump(exclude={"resume"})
    config = FinetuneConfig(**given | {"slides": find_slides(options.slides)})
    return drive(finetune(config), _how(config.out))


def _resume(run_dir: Path) -> FinetuneResult:
    from napari_mcm.core.mcm.finetune import resume_finetune

    return drive(resume_finetune(run_dir), _how(run_dir))


def _how(run_dir: Path | None) -> str:
    return f"resume with napari-mcm finetune --resume {run_dir}"


def _outcome(done: FinetuneResult) -> Outcome:
    result = {
        "run_dir": done.run_dir,
        "encoder": done.encoder,
        "loss_first": done.loss_first,
        "loss_last": done.loss_last,
        "patches_per_s": done.patches_per_s,
        "steps": done.steps,
        "windows": done.windows,
        "seconds": done.seconds,
    }
    rows = [
        ("run", str(done.run_dir)),
        ("encoder", str(done.encoder)),
        ("loss", f"{done.loss_first:.4f} -> {done.loss_last:.4f}"),
        ("learned", f"{done.windows:,} windows in {done.steps:,} steps"),
        ("time", format_seconds(done.seconds)),
        ("speed", f"{done.patches_per_s:.3g} patches/s"),
    ]
    return Outcome(result, table(rows))
