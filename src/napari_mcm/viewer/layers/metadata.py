"""What the plugin writes into a slide layer's metadata, to know it again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm.core.errors import SlideError

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.slides import Slide


KEY = "napari-mcm"
"""Under this key a layer's ``metadata`` holds what the plugin knows of it."""


@dataclass(frozen=True)
class SlideMetadata:
    """A slide as a layer's metadata describe it.

    Attributes
    ----------
    path, name : str
        The file, and the slide's identifier.
    size : tuple of int
        Width and height in level-0 pixels.
    mpp : tuple of float or None
        Microns per level-0 pixel along x and y; None where nobody has said.
    mpp_override : float or None
        What the user stated in the file's stead.
    """

    path: str
    name: str
    size: tuple[int, int]
    mpp: tuple[float, float] | None
    mpp_override: float | None = None

    @classmethod
    def of_slide(cls, slide: Slide) -> SlideMetadata:
        """Take the facts of an open slide."""
        path = str(Path(slide.path).absolute())
        return cls(path, slide.name, slide.size, slide.stated_mpp, slide.mpp_override)

    @classmethod
    def of_layer(cls, layer: Layer) -> SlideMetadata | None:
        """Take the facts from a layer; None where it is not a slide of this plugin."""
        if kind_of(layer) != "slide":
            return None
        described = layer.metadata[KEY]
        return cls(**{key: described[key] for key in cls.__dataclass_fields__})


def kind_of(layer: Layer) -> str:
    """Return what a layer is to this plugin; nothing where it is none of its own."""
    described = layer.metadata.get(KEY)
    return described.get("kind", "") if isinstance(described, dict) else ""


def metadata_of(slide: Slide) -> dict[str, Any]:
    """Return what goes into the ``metadata`` of a slide's layer."""
    metadata = SlideMetadata.of_slide(slide)
    return {KEY: {"kind": "slide", **asdict(metadata), "slide": slide}}


def slide_of(layer: Layer | None) -> Slide | None:
    """Return the open slide that a layer shows; None where it is not of this plugin."""
    described = layer.metadata.get(KEY) if layer is not None else None
    return described.get("slide") if isinstance(described, dict) else None


def layer_with(fingerprint: str, layers: Sequence[Layer]) -> Layer | None:
    """Find the layer that shows a slide, whatever its name and its file's.

    Parameters
    ----------
    fingerprint : str
        Fingerprint of the slide. Reads the slides, so call it in a thread.
    layers : sequence of Layer
        Layers of slides, the uppermost last.

    Returns
    -------
    Layer or None
        The uppermost; None where no layer shows the slide.
    """
    for layer in reversed(layers):
        slide = slide_of(layer)
        # A file that is gone since is no longer known to be that slide.
        with suppress(SlideError):
            if slide is not None and slide.fingerprint == fingerprint:
                return layer
    return None


def with_mpp(slide: Slide, mpp: float) -> Slide:
    """Return the same open slide with the resolution that the user states."""
    return replace(slide, asked=replace(slide.asked, mpp=mpp))


Pair = Sequence[float]

CORNER, PIXEL = (0.0, 0.0), (1.0, 1.0)


def placed(slide: Layer | None, origin: Pair, step: Pair) -> tuple[Any, Any]:
    """Return where a picture lies in a slide's world.

    Parameters
    ----------
    slide : Layer or None
        The slide's layer; None for a picture in pixels of its own.
    origin, step : sequence of float
        Upper left corner (x, y), and a pixel's width and height, in level-0 pixels.

    Returns
    -------
    tuple of ndarray
        Scale and translation (y, x) of the picture's layer.
    """
    corner, size = np.asarray(origin[::-1], float), np.asarray(step[::-1], float)
    if slide is None:
        return size, corner
    # Pixels have their centres at whole numbers, so larger ones begin further out.
    return slide.scale * size, slide.translate + slide.scale * (corner + (size - 1) / 2)


def place(
    layer: Layer, slide: Layer | None, origin: Pair = CORNER, step: Pair = PIXEL
) -> bool:
    """Put a layer where :func:`placed` tells; gives whether it was elsewhere.

    To set the same place again would have the viewer work out the extent of all layers,
    which takes longer than a query.
    """
    scale, translate = placed(slide, origin, step)
    here = np.array_equal(layer.scale, scale)
    if here and np.array_equal(layer.translate, translate):
        return False
    layer.scale, layer.translate = scale, translate
    return True


def on_slide(
    slide: Layer | None,
    kind: str,
    origin: Pair = CORNER,
    step: Pair = PIXEL,
    **metadata: str,
) -> dict[str, Any]:
    """Return what a new layer is made with: its place, and how it is known again.

    Units and axes are the slide's: one layer of others would have napari ignore all.
    """
    scale, translate = placed(slide, origin, step)
    made = {
        "scale": scale,
        "translate": translate,
        "metadata": {KEY: {"kind": kind, **metadata}},
    }
    if slide is not None:
        made |= {"units": slide.units, "axis_labels": slide.axis_labels}
    return made


LayerData = tuple[Any, dict[str, Any], str]
