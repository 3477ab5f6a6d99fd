"""What a fine-tuning hands on: the student alone, with its recipe and model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_mcm import __version__
from napari_mcm.core.encoders import Encoder, save_encoder
from napari_mcm.core.mcm.config import FinetuneConfig


def export_student(
    folder: Path,
    student: Encoder,
    teacher: Encoder,
    config: FinetuneConfig,
    summary: Mapping[str, Any],
    slides: Sequence[str],
) -> Path:
    """Write the fine-tuned student so that timm alone can load it.

    Transformer and predictor are dropped: they served their purpose.

    Parameters
    ----------
    folder : Path
        Gets ``model.safetensors``, ``recipe.json`` and ``README.md``.
    student, teacher : Encoder
        The student as trained, the teacher as used.
    config : FinetuneConfig
        Options of the run.
    summary : mapping
        Its figures.
    slides : sequence of str
        Names of the slides learned from.
    """
    recipe = {
        **student.recipe,
        "fine_tuning": {
            "method": "MCM-KD",
            "student": config.student,
            "student_fingerprint": student.fingerprint,
            "teacher": config.teacher,
            "teacher_fingerprint": teacher.fingerprint,
            "patch_size": config.grid.patch_size,
            "mpp": summary["mpp"],
            "options": config.model_dump(
                mode="json", include={"context", "target", "optimiser"}
            ),
            "slides": list(slides),
            "summary": dict(summary),
            "version": __version__,
        },
    }
    card = _card(folder, student, config, summary, slides)
    student.module.eval()
    return save_encoder(folder, student.module, recipe, card)


def _card(
    folder: Path,
    student: Encoder,
    config: FinetuneConfig,
    summary: Mapping[str, Any],
    slides: Sequence[str],
) -> str:
    licence = student.recipe.get("license") or "that of the student's own weights"
    return f"""---
library_name: timm
tags: [histopathology, feature-extraction, napari-mcm]
---

# {folder.parent.name}: {student.architecture} fine-tuned by MCM-KD

A patch encoder for whole-slide images, fine-tuned without labels by masked context
modelling with knowledge distillation (Pisula & Bozek, arXiv 2403.05325) in
napari-mcm {__version__}.

| | |
|---|---|
| student | `{config.student}` |
| teacher | `{config.teacher}` |
| patches | {config.grid.patch_size} px at {summary["mpp"]:.4g} µm per pixel |
| context window | {config.context.s} × {config.context.s} patches, \
{config.context.mask_ratio:.0%} masked |
| learned from | {summary["windows"]} windows of {len(slides)} slide(s), \
{summary["steps"]} steps, {config.optimiser.epochs} epoch(s) |
| loss (l1 to scaled teacher features) | {summary["loss_first"]:.4f} → \
{summary["loss_last"]:.4f} |
| licence | {licence} |

The loss says that training ran, not that features are better for a task: evaluate them
on labelled data before relying on them. Not for clinical use.

```python
import timm
from safetensors.torch import load_file

model = timm.create_model("{student.architecture}", num_classes=0)
model.load_state_dict(load_file("model.safetensors"))
```

Preprocessing (mean, standard deviation) and every option are in `recipe.json`.
"""
