"""Export of a fine-tuned student: its weights alone, with recipe and model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_mcm import __version__
from napari_mcm.core.encoders import Encoder, save_encoder
from napari_mcm.core.encoders.cost import measure_cost
from napari_mcm.core.encoders.learned_from import LearnedFrom
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mcm.validation import describe_guesses

_WITHOUT_CONTEXT = ("none", "neighbours")


def export_student(
    folder: Path,
    student: Encoder,
    teacher: Encoder,
    config: FinetuneConfig,
    summary: Mapping[str, Any],
    slides: Sequence[str],
    learned: LearnedFrom,
) -> Path:
    """Write the fine-tuned student so that timm alone can load it.

    Transformer and predictor are not written.

    Parameters
    ----------
    folder : Path
        Gets ``model.safetensors``, ``recipe.json`` and ``README.md``.
    student, teacher : Encoder
        The student as trained, the teacher as used.
    config : FinetuneConfig
        Options of the run.
    summary : mapping
        Figures of the run.
    slides : sequence of str
        Names of the slides in the training set.
    learned : LearnedFrom
        These slides, and those in the training sets of student and teacher.

    Returns
    -------
    Path
        The folder.
    """
    recipe = {
        **student.recipe,
        **learned.record(),
        # Everything that is needed to repeat the training, beside the student's own recipe.
        "fine_tuning": {
            "method": method_name(config),
            "student": config.student,
            "student_fingerprint": student.fingerprint,
            "teacher": config.teacher,
            "teacher_fingerprint": teacher.fingerprint,
            "patch_size": config.grid.patch_size,
            "mpp": summary["mpp"],
            "context": describe_context(config),
            "target": describe_target(config),
            "options": _options_in_effect(config),
            "slides": list(slides),
            "summary": dict(summary),
            "version": __version__,
        },
    }
    card = _card(folder, student, config, summary, slides)
    student.module.eval()
    return save_encoder(folder, student.module, recipe, card)


def method_name(config: FinetuneConfig) -> str:
    """Return the name of the method that a configuration runs, as in `docs/method.md`.

    Parameters
    ----------
    config : FinetuneConfig
        Options of the run.

    Returns
    -------
    str
        For example ``"MCM-KD"`` or ``"per-patch distillation without a teacher"``.
    """
    learn, mode = config.optimiser.learn, config.context.context_mode
    if learn == "statistics":
        return "AdaBN (batch-norm statistics only)"
    distillation = {
        "none": "per-patch distillation",
        "neighbours": "context-enriched distillation",
    }
    changes = [
        "without a teacher" if config.teacher == "student" else "",
        "with shuffled positions" if mode == "shuffled" else "",
        "with context from elsewhere" if mode == "foreign" else "",
        "of the head alone" if learn == "head" else "",
    ]
    return " ".join([distillation.get(mode, "MCM-KD"), *filter(None, changes)])


def describe_context(config: FinetuneConfig) -> str:
    """Return what a prediction is made from, as text.

    Parameters
    ----------
    config : FinetuneConfig
        Options of the run.

    Returns
    -------
    str
        For example ``"4 × 4 patches, 50 % masked"``; starts with ``"none"`` where there is
        no window and no mask.
    """
    context, mode = config.context, config.context.context_mode
    if config.optimiser.learn == "statistics":
        return "none: nothing is predicted"
    if mode in _WITHOUT_CONTEXT:
        return "none: each patch is seen on its own, nothing is masked"
    changes = {
        "shuffled": ", the patches in random places",
        "foreign": ", the visible patches of another window of the slide",
    }
    return (
        f"{context.s} × {context.s} patches, {context.mask_ratio:.0%} masked"
        f"{changes.get(mode, '')}"
    )


def describe_target(config: FinetuneConfig) -> str:
    """Return what is predicted, as text.

    Parameters
    ----------
    config : FinetuneConfig
        Options of the run.

    Returns
    -------
    str
        For example ``"the teacher's features of the masked patches"``.
    """
    if config.optimiser.learn == "statistics":
        return "none: batch-norm statistics are averaged"
    return {
        "none": "the teacher's features of the same patch",
        "neighbours": "the mean of the teacher's features over the 3 × 3 patches around "
        "each patch, where there is tissue",
    }.get(config.context.context_mode, "the teacher's features of the masked patches")


def _options_in_effect(config: FinetuneConfig) -> dict[str, Any]:
    """Return the options that a training of this kind used, ready for JSON."""
    groups = {"context", "target", "optimiser"}
    options = config.model_dump(mode="json", include=groups)
    mode = config.context.context_mode
    unused: set[str] = set()
    if mode in _WITHOUT_CONTEXT or config.optimiser.learn == "statistics":
        unused |= {"position", "depth", "heads", "width", "mlp_ratio", "dropout"}
    if mode == "neighbours":
        unused.add("mask_ratio")
    used = {k: v for k, v in options["context"].items() if k not in unused}
    return {**options, "context": used}


def _describe_windows(config: FinetuneConfig, windows: int) -> str:
    context = config.context
    if context.context_mode not in _WITHOUT_CONTEXT:
        return f"{windows:,} windows"
    squares = f"{windows:,} squares of {context.s} × {context.s}"
    if context.context_mode == "neighbours" or not context.mask_ratio:
        return f"all patches of {squares}"
    return f"{1 - context.mask_ratio:.0%} of the patches, by chance, of {squares}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _held_out_row(summary: Mapping[str, Any]) -> str:
    held_out = summary.get("held_out", {})
    if "loss" not in held_out:
        return ""
    return (
        f"| loss on {held_out['windows']} held-out windows | {held_out['loss']:.4f} "
        f"({describe_guesses(held_out)}) |\n"
    )


def _about(config: FinetuneConfig) -> str:
    if config.context.context_mode == "neighbours":
        return (
            "The context is in the target only: a\npatch alone is encoded, as by any "
            "patch encoder."
        )
    return (
        "MCM-KD is masked context modelling with knowledge distillation\n(Pisula & "
        "Bozek, arXiv 2403.05325); everything else is a control for it."
    )


def _card(
    folder: Path,
    student: Encoder,
    config: FinetuneConfig,
    summary: Mapping[str, Any],
    slides: Sequence[str],
) -> str:
    licence = (
        student.recipe.get("license") or "that of the student's pre-trained weights"
    )
    method = method_name(config)
    return f"""---
library_name: timm
tags: [histopathology, feature-extraction, napari-mcm]
---

# {folder.parent.name}: {student.architecture} by {method}

A patch encoder for whole-slide images, trained without labels by {method} in
napari-mcm {__version__}. {_about(config)}

| | |
|---|---|
| student | `{config.student}` |
| teacher | `{config.teacher}` |
| size | {measure_cost(student, config.grid.patch_size).describe()} |
| patches | {config.grid.patch_size} px at {summary["mpp"]:.4g} µm per pixel |
| context | {describe_context(config)} |
| target | {describe_target(config)} |
| trained on | {_describe_windows(config, summary["windows"])} of {len(slides)} slide(s), \
{summary["steps"]} steps, {config.optimiser.epochs} epoch(s) |
| loss ({config.target.loss}, target norm {config.target.target_norm}) | \
{_number(summary["loss_first"])} → {_number(summary["loss_last"])} |
{_held_out_row(summary)}\
| licence | {licence} |

The loss shows that training ran, not that features are better for a task: evaluate them
on labelled data before you rely on them. Not for clinical use.

```python
import timm
from safetensors.torch import load_file

model = timm.create_model("{student.architecture}", num_classes=0)
model.load_state_dict(load_file("model.safetensors"))
```

Preprocessing (mean, standard deviation) and every option are in `recipe.json`.
"""
