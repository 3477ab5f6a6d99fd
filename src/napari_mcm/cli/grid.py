"""Find the tissue on a slide, lay patches over it, and draw both."""

from __future__ import annotations

from napari_mcm.cli.output import Outcome, say, table
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.grid import GridOptions, PatchGrid, make_grid
from napari_mcm.core.tissue import TissueMask, find_tissue, write_mask
from napari_mcm.core.tissue.files import check_writable
from napari_mcm.core.tissue.mask import FOUND

_PICTURES = (".png", ".pdf", ".svg")


OPTIONS, POSITIONAL = GridOptions, "slide"


def run(options: GridOptions) -> Outcome:
    """Lay the grid, and draw it if an output file is given."""
    if options.out is not None and options.out.suffix.lower() not in _PICTURES:
        raise ConfigError(
            "is not an image format that can be written",
            options.out,
            f"Use {', '.join(_PICTURES)}",
        )
    if options.tissue_out is not None:
        check_writable(options.tissue_out)
    with options.read.open(options.slide) as slide:
        tissue = find_tissue(slide, options.tissue)
        grid = make_grid(slide, tissue, options.grid)
        if not len(grid):
            say("warning: there is no tissue to lay patches on")
        if options.tissue_out is not None:
            write_mask(options.tissue_out, tissue, slide)
        if options.out is not None:
            from napari_mcm.core.heatmaps.figures import draw_grid, save_figure

            save_figure(draw_grid(slide, tissue, grid), options.out)
    return _outcome(tissue, grid, options)


def _outcome(tissue: TissueMask, grid: PatchGrid, options: GridOptions) -> Outcome:
    result = {
        "patches": len(grid),
        "tissue_fraction": tissue.fraction,
        "tissue_source": tissue.source,
        "mpp": grid.mpp,
        "patch_size": grid.patch_size,
        "patch_um": grid.patch_um,
        "rows": grid.shape[0],
        "columns": grid.shape[1],
        "file": options.out,
        "tissue_file": options.tissue_out,
    }
    rows = [
        ("tissue", f"{_percent(tissue.fraction)} of the slide, {_source(tissue)}"),
        ("patches", f"{len(grid):,} on {grid.shape[0]} x {grid.shape[1]}"),
        (
            "patch",
            f"{grid.patch_size} px at {grid.mpp:.4g} µm per pixel "
            f"= {grid.patch_um:.4g} µm",
        ),
    ]
    if options.out is not None:
        rows.append(("image", str(options.out)))
    if options.tissue_out is not None:
        rows.append(("mask", str(options.tissue_out)))
    return Outcome(result, table(rows))


def _percent(fraction: float) -> str:
    # A biopsy on a large slide may cover only 0.2 %.
    return f"{fraction:.2%}" if fraction < 0.01 else f"{fraction:.1%}"


def _source(tissue: TissueMask) -> str:
    return tissue.source if tissue.source == FOUND else f"drawn in {tissue.source}"
