"""Metadata by which the plugin recognises its layers, and positions on a slide."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from napari_mcm.core.errors import SlideError

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mcm.core.slides import Slide


KEY = "napari-mcm"
"""Key of the plugin's entry in a layer's ``metadata``."""


@dataclass(frozen=True)
class SlideMetadata:
    """A slide as described in the metadata of its layer.

    Attributes
    ----------
    path, name : str
        Absolute path of the file, and name of the slide.
    size : tuple of int
        Width and height in level-0 pixels.
    mpp : tuple of float or None
        Microns per level-0 pixel along x and y; None if unknown.
    mpp_override : float or None
        Microns per level-0 pixel that the user entered; None to use the file's.
    """

    path: str
    name: str
    size: tuple[int, int]
    mpp: tuple[float, float] | None
    mpp_override: float | None = None

    @classmethod
    def of_slide(cls, slide: Slide) -> SlideMetadata:
        """Return the metadata of an open slide."""
        path = str(Path(slide.path).absolute())
        return cls(path, slide.name, slide.size, slide.stated_mpp, slide.mpp_override)

    @classmethod
    def of_layer(cls, layer: Layer) -> SlideMetadata | None:
        """Return the metadata in a layer; None if it is not a slide of the plugin."""
        if kind_of(layer) != "slide":
            return None
        described = layer.metadata[KEY]
        return cls(**{key: described[key] for key in cls.__dataclass_fields__})


def kind_of(layer: Layer) -> str:
    """Return the kind of a layer of the plugin; an empty string for other layers."""
    described = layer.metadata.get(KEY)
    return described.get("kind", "") if isinstance(described, dict) else ""


def metadata_of(slide: Slide) -> dict[str, Any]:
    """Return the ``metadata`` for the layer of a slide."""
    metadata = SlideMetadata.of_slide(slide)
    return {KEY: {"kind": "slide", **asdict(metadata), "slide": slide}}


def slide_of(layer: Layer | None) -> Slide | None:
    """Return the open slide that a layer shows; None if it shows none of the plugin."""
    described = layer.metadata.get(KEY) if layer is not None else None
    return described.get("slide") if isinstance(described, dict) else None


def truncated(slide: Slide | None) -> str:
    """Return a sentence that a slide's file is truncated; empty for a whole file.

    Parameters
    ----------
    slide : Slide or None
        An open slide.
    """
    if slide is None or not slide.truncation:
        return ""
    return f"{Path(slide.path).name} {slide.truncation}. Copy the file again."


# By a name in the metadata, not by a reference: metadata is copied and written.
_slides: WeakValueDictionary[str, Layer] = WeakValueDictionary()


def owner_of(layer: Layer) -> Layer | None:
    """Return the layer of the slide that a layer of the plugin lies on.

    Parameters
    ----------
    layer : Layer
        Any layer. A slide is its own owner.

    Returns
    -------
    Layer or None
        None for layers of others, and for layers without a slide. The slide may have
        been removed from the viewer.
    """
    if (kind := kind_of(layer)) == "slide":
        return layer
    return _slides.get(layer.metadata[KEY].get("owner", "")) if kind else None


def give_to(layer: Layer, slide: Layer | None) -> None:
    """Make a layer of the plugin belong to a slide.

    Parameters
    ----------
    layer : Layer
        A layer of the plugin, not a slide.
    slide : Layer or None
        Layer of the slide; None for a layer without a slide.
    """
    owner = "" if slide is None else _name_of(slide)
    described = {**layer.metadata.get(KEY, {}), "owner": owner}
    layer.metadata = {**layer.metadata, KEY: described}


def _name_of(slide: Layer) -> str:
    name = str(slide.unique_id)
    _slides[name] = slide
    return name


def layer_with(fingerprint: str, layers: Sequence[Layer]) -> Layer | None:
    """Find the layer of a slide by the slide's fingerprint.

    Parameters
    ----------
    fingerprint : str
        Fingerprint of the slide. Computing those of open slides reads their files, so
        call this in a thread.
    layers : sequence of Layer
        Layers of slides, from the bottom up.

    Returns
    -------
    Layer or None
        The uppermost match; None if no layer shows the slide.
    """
    for layer in reversed(layers):
        slide = slide_of(layer)
        # Without its file, a slide cannot be identified.
        with suppress(SlideError):
            if slide is not None and slide.fingerprint == fingerprint:
                return layer
    return None


def with_mpp(slide: Slide, mpp: float) -> Slide:
    """Return a copy of an open slide with another resolution.

    Parameters
    ----------
    slide : Slide
        An open slide.
    mpp : float
        Microns per level-0 pixel.
    """
    return replace(slide, opened_with=replace(slide.opened_with, mpp=mpp))


Pair = Sequence[float]
"""Two numbers, (x, y) or (width, height), in level-0 pixels."""

CORNER, PIXEL = (0.0, 0.0), (1.0, 1.0)
"""Default origin and pixel size: those of the slide itself."""


def placed(slide: Layer | None, origin: Pair, step: Pair) -> tuple[Any, Any]:
    """Return the scale and translation of an image that lies on a slide.

    Parameters
    ----------
    slide : Layer or None
        Layer of the slide; None for an image without a slide.
    origin, step : sequence of float
        Upper left corner (x, y), and width and height of a pixel, in level-0 pixels.

    Returns
    -------
    tuple of ndarray
        Scale and translation (y, x) of the image's layer.
    """
    corner, size = np.asarray(origin[::-1], float), np.asarray(step[::-1], float)
    if slide is None:
        return size, corner
    # napari has pixel centres at whole numbers: the centre of the first pixel of `size`
    # is (size - 1) / 2 from the centre of the slide's first pixel.
    return slide.scale * size, slide.translate + slide.scale * (corner + (size - 1) / 2)


def place(
    layer: Layer, slide: Layer | None, origin: Pair = CORNER, step: Pair = PIXEL
) -> bool:
    """Move a layer to its position on a slide; return whether it moved.

    An unchanged position is not set again: napari would compute the extent of all
    layers, which takes longer than a query.

    Parameters
    ----------
    layer : Layer
        The layer to move.
    slide, origin, step
        As :func:`placed` takes them.
    """
    scale, translate = placed(slide, origin, step)
    affine = _affine_of(slide)
    if not np.array_equal(layer.affine.affine_matrix, affine):
        layer.affine = affine
    same_scale = np.array_equal(layer.scale, scale)
    if same_scale and np.array_equal(layer.translate, translate):
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
    """Return the arguments for a new layer on a slide: position, units and metadata.

    Units and axis labels are the slide's: napari ignores units if layers differ in them.

    Parameters
    ----------
    slide, origin, step
        As :func:`placed` takes them.
    kind : str
        Kind of the layer, see :func:`kind_of`.
    **metadata : str
        More entries for the plugin's metadata.
    """
    scale, translate = placed(slide, origin, step)
    made: dict[str, Any] = {
        "scale": scale,
        "translate": translate,
        "metadata": {KEY: {"kind": kind, **metadata}},
    }
    if slide is not None:
        made["metadata"][KEY]["owner"] = _name_of(slide)
        made |= {"units": slide.units, "axis_labels": slide.axis_labels}
        made["affine"] = _affine_of(slide)
    return made


def _affine_of(slide: Layer | None) -> Any:
    """Return a copy of the transform that lays a section over the one it is linked to."""
    return np.eye(3) if slide is None else np.array(slide.affine.affine_matrix)


LayerData = tuple[Any, dict[str, Any], str]
"""Data, arguments and type of a layer, as napari's readers return them."""
