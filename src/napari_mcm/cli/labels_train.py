"""Train a classifier of patches from a label file and the features of its slides.

The same labels and features give the same classifier as in the Classes widget, to the
bit. It is applied with `classify patches`.
"""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.labelling.config import TrainPatchesConfig

OPTIONS, POSITIONAL = TrainPatchesConfig, "labels features"


def run(options: TrainPatchesConfig) -> Outcome:
    """Train the classifier and write its file."""
    from napari_mcm.core.labelling.training import train_patches

    done = drive(train_patches(options))
    made, held_out = done.classifier, done.held_out
    counts = dict(zip(made.names, made.counts, strict=True))
    rows = [
        ("labels", ", ".join(f"{count} {name}" for name, count in counts.items())),
        ("slides", str(len(done.labelled.slides))),
        ("covers", made.config.neighbourhood.describe()),
        (
            "calibrated",
            f"yes, temperature {made.temperature:.3g}"
            if made.calibrated
            else "no: 20 labels are needed, two each of two classes",
        ),
    ]
    if held_out is not None:
        by = "slides" if held_out.by_slide else "labels, optimistic for other slides"
        rows.append(
            (
                "accuracy",
                f"{held_out.mean:.3f} [{held_out.low:.3f}, {held_out.high:.3f}] on "
                f"held-out {by} ({held_out.n_folds} folds)",
            )
        )
    result = {
        "classifier": done.file,
        "classes": made.names,
        "counts": counts,
        "slides": done.labelled.slides,
        "calibrated": made.calibrated,
        "temperature": made.temperature,
        "held_out": None if held_out is None else vars(held_out),
        "outside": done.labelled.outside,
        "elsewhere": done.labelled.elsewhere,
    }
    return Outcome(result, table([*rows, ("file", str(done.file))]))
