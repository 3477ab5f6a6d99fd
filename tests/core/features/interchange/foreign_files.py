"""Feature files written as each tool's own code writes them, and features of ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.grid import PatchGrid

MPP, SIZE = 0.25, (20_000, 15_000)


def ours(
    step: float = 448.0, patch: int = 224, dim: int = 12, mpp: float = MPP
) -> FeatureSet:
    """A round piece of tissue on a slide; one patch blank, one not decoded."""
    rows, columns = int(SIZE[1] / step), int(SIZE[0] / step)
    lattice = np.indices((rows, columns)).reshape(2, -1).T.astype(np.int32)
    middle = np.asarray((rows, columns)) / 2
    lattice = lattice[((lattice - middle) ** 2).sum(1) < (rows / 2.2) ** 2]
    xy = np.rint(lattice[:, ::-1] * step).astype(np.int64)
    slide = {"name": "case 1", "fingerprint": "0123456789abcdef"}
    slide |= {"size": list(SIZE), "mpp": [mpp, mpp]}
    at = mpp * step / patch
    grid = PatchGrid(
        xy, lattice, patch, at, (step, step), (0.0, 0.0), (rows, columns), slide
    )
    features = numbers(len(xy), dim)
    status = np.zeros(len(xy), np.uint8)
    status[3], status[7] = Status.BLANK, Status.DECODE_ERROR
    features[status != Status.OK] = np.nan
    encoder = {"spec": "timm/resnet18", "dim": dim, "fingerprint": "ab"}
    blur = np.linspace(0, 1, len(xy)).astype(np.float32)
    return FeatureSet(
        features, grid, status, encoder | {"precision": "float32"}, {}, {"blur": blur}
    )


def numbers(rows: int, dim: int = 12, seed: int = 0) -> NDArray[np.float32]:
    """Features that no rounding leaves alone."""
    return np.random.default_rng(seed).standard_normal((rows, dim), np.float32)


def corners(
    columns: int = 9, rows: int = 7, step: float = 512, left: int = 1024, top: int = 512
) -> NDArray[np.int64]:
    """A rectangle of patches with a hole."""
    at = np.indices((rows, columns)).reshape(2, -1).T
    at = at[~((at[:, 0] == 2) & (at[:, 1] == 3))]
    return np.rint(at[:, ::-1] * step + (left, top)).astype(np.int64)


def trident(
    path: Path,
    xy: NDArray[Any],
    features: NDArray[Any],
    patch_size: int = 256,
    level0: int = 512,
    overlap: int = 0,
    **more: Any,
) -> Path:
    """``save_h5`` of trident/IO.py: a chunk a row, attributes on coords."""
    said: dict[str, Any] = {
        "patch_size": patch_size,
        "patch_size_level0": level0,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": overlap,
        "name": "case 1",
        "savetodir": "out/patches",
        "level0_width": SIZE[0],
        "level0_height": SIZE[1],
    } | more
    about = {"name": "case 1", "savetodir": "out/features_uni_v1", "encoder": "uni_v1"}
    assets = {"features": (features, about), "coords": (xy, said)}
    with h5py.File(path, "w") as file:
        for key, (values, attributes) in assets.items():
            array = file.create_dataset(
                key,
                shape=values.shape,
                maxshape=(None, *values.shape[1:]),
                chunks=(1, *values.shape[1:]),
                dtype=values.dtype,
            )
            array[:] = values
            for name, value in attributes.items():
                if isinstance(value, dict):
                    value = json.dumps(value)
                array.attrs[name] = "None" if value is None else value
    return path


def clam_patches(path: Path, xy: NDArray[Any], level: int = 1) -> Path:
    """``save_hdf5`` with the attributes of ``process_contour`` in CLAM."""
    down = 2.0**level
    size = tuple(int(n / down) for n in SIZE)
    said = {
        "patch_size": 256,
        "patch_level": level,
        "downsample": (down, down),
        "downsampled_level_dim": size,
        "level_dim": size,
        "name": "case 1",
        "save_path": "RESULTS/patches",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        array = file.create_dataset(
            "coords", data=xy, maxshape=(None, 2), chunks=(32, 2), dtype=np.int64
        )
        for name, value in said.items():
            array.attrs[name] = value
    return path


def clam(
    path: Path, xy: NDArray[Any], features: NDArray[Any], leading: bool = False
) -> Path:
    """``save_hdf5`` of ``extract_features_fp.py``: int32, no attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assets = {"features": features, "coords": xy.astype(np.int32)}
    with h5py.File(path, "w") as file:
        for key, values in assets.items():
            data = values[None] if leading else values
            file.create_dataset(
                key, data=data, chunks=True, maxshape=(None, *data.shape[1:])
            )
    return path


def clam_pt(path: Path, features: NDArray[np.float32]) -> Path:
    """``torch.save(features, ...)`` of ``extract_features_fp.py``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.from_numpy(features), path)
    return path


def stamp(
    path: Path,
    xy: NDArray[Any],
    features: NDArray[Any],
    mpp: float = MPP,
    old: bool = False,
    level0: int = 512,
) -> Path:
    """``extract_`` of STAMP 2: microns, half precision, attributes on the file."""
    with h5py.File(path, "w") as file:
        file["coords"] = (xy * mpp).astype(np.float32)
        file["feats"] = features.astype(np.float16)
        file.attrs["stamp_version"] = "2.0.0" if old else "2.2.0"
        file.attrs["extractor"] = "ctranspath"
        file.attrs["unit"] = "um"
        file.attrs["tile_size" if old else "tile_size_um"] = level0 * mpp
        if not old:
            file.attrs["tile_size_px"] = 224
            file.attrs["code_hash"] = "0123abcd"
            file.attrs["feat_type"] = "tile"
    return path


def atlaspatch(
    path: Path,
    xy: NDArray[Any],
    encoders: dict[str, NDArray[np.float32]],
    level0: int = 512,
) -> Path:
    """``H5PatchWriter`` of AtlasPatch: five columns, a data set an encoder."""
    read = np.asarray((level0 // 2, level0 // 2, 1))
    with h5py.File(path, "w") as file:
        rows = np.concatenate([xy, np.tile(read, (len(xy), 1))], axis=1)
        file.create_dataset(
            "coords", data=rows.astype(np.int32), maxshape=(None, 5), chunks=(8192, 5)
        )
        file["passports"] = np.asarray([f"case 1__x{x}_y{y}" for x, y in xy], "S160")
        for name, values in encoders.items():
            shape = (None, values.shape[1])
            file.create_dataset(
                f"features/{name}", data=values, maxshape=shape, chunks=True
            )
        file.attrs["patch_size"] = 256
        file.attrs["patch_size_level0"] = level0
        file.attrs["level0_magnification"] = 40
        file.attrs["target_magnification"] = 20
        file.attrs["overlap"] = 0
        file.attrs["level0_width"], file.attrs["level0_height"] = SIZE
        file.attrs["wsi_path"] = "slides/case 1.svs"
        file.attrs["num_patches"] = len(xy)
    return path


def anndata(path: Path, centres: NDArray[Any], features: NDArray[Any]) -> Path:
    """The least that scverse tools agree on, as it lies in an ``.h5ad``."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        file["X"] = features
        file["obsm/spatial"] = centres
        for part, count in (("obs", len(features)), ("var", features.shape[1])):
            names = [str(i) for i in range(count)]
            file[f"{part}/_index"] = np.asarray(names, h5py.string_dtype())
            file[part].attrs["_index"] = "_index"
    return path


def raw2features(
    path: Path, xy: NDArray[Any], models: Sequence[str], zarr_format: int = 2
) -> Path:
    """``ZarrSink.open`` of raw2features: a grid of patches, an array a model."""
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    root.attrs["raw2features"] = {"grids": {"mpp0.5_px256": {}}}
    grid = root.require_group("grids").require_group("mpp0.5_px256")
    grid.attrs["raw2features"] = raw2features_header()
    array = grid.create_array("coords", shape=xy.shape, chunks=(1024, 2), dtype="int32")
    array[:] = xy.astype(np.int32)
    group = grid.create_group("features")
    for seed, model in enumerate(models):
        values = numbers(len(xy), seed=seed).astype(np.float16)
        made = group.create_array(
            model, shape=values.shape, chunks=(1024, values.shape[1]), dtype="float16"
        )
        made[:] = values
    return path


def raw2features_header() -> dict[str, Any]:
    """What raw2features says of a grid, as far as anybody reads it."""
    return {
        "schema_version": "0.1",
        "source": {
            "slide_id": "case 1",
            "mpp_level0": MPP,
            "level_dimensions": [list(SIZE), [SIZE[0] // 4, SIZE[1] // 4]],
            "scale_um": {"x": MPP, "y": MPP},
        },
        "patching": {
            "target_mpp": 0.5,
            "achieved_mpp": 0.5,
            "patch_px": 256,
            "level0_patch": 512,
            "level0_step": 512,
            "coords_convention": "level0_xy",
        },
    }
