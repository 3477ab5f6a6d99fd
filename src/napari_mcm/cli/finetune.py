"""Fine-tune an encoder on slides by distillation, or by masked context modelling.

--preset mcm-kd is masked context modelling with knowledge distillation, neighbours is
distillation of a patch's surroundings, and others are controls. The run's directory
keeps its configuration, metrics and checkpoint.
--resume DIR resumes an interrupted run. Under torchrun, several processes share each
step.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, say, table
from napari_mcm.cli.resuming import RESUME, run_to_resume
from napari_mcm.core.errors import McmError
from napari_mcm.core.mcm.config import FinetuneConfig, preset_overrides
from napari_mcm.core.runtime.jobs import Job, format_seconds
from napari_mcm.core.runtime.jobs import run as run_job
from napari_mcm.core.slides.find import find_slides

if TYPE_CHECKING:
    from napari_mcm.core.mcm.finetune import FinetuneResult


class FinetuneOptions(FinetuneConfig):
    """A new fine-tuning, or one to resume."""

    resume: Path | None = RESUME


OPTIONS, POSITIONAL = FinetuneOptions, "slides"


def run(options: FinetuneOptions) -> Outcome:
    """Fine-tune an encoder, or resume a run."""
    resume = run_to_resume(options)
    if resume is None:
        return _outcome(_start(options))
    return _outcome(_resume(resume))


def preset_lines(config: FinetuneConfig) -> list[str]:
    """Return a line with the options that a preset sets, and the user's overrides.

    Parameters
    ----------
    config : FinetuneConfig
        Options of the fine-tuning.

    Returns
    -------
    list of str
        One line; none without a preset.
    """
    if config.preset is None:
        return []
    options = preset_overrides(config, config.preset)
    text = ", ".join(
        f"--{name.replace('_', '-')} {_text(used)}"
        + ("" if used == preset else f" (given, not {_text(preset)})")
        for name, (preset, used) in options.items()
    )
    return [f"preset {config.preset}: {text}"]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _start(options: FinetuneOptions) -> FinetuneResult:
    from napari_mcm.core.mcm.finetune import finetune

    values = options.model_dump(exclude={"resume"})
    config = FinetuneConfig(**values | {"slides": find_slides(options.slides)})
    if not is_follower():
        for line in preset_lines(config):
            say(line)
    return _drive(finetune(config), _resume_hint(config.out))


def _resume(run_dir: Path) -> FinetuneResult:
    from napari_mcm.core.mcm.finetune import resume_finetune

    return _drive(resume_finetune(run_dir), _resume_hint(run_dir))


def is_follower() -> bool:
    """Return whether this is a process of `torchrun` other than the main one.

    Only the main process prints.
    """
    return os.environ.get("RANK", "0") != "0"


def _drive(job: Job[FinetuneResult], resume_hint: str) -> FinetuneResult:
    if not is_follower():
        return drive(job, resume_hint)
    try:
        run_job(job)
    except (McmError, KeyboardInterrupt):
        raise SystemExit(1) from None
    raise SystemExit(0)


def _resume_hint(run_dir: Path | None) -> str:
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
        "held_out": done.held_out,
    }
    rows = [
        ("run", str(done.run_dir)),
        ("encoder", str(done.encoder)),
        ("loss", f"{done.loss_first:.4f} -> {done.loss_last:.4f}"),
        *_held_out_rows(done.held_out),
        ("trained", f"{done.windows:,} windows in {done.steps:,} steps"),
        ("time", format_seconds(done.seconds)),
        ("speed", f"{done.patches_per_s:.3g} patches/s"),
    ]
    return Outcome(result, table(rows))


def _held_out_rows(held_out: dict[str, float]) -> list[tuple[str, str]]:
    from napari_mcm.core.mcm.validation import describe_guesses

    if "loss" not in held_out:
        return []
    windows, guesses = held_out["windows"], describe_guesses(held_out)
    return [("held out", f"{held_out['loss']:.4f} on {windows} windows ({guesses})")]
