"""Draw what a trained run attends to on a slide, and check that it matters.

Writes maps (PNG, OME-TIFF, GeoJSON), the weights of the patches, the top patches as a
gallery, and how the score changes without the top patches.
"""

from __future__ import annotations

from dataclasses import asdict

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.mil.config import AttentionConfig

OPTIONS, POSITIONAL = AttentionConfig, "run"


def run(options: AttentionConfig) -> Outcome:
    """Compute the attention and write the files."""
    from napari_mcm.core.mil.attention import attention
    from napari_mcm.core.mil.bags import covered

    done = drive(attention(options))
    check = done.occlusion
    rows = [
        ("slide", done.slide),
        ("class", f"{done.class_name} ({done.probabilities[done.class_name]:.3f})"),
        ("shows", done.heatmap.title),
        ("covers", f"{covered(done.neighbourhood)}, as in training"),
        (
            "attended",
            f"{done.effective:.1f} of {len(done.weights)} patches (effective)",
        ),
    ]
    if check is not None:
        rows.append(
            (
                "occlusion",
                f"without the top {check.removed} patches {-check.drop_top:+.3f}, "
                f"without random ones {-check.drop_random:+.3f} "
                f"(sd {check.drop_random_sd:.3f})",
            )
        )
    if done.caveat:
        rows.append(("note", done.caveat))
    rows += [("file", str(file)) for file in done.files]
    result = {
        "slide": done.slide,
        "class": done.class_name,
        "probabilities": done.probabilities,
        "effective_patches": done.effective,
        "neighbourhood": done.neighbourhood.model_dump(),
        "top_patches": done.top,
        "occlusion": None if check is None else asdict(check),
        "note": done.caveat,
        "files": done.files,
    }
    return Outcome(result, table(rows))
