"""Find the tissue on a slide, lay patches over it, and draw both."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.cli.output import Outcome, say, table
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueConfig, TissueMask, find_tissue

_PICTURES = (".png", ".pdf", ".svg")


class GridOptions(BaseModel):
    """Which slide, and where the picture goes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: Path = Field(description="Slide file.")
    out: Path | None = Field(
        None, description="Picture of tissue and patches to write: .png, .pdf or .svg."
    )
    mpp_override: float | None = Field(
        None,
        gt=0,
        description="µm per pixel of a slide that states none, or a wrong one.",
    )
    grid: GridConfig = GridConfig()
    tissue: TissueConfig = TissueConfig()


OPTIONS, POSITIONAL = GridOptions, "slide"


def run(options: GridOptions) -> Outcome:
    """Lay the grid, and draw it where a picture is asked for."""
    if options.out is not None and options.out.suffix.lower() not in _PICTURES:
        raise ConfigError(
            "is no picture that can be written",
            options.out,
            f"Use {', '.join(_PICTURES)}",
        )
    with open_slide(options.slide, options.mpp_override) as slide:
        tissue = find_tissue(slide, options.tissue)
        grid = make_grid(slide, tissue, options.grid)
        if not len(grid):
            say("warning: there is no tissue to lay patches on")
        if options.out is not None:
            from napari_mcm.core.heatmaps.figures import draw_grid, save_figure

            save_figure(draw_grid(slide, tissue, grid), options.out)
    return _outcome(tissue, grid, options.out)


def _outcome(tissue: TissueMask, grid: PatchGrid, file: Path | None) -> Outcome:
    result = {
        "patches": len(grid),
        "tissue_fraction": tissue.fraction,
        "mpp": grid.mpp,
        "patch_size": grid.patch_size,
        "patch_um": grid.patch_um,
        "rows": grid.shape[0],
        "columns": grid.shape[1],
        "file": file,
    }
    rows = [
        ("tissue", f"{tissue.fraction:.1%} of the slide"),
        ("patches", f"{len(grid):,} on {grid.shape[0]} x {grid.shape[1]}"),
        (
            "patch",
            f"{grid.patch_size} px at {grid.mpp:.4g} µm per pixel "
            f"= {grid.patch_um:.4g} µm",
        ),
    ]
    if file is not None:
        rows.append(("picture", str(file)))
    return Outcome(result, table(rows))
