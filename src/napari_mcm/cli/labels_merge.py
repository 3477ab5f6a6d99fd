"""Merge the label files of several people, and list where they disagree.

A place with several labels has the class of the majority. Without a majority it is left
out of the merged file, and listed.
"""

from __future__ import annotations

from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.labelling.config import MergeLabelsConfig

OPTIONS, POSITIONAL = MergeLabelsConfig, "labels"
_SHOWN = 20


def run(options: MergeLabelsConfig) -> Outcome:
    """Merge the files."""
    from napari_mcm.core.labelling.merging import merge_files

    merged, differing = merge_files(options)
    lines = []
    for one in differing[:_SHOWN]:
        slide, x, y = merged.slide_name(one.place[0]), *one.place[1:3]
        opinions = ", ".join(
            f"{label.label} ({label.author or 'unnamed'})" for label in one.labels
        )
        lines.append(f"{slide} at {x},{y}: {opinions}; {one.chosen or 'left out'}")
    if len(differing) > _SHOWN:
        rest = len(differing) - _SHOWN
        lines.append(f"... and {rest} more; --disagreements FILE has all")
    counts = merged.counts()
    about = [
        ("labels", ", ".join(f"{count} {name}" for name, count in counts.items())),
        ("slides", str(len(merged.slides))),
        ("differ", f"{len(differing)} places"),
        ("left out", f"{sum(not one.chosen for one in differing)} without a majority"),
        ("file", str(options.out)),
    ]
    result = {
        "file": options.out,
        "labels": len(merged),
        "counts": counts,
        "disagreements": [
            {
                "slide": one.place[0],
                "x": one.place[1],
                "y": one.place[2],
                "labels": {label.author: label.label for label in one.labels},
                "chosen": one.chosen or None,
            }
            for one in differing
        ],
    }
    return Outcome(result, [*lines, *([""] if lines else []), *table(about)])
