"""TRIDENT: one HDF5 file per slide, with the patches' attributes on ``coords``.

The format is that of ``trident/IO.py`` (``save_h5``, ``coords_to_h5``) of
mahmoodlab/TRIDENT. CLAM, torchmil, TITAN and Patho-Bench read ``features`` and ``coords``
of the same file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mcm import __version__
from napari_mcm.core.features.interchange.containers import (
    has,
    matrix,
    new_h5,
    number,
    open_h5,
    pair,
    put,
    text,
)
from napari_mcm.core.features.interchange.record import (
    MICRONS_AT_1X,
    ForeignFeatures,
    Rows,
    stated_neighbourhood,
)

if TYPE_CHECKING:
    import h5py


def is_one(file: h5py.File) -> bool:
    """Return whether a file is TRIDENT's.

    Parameters
    ----------
    file : h5py.File
        Open for reading.

    Returns
    -------
    bool
        True where its coordinates state the size of a patch on level 0.
    """
    return (
        has(file, "features")
        and has(file, "coords")
        and "patch_size_level0" in file["coords"].attrs
    )


def read(
    path: Path, encoder: str | None = None, coords: Path | None = None
) -> ForeignFeatures:
    """Read ``features_<encoder>/<slide>.h5``.

    Parameters
    ----------
    path : Path
        The file.
    encoder : str, optional
        Name of the encoder; by default as in the file.
    coords : Path, optional
        Not used.

    Returns
    -------
    ForeignFeatures
        Features with the positions of their patches.
    """
    with open_h5(path) as file:
        features = matrix(file, "features", "f")
        xy = matrix(file, "coords", "iuf", columns=2)
        stated: dict[str, Any] = dict(file["coords"].attrs)
        about: dict[str, Any] = dict(file["features"].attrs)
    patch_px = number(stated, "patch_size")
    slide_size = pair(stated, "level0_width", "level0_height")
    return ForeignFeatures(
        kind="trident",
        features=features.astype(np.float32, copy=False),
        xy=xy.astype(np.float64),
        name=text(stated, "name", path.stem),
        encoder=encoder or text(about, "encoder", "unknown"),
        size=_size(stated),
        patch_px=round(patch_px) if patch_px else None,
        mpp=pair(stated, "level0_mpp_x", "level0_mpp_y"),
        magnification=number(stated, "level0_magnification"),
        slide_size=slide_size and (int(slide_size[0]), int(slide_size[1])),
        precision=str(features.dtype),
        slide_fingerprint=text(stated, "slide_fingerprint"),
        neighbourhood=stated_neighbourhood(about),
    )


def write(rows: Rows, path: Path) -> list[Path]:
    """Write one file, or TRIDENT's folders with a separate file of patches.

    Parameters
    ----------
    rows : Rows
        Patches with features.
    path : Path
        A file ``.h5``, or a folder for TRIDENT's tree of folders.

    Returns
    -------
    list of Path
        The files.
    """
    if path.suffix.lower() == ".h5":
        return [_write_features(rows, path)]
    magnification = _magnification(rows.mpp)
    folder = path / (f"{magnification}x_{rows.patch_px}px_{rows.overlap_px}px_overlap")
    # Names of hub models and of packaged weights are no folder names.
    encoder = rows.encoder.replace("/", "_").replace(":", "_")
    if rows.neighbourhood.radius:
        # Averages over other squares must not share a folder.
        weights = rows.neighbourhood.weights.replace("uniform", "")
        encoder += f"_context{rows.neighbourhood.radius}{weights}"
    name = rows.slide["name"]
    patches = folder / "patches" / f"{name}_patches.h5"
    with new_h5(patches) as file:
        put(file, "coords", rows.xy, _attributes(rows, patches))
    return [
        _write_features(rows, folder / f"features_{encoder}" / f"{name}.h5"),
        patches,
    ]


def _write_features(rows: Rows, path: Path) -> Path:
    stated = _attributes(rows, path)
    about = {k: stated[k] for k in ("name", "savetodir")} | {"encoder": rows.encoder}
    about |= rows.context
    with new_h5(path) as file:
        put(file, "features", rows.features, about)
        put(file, "coords", rows.xy, stated)
    return path


def _size(stated: dict[str, Any]) -> float | None:
    """Return a patch's side on level 0: TRIDENT rounds it, our files have the exact one."""
    rounded, px = number(stated, "patch_size_level0"), number(stated, "patch_size")
    target, own = number(stated, "target_mpp"), number(stated, "level0_mpp_x")
    if not (rounded and px and target and own):
        return rounded
    exact = px * target / own
    # Half a pixel per patch adds up over the rows of a slide.
    return exact if abs(exact - rounded) <= 1 else rounded


def _attributes(rows: Rows, path: Path) -> dict[str, Any]:
    """Return TRIDENT's attributes, followed by those that only this package writes."""
    mpp = rows.slide["mpp"]
    return {
        "patch_size": rows.patch_px,
        "patch_size_level0": round(rows.size[0]),
        "level0_magnification": _magnification(mpp[0]),
        "target_magnification": _magnification(rows.mpp),
        "overlap": rows.overlap_px,
        "name": rows.slide["name"],
        "savetodir": str(path.parent),
        "level0_width": int(rows.slide["size"][0]),
        "level0_height": int(rows.slide["size"][1]),
        "target_mpp": float(rows.mpp),
        "level0_mpp_x": float(mpp[0]),
        "level0_mpp_y": float(mpp[1]),
        "slide_fingerprint": rows.slide["fingerprint"],
        "software": f"napari-mcm {__version__}",
    }


def _magnification(mpp: float) -> int:
    return max(round(MICRONS_AT_1X / mpp), 1)
