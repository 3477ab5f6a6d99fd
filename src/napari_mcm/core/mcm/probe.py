"""The probe on labelled slides that runs beside a training."""

from __future__ import annotations

from contextlib import ExitStack

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.evaluation.held_out import HeldOutProbe, read_probe
from napari_mcm.core.grid import PatchGrid, make_grid
from napari_mcm.core.jobs import Job, Progress
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.tissue import find_tissue


def read_probe_slides(
    config: FinetuneConfig, mpp: float, stack: ExitStack
) -> Job[HeldOutProbe]:
    """Read labelled patches of the slides to probe on.

    Parameters
    ----------
    config : FinetuneConfig
        Its ``held_out`` names slides and labels.
    mpp : float
        Resolution of patches, in microns per pixel.
    stack : ExitStack
        Closes the slides.

    Raises
    ------
    ConfigError
        If a slide is one of those learned from.
    """
    asked = config.held_out
    learned = {path.resolve() for path in config.slides}
    for path in asked.probe_slides:
        if path.resolve() in learned:
            raise ConfigError("is learned from", f"--probe-slides {path}")
    grid_config = config.grid.model_copy(update={"mpp": mpp, "allow_upsampling": True})
    slides = [stack.enter_context(config.read.open(p)) for p in asked.probe_slides]
    grids: list[PatchGrid] = []
    for number, slide in enumerate(slides):
        yield Progress("Finding tissue to probe on", number, len(slides), "slides")
        tissue = find_tissue(slide, config.tissue)
        grids.append(make_grid(slide, tissue, grid_config))
    return (
        yield from read_probe(
            slides, grids, asked.probe_labels, seed=config.optimiser.seed
        )
    )
