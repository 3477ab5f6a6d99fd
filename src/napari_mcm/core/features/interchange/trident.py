"""TRIDENT: one HDF5 file a slide, the attributes of its patches on ``coords``.

``trident/IO.py`` (``save_h5``, ``coords_to_h5``) of mahmoodlab/TRIDENT. CLAM, torchmil,
TITAN and Patho-Bench read ``features`` and ``coords`` of the same file.
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
)

if TYPE_CHECKING:
    import h5py


def is_one(file: h5py.File) -> bool:
    """Tell whether a file is TRIDENT's: coordinates that state a level-0 size."""
    return (
        has(file, "features")
        and has(file, "coords")
        and "patch_size_level0" in file["coords"].attrs
    )


def read(
    path: Path, encoder: str | None = None, coords: Path | None = None
) -> ForeignFeatures:
    """Read ``features_<encoder>/<slide>.h5``; `coords` is not needed."""
    with open_h5(path) as file:
        features = matrix(file, "features", "f")
        xy = matrix(file, "coords", "iuf", columns=2)
        said: dict[str, Any] = dict(file["coords"].attrs)
        about: dict[str, Any] = dict(file["features"].attrs)
    patch_px = number(said, "patch_size")
    slide_size = pair(said, "level0_width", "level0_height")
    return ForeignFeatures(
        kind="trident",
        features=features.astype(np.float32, copy=False),
        xy=xy.astype(np.float64),
        name=text(said, "name", path.stem),
        encoder=encoder or text(about, "encoder", "unknown"),
        size=_size(said),
        patch_px=round(patch_px) if patch_px else None,
        mpp=pair(said, "level0_mpp_x", "level0_mpp_y"),
        magnification=number(said, "level0_magnification"),
        slide_size=slide_size and (int(slide_size[0]), int(slide_size[1])),
        precision=str(features.dtype),
        slide_fingerprint=text(said, "slide_fingerprint"),
    )


def write(rows: Rows, path: Path) -> list[Path]:
    """Write one file, or TRIDENT's folders with the patches in a file of their own."""
    if path.suffix.lower() == ".h5":
        return [_write_features(rows, path)]
    said = _attributes(rows, path)
    folder = path / (
        f"{said['target_magnification']}x_{rows.patch_px}px_{rows.overlap_px}px_overlap"
    )
    encoder = rows.encoder.replace("/", "_").replace(":", "_")
    name = rows.slide["name"]
    patches = folder / "patches" / f"{name}_patches.h5"
    with new_h5(patches) as file:
        put(file, "coords", rows.xy, _attributes(rows, patches))
    return [
        _write_features(rows, folder / f"features_{encoder}" / f"{name}.h5"),
        patches,
    ]


def _write_features(rows: Rows, path: Path) -> Path:
    said = _attributes(rows, path)
    about = {k: said[k] for k in ("name", "savetodir")} | {"encoder": rows.encoder}
    with new_h5(path) as file:
        put(file, "features", rows.features, about)
        put(file, "coords", rows.xy, said)
    return path


def _size(said: dict[str, Any]) -> float | None:
    """Give a patch's side on level 0: TRIDENT rounds it, we state what it comes from."""
    rounded, px = number(said, "patch_size_level0"), number(said, "patch_size")
    target, own = number(said, "target_mpp"), number(said, "level0_mpp_x")
    if not (rounded and px and target and own):
        return rounded
    exact = px * target / own
    return exact if abs(exact - rounded) <= 1 else rounded


def _attributes(rows: Rows, path: Path) -> dict[str, Any]:
    """Give TRIDENT's attributes, and below them what only we state."""
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
