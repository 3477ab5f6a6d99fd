"""CLAM: features and coordinates without attributes, patches in a separate file.

The format is that of ``create_patches_fp.py``, ``extract_features_fp.py`` and
``wsi_core/WholeSlideImage.py`` of mahmoodlab/CLAM.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.interchange.containers import (
    has,
    matrix,
    new_h5,
    number,
    open_h5,
    put,
    read_tensor,
    text,
    write_tensor,
)
from napari_mcm.core.features.interchange.record import (
    ForeignFeatures,
    Rows,
    stated_neighbourhood,
)

if TYPE_CHECKING:
    import h5py


def is_one(file: h5py.File) -> bool:
    """Return whether a file has features and coordinates, as CLAM's have.

    Parameters
    ----------
    file : h5py.File
        Open for reading.

    Returns
    -------
    bool
        Also True for TRIDENT's files, which have more attributes.
    """
    return has(file, "features") and has(file, "coords")


def read(
    path: Path, encoder: str | None = None, coords: Path | None = None
) -> ForeignFeatures:
    """Read ``h5_files/<slide>.h5`` or ``pt_files/<slide>.pt`` and its patches.

    Parameters
    ----------
    path : Path
        The file of features.
    encoder : str, optional
        Name of the encoder, which CLAM does not state.
    coords : Path, optional
        ``patches/<slide>.h5``; by default it is searched in CLAM's folders.

    Returns
    -------
    ForeignFeatures
        Features with the positions of their patches.

    Raises
    ------
    FeatureError
        If there are no coordinates, or others than in the file of features.
    """
    patches = coords or _find_patches(path)
    xy, stated = _read_patches(patches) if patches else (None, {})
    if path.suffix.lower() in (".pt", ".pth"):
        features = read_tensor(path)
        context = read_context(find_h5(path))
    else:
        with open_h5(path) as file:
            features = matrix(file, "features", "f")
            own = matrix(file, "coords", "iuf", columns=2).astype(np.float64)
            stated = {**stated, **dict(file["coords"].attrs)}
            context = stated_neighbourhood(dict(file["features"].attrs))
        # Features of another run of the same slide: rows would be at wrong places.
        if xy is not None and not np.array_equal(xy, own):
            raise FeatureError(f"has other coordinates than {patches}", path)
        xy = own
    if xy is None:
        raise FeatureError(
            "holds features without coordinates",
            path,
            "Give CLAM's file of patches with --coords",
        )
    found = _assemble(path, features, xy, stated, encoder)
    return replace(found, neighbourhood=context)


def read_context(h5: Path | None) -> NeighbourhoodConfig:
    """Read what the features of CLAM's two files of a slide were averaged over.

    Parameters
    ----------
    h5 : Path or None
        The file ``.h5`` of the two: a ``.pt`` holds nothing but numbers.

    Returns
    -------
    NeighbourhoodConfig
        The patch alone where there is no such file, or it states nothing.
    """
    if h5 is None:
        return NeighbourhoodConfig()
    with open_h5(h5) as file:
        known = dict(file["features"].attrs) if has(file, "features") else {}
    return stated_neighbourhood(known)


def find_h5(path: Path) -> Path | None:
    """Find the file ``.h5`` with the same features as a ``.pt``.

    Parameters
    ----------
    path : Path
        The file ``.pt``.

    Returns
    -------
    Path or None
        Beside it, or in CLAM's folder ``h5_files``.
    """
    for file in (
        path.with_suffix(".h5"),
        path.parent.parent / "h5_files" / f"{path.stem}.h5",
    ):
        if file.is_file():
            return file
    return None


def write(rows: Rows, path: Path) -> list[Path]:
    """Write ``.h5`` and ``.pt`` side by side, or CLAM's folders with the patches.

    Parameters
    ----------
    rows : Rows
        Patches with features.
    path : Path
        A file ``.h5``, or a folder for CLAM's tree of folders.

    Returns
    -------
    list of Path
        The files.
    """
    if path.suffix.lower() == ".h5":
        return [_write_features(rows, path), _write_tensor(rows, path)]
    name = f"{rows.slide['name']}.h5"
    patches = path / "patches" / name
    with new_h5(patches) as file:
        put(file, "coords", rows.xy, _attributes(rows, patches))
    h5 = _write_features(rows, path / "h5_files" / name)
    return [h5, _write_tensor(rows, path / "pt_files" / name), patches]


def _assemble(
    path: Path,
    features: NDArray[Any],
    xy: NDArray[np.float64],
    stated: dict[str, Any],
    encoder: str | None,
) -> ForeignFeatures:
    patch_px = number(stated, "patch_size")
    factor = _downsample(stated)
    known = patch_px is not None and factor is not None
    return ForeignFeatures(
        kind="clam",
        features=features.astype(np.float32, copy=False),
        xy=xy,
        name=text(stated, "name", path.stem),
        encoder=encoder or "unknown",
        size=patch_px * factor if known and patch_px and factor else None,
        patch_px=round(patch_px) if patch_px else None,
        slide_size=_slide_size(stated),
        precision=str(features.dtype),
    )


def _downsample(stated: dict[str, Any]) -> float | None:
    """Return the level-0 pixels per pixel of the level that patches were cut from."""
    values = np.ravel(stated.get("downsample", ()))
    factor = number({"f": values[0]}, "f") if len(values) else None
    if factor is None and stated.get("patch_level") == 0:
        factor = 1.0
    # CLAM's option that shrinks patches once more.
    custom = number(stated, "custom_downsample") or 1.0
    return factor * custom if factor else None


def _slide_size(stated: dict[str, Any]) -> tuple[int, int] | None:
    """Return the slide's size; only patches of level 0 state it."""
    size = np.ravel(stated.get("level_dim", ()))
    # level_dim is the size of the level that patches were cut from.
    if len(size) != 2 or stated.get("patch_level") != 0 or min(size) < 1:
        return None
    return int(size[0]), int(size[1])


def _find_patches(path: Path) -> Path | None:
    """Find the file of patches in the folders of CLAM and TRIDENT."""
    for folder in (path.parent.parent, path.parent):
        for name in (f"{path.stem}.h5", f"{path.stem}_patches.h5"):
            file = folder / "patches" / name
            if file.is_file():
                return file
    beside = path.with_suffix(".h5")
    return beside if beside != path and beside.is_file() else None


def _read_patches(path: Path) -> tuple[NDArray[np.float64], dict[str, Any]]:
    with open_h5(path) as file:
        xy = matrix(file, "coords", "iuf", columns=2)
        return xy.astype(np.float64), dict(file["coords"].attrs)


def _write_features(rows: Rows, path: Path) -> Path:
    with new_h5(path) as file:
        # CLAM's own files have no attributes, and its readers pass over them.
        put(file, "features", rows.features, rows.context)
        # The types of CLAM's own files.
        put(file, "coords", rows.xy.astype(np.int32))
    return path


def _write_tensor(rows: Rows, path: Path) -> Path:
    # CLAM trains on .pt files, which hold the features alone.
    return write_tensor(rows.features, path.with_suffix(".pt"))


def _attributes(rows: Rows, path: Path) -> dict[str, Any]:
    """Describe the patches as cut from level 0."""
    size = np.asarray(rows.slide["size"], np.int64)
    return {
        "patch_size": round(rows.size[0]),
        "patch_level": 0,
        "downsample": np.asarray((1.0, 1.0)),
        "downsampled_level_dim": size,
        "level_dim": size,
        "name": rows.slide["name"],
        "save_path": str(path.parent),
    }
