"""Show reconstructions of a masked autoencoder, and measure their errors.

Errors of hidden and of visible patches are separate, for each --mask-ratio. The loss
trains hidden patches only, so the output for visible ones means nothing. The blur of
the visible pixels is the baseline: a model without structure reaches it, too.
"""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome
from napari_mcm.core.mae.config import ReconstructConfig

OPTIONS, POSITIONAL = ReconstructConfig, "paths"


def run(options: ReconstructConfig) -> Outcome:
    """Reconstruct the images, measure the errors and draw them."""
    from napari_mcm.core.mae.reconstruction import reconstruct_pictures

    done = drive(reconstruct_pictures(options))
    result = {
        "images": done.images,
        "skipped": done.skipped,
        "errors": {f"{ratio:g}": errors for ratio, errors in done.errors.items()},
        "figure": done.figure,
    }
    lines = [
        f"{done.images} images, {done.skipped} files skipped; mean squared error on "
        "the loss's scale, and root mean square in grey levels",
        "hidden  error hidden  error visible  grey hidden  grey visible  grey blur",
    ]
    lines += [
        f"{ratio:>5.0%}  {e['error_hidden']:>13.4f}  {e['error_visible']:>13.4f}  "
        f"{e['pixel_error_hidden']:>11.1f}  {e['pixel_error_visible']:>12.1f}  "
        f"{e['pixel_error_blur']:>9.1f}"
        for ratio, e in done.errors.items()
    ]
    if done.figure is not None:
        lines.append(f"figure  {done.figure}")
    return Outcome(result, lines)
