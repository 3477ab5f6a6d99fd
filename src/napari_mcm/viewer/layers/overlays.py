"""Layers that show tissue masks and patch grids over a slide."""

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
# RGBA of the two kinds of squares. One of pale and dark is visible on any tissue, and
# the stain shows through both.
GRID_COLOURS = ((1.0, 0.85, 0.4, 0.45), (0.0, 0.0, 0.2, 0.6))
GRID_OPACITY = 0.55
BRUSH_UM = 200.0
"""Initial diameter of the brush in microns."""


def add_tissue(layers: LayerStack, slide: Layer, tissue: TissueMask) -> Labels:
    """Add a tissue mask as a labels layer that the user can paint on.

    Parameters
    ----------
    layers : LayerStack
        Layers of the viewer.
    slide : Layer
        Layer of the slide; the mask goes above it.
    tissue : TissueMask
        The mask, of which the layer gets a copy.
    """
    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

    # All labels have one colour: any number is tissue, and 0 is background.
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


def prepare_labels() -> None:
    """Import what napari's labels layers need, which takes half a second.

    Call it in a thread, so that showing the first mask does not freeze the window.
    """
    from napari.layers import Labels

    Labels(np.zeros((2, 2), np.uint8))


def redraw_tissue(slide: Layer, layer: Labels, tissue: TissueMask) -> None:
    """Update the layer of a tissue mask.

    Parameters
    ----------
    slide : Layer
        Layer of the slide.
    layer : Labels
        Layer from :func:`add_tissue`.
    tissue : TissueMask
        The new mask.
    """
    place(layer, slide, CORNER, tissue.downsample)
    layer.data = tissue.mask.astype(np.uint8)


def chequered(grid: PatchGrid) -> NDArray[np.float32]:
    """Return an image of a grid as a chequerboard, with one pixel per patch.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        0 or 1 for patches, so that neighbours differ; NaN elsewhere.
    """
    return grid.raster(grid.lattice.sum(axis=1) % 2)


def add_grid(
    layers: LayerStack, slide: Layer, grid: PatchGrid, raster: NDArray[np.float32]
) -> Image:
    """Add the image of a patch grid as a layer.

    An image, because napari's shapes are too slow for more than a thousand patches.

    Parameters
    ----------
    layers : LayerStack
        Layers of the viewer.
    slide : Layer
        Layer of the slide.
    grid : PatchGrid
        The grid.
    raster : ndarray of float32, shape (rows, columns)
        Image of the grid, from :func:`chequered`.
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
    """Update the layer of a patch grid.

    Parameters
    ----------
    slide : Layer
        Layer of the slide.
    layer : Image
        Layer from :func:`add_grid`.
    grid : PatchGrid
        The new grid.
    raster : ndarray of float32, shape (rows, columns)
        Image of the grid, from :func:`chequered`.
    """
    place(layer, slide, grid.origin, grid.patch_size_level0)
    layer.data = raster
