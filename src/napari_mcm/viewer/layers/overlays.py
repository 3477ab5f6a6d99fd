"""Tissue masks and grids of patches as layers over a slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_mcm.viewer.layers.metadata import CORNER, on_slide, place

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer
    from numpy.typing import NDArray

    from napari_mcm.core.grid import PatchGrid
    from napari_mcm.core.tissue import TissueMask
    from napari_mcm.viewer.layers.stack import LayerStack

TISSUE_COLOUR = (0.0, 0.75, 0.45, 1.0)
TISSUE_OPACITY = 0.3
# Pale and dark: one of them is seen on any tissue, and what is stained how through both.
GRID_COLOURS = ((1.0, 0.85, 0.4, 0.45), (0.0, 0.0, 0.2, 0.6))
GRID_OPACITY = 0.55
BRUSH_UM = 200.0


def add_tissue(layers: LayerStack, slide: Layer, tissue: TissueMask) -> Labels:
    """Add a mask as a layer that can be painted on.

    Parameters
    ----------
    layers : LayerStack
        Where to.
    slide : Layer
        The slide's layer, above which it is put.
    tissue : TissueMask
        The mask; the layer gets a copy.
    """
    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

    # All labels look alike: whatever is painted is tissue, and 0 is none.
    colours = DirectLabelColormap(color_dict={None: TISSUE_COLOUR, 0: (0, 0, 0, 0)})
    layer = Labels(
        tissue.mask.astype(np.uint8),
        name=f"tissue: {slide.name}",
        colormap=colours,
        opacity=TISSUE_OPACITY,
        **on_slide(slide, "tissue", CORNER, tissue.downsample),
    )
    layer.brush_size = max(round(BRUSH_UM / float(layer.scale[0])), 3)
    return layers.add(layer, over=slide)


def warm_up() -> None:
    """Have napari import and prepare what its first layer of labels needs.

    Called in a thread: it takes half a second, which the window is spared.
    """
    from napari.layers import Labels

    Labels(np.zeros((2, 2), np.uint8))


def redraw_tissue(slide: Layer, layer: Labels, tissue: TissueMask) -> None:
    """Show another mask in its layer."""
    place(layer, slide, CORNER, tissue.downsample)
    layer.data = tissue.mask.astype(np.uint8)


def chequered(grid: PatchGrid) -> NDArray[np.float32]:
    """Make a picture of a grid, one pixel a patch, in which neighbours differ."""
    return grid.raster(grid.lattice.sum(axis=1) % 2)


def add_grid(
    layers: LayerStack, slide: Layer, grid: PatchGrid, raster: NDArray[np.float32]
) -> Image:
    """Add a grid's picture as a layer. Shapes would be too slow beyond a thousand.

    Parameters
    ----------
    layers : LayerStack
        Where to.
    slide : Layer
        The slide's layer.
    grid : PatchGrid
        Where the patches lie.
    raster : ndarray
        Its picture, from :func:`chequered`.
    """
    from napari.layers import Image
    from napari.utils.colormaps import Colormap

    layer = Image(
        raster,
        name=f"patches: {slide.name}",
        colormap=Colormap(GRID_COLOURS, name="patches"),
        contrast_limits=(0, 1),
        interpolation2d="nearest",
        blending="translucent",
        opacity=GRID_OPACITY,
        **on_slide(slide, "grid", grid.origin, grid.patch_size_level0),
    )
    return layers.add(layer)


def redraw_grid(
    slide: Layer, layer: Image, grid: PatchGrid, raster: NDArray[np.float32]
) -> None:
    """Show another grid in its layer."""
    place(layer, slide, grid.origin, grid.patch_size_level0)
    layer.data = raster
