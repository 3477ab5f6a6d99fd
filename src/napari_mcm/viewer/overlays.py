"""Tissue masks and grids of patches as layers over a slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.viewer.layers import placement, world_of
from napari_mcm.viewer.slide_facts import KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer
    from numpy.typing import NDArray

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.tissue import TissueMask

TISSUE_COLOUR = (0.0, 0.75, 0.45, 1.0)
TISSUE_OPACITY = 0.3
# Pale and dark: one of them is seen on any tissue, and what is stained how through both.
GRID_COLOURS = ((1.0, 0.85, 0.4, 0.45), (0.0, 0.0, 0.2, 0.6))
GRID_OPACITY = 0.55
BRUSH_UM = 200.0


def add_tissue(viewer: ViewerModel, slide: Layer, tissue: TissueMask) -> Labels:
    """Add a mask as a layer that can be painted on.

    Parameters
    ----------
    viewer : ViewerModel
        Where to.
    slide : Layer
        The slide's layer, above which it is put.
    tissue : TissueMask
        The mask; the layer gets a copy.
    """
    from napari.utils.colormaps import DirectLabelColormap

    active = viewer.layers.selection.active
    scale, translate = mask_placement(slide, tissue)
    # All labels look alike: whatever is painted is tissue, and 0 is none.
    colours = DirectLabelColormap(color_dict={None: TISSUE_COLOUR, 0: (0, 0, 0, 0)})
    layer: Labels = viewer.add_labels(
        tissue.mask.astype(np.uint8),
        name=f"tissue: {slide.name}",
        colormap=colours,
        opacity=TISSUE_OPACITY,
        scale=scale,
        translate=translate,
        metadata={KEY: {"kind": "tissue"}},
        **world_of(slide),
    )
    layer.brush_size = max(round(BRUSH_UM / float(scale[0])), 3)
    viewer.layers.move(viewer.layers.index(layer), viewer.layers.index(slide) + 1)
    viewer.layers.selection.active = active
    return layer


def warm_up() -> None:
    """Have napari import and prepare what its first layer of labels needs.

    Called in a thread: it takes half a second, which the window is spared.
    """
    from napari.layers import Labels

    Labels(np.zeros((2, 2), np.uint8))


def redraw_tissue(slide: Layer, layer: Labels, tissue: TissueMask) -> None:
    """Show another mask in its layer."""
    layer.scale, layer.translate = mask_placement(slide, tissue)
    layer.data = tissue.mask.astype(np.uint8)


def mask_placement(slide: Layer, tissue: TissueMask) -> tuple[Any, Any]:
    """Tell scale and translation (y, x) of a mask's layer in the slide's world."""
    step = np.asarray(tissue.downsample[::-1])
    # Pixels have their centres at whole numbers, so larger ones begin further out.
    return slide.scale * step, slide.translate + slide.scale * (step - 1) / 2


def chequered(grid: PatchGrid) -> NDArray[np.float32]:
    """Make a picture of a grid, one pixel a patch, in which neighbours differ."""
    return grid.raster(grid.lattice.sum(axis=1) % 2)


def add_grid(
    viewer: ViewerModel, slide: Layer, grid: PatchGrid, raster: NDArray[np.float32]
) -> Image:
    """Add a grid's picture as a layer. Shapes would be too slow beyond a thousand.

    Parameters
    ----------
    viewer : ViewerModel
        Where to.
    slide : Layer
        The slide's layer.
    grid : PatchGrid
        Where the patches lie.
    raster : ndarray
        Its picture, from :func:`chequered`.
    """
    from napari.utils.colormaps import Colormap

    active = viewer.layers.selection.active
    scale, translate = placement(slide, grid)
    layer: Image = viewer.add_image(
        raster,
        name=f"patches: {slide.name}",
        colormap=Colormap(GRID_COLOURS, name="patches"),
        contrast_limits=(0, 1),
        interpolation2d="nearest",
        blending="translucent",
        opacity=GRID_OPACITY,
        scale=scale,
        translate=translate,
        metadata={KEY: {"kind": "grid"}},
        **world_of(slide),
    )
    viewer.layers.selection.active = active
    return layer


def redraw_grid(
    slide: Layer, layer: Image, grid: PatchGrid, raster: NDArray[np.float32]
) -> None:
    """Show another grid in its layer."""
    layer.scale, layer.translate = placement(slide, grid)
    layer.data = raster
