"""Other tools' own code: it opens what we write, and writes what we open.

Tools on the package index: torchmil, anndata, wsidata (with spatialdata), raw2features.
The others are used from a checkout on PYTHONPATH: TRIDENT (``trident``), CLAM
(``dataset_modules``, ``utils``), STAMP (``stamp``), AtlasPatch (``atlas_patch``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features import FeatureSet
from napari_mcm.core.features.interchange import Written, write_foreign
from tests.core.features.interchange.foreign_files import MPP, SIZE

Loaded = tuple[NDArray[Any], NDArray[Any]]
ENCODER = "timm_resnet18"


@dataclass(frozen=True)
class Consumer:
    """A tool that reads one of our exports: corners in level-0 pixels, features."""

    tool: str
    needs: str
    kind: str
    out: str
    load: Callable[[Written], Loaded]

    def export_and_load(self, features: FeatureSet, folder: Path) -> Loaded:
        """Write in the tool's format, and read with its code."""
        return self.load(write_foreign(features, folder / self.out, self.kind))


def _trident(written: Written) -> Loaded:
    from trident.IO import read_coords

    features = _h5(written.files[0])["features"]
    said, xy = read_coords(str(written.files[1]))
    assert said["patch_size_level0"] == 448 and said["name"] == "case 1"
    return xy, features


def _torchmil(written: Written) -> Loaded:
    from torchmil.datasets import TridentWSIDataset

    base = written.files[1].parent.parent
    labels = base / "labels.csv"
    labels.write_text("wsi,label\ncase 1.svs,1\n")
    # It divides by the patch's size; that on level 0 gives rows and columns.
    bags = TridentWSIDataset(
        f"{base}/",
        str(labels),
        ENCODER,
        patch_size=448,
        bag_keys=["X", "Y", "coords", "adj"],
        wsi_name_col="wsi",
        wsi_label_col="label",
    )
    bag = bags[0]
    assert bag["adj"]._nnz() > 0
    return np.asarray(bag["coords"]) * 448, np.asarray(bag["X"])


def _clam(use_h5: bool) -> Callable[[Written], Loaded]:
    def load(written: Written) -> Loaded:
        from dataset_modules.dataset_generic import Generic_MIL_Dataset

        base = written.files[0].parent.parent
        table = base / "cases.csv"
        table.write_text("case_id,slide_id,label\np,case 1,tumour\n")
        bags = Generic_MIL_Dataset(
            str(base), csv_path=str(table), label_dict={"tumour": 0}, print_info=False
        )
        bags.load_from_h5(use_h5)
        bag = bags[0]
        xy = bag[2] if use_h5 else _h5(written.files[2])["coords"]
        return np.asarray(xy), bag[0].numpy()

    return load


def _stamp(written: Written) -> Loaded:
    import h5py
    import torch
    from stamp.modeling.data import BagDataset, get_coords

    path = written.files[0]
    with h5py.File(path) as file:
        said = get_coords(file)
    assert said.tile_size_um == 112 and said.tile_size_px == 224
    bags = BagDataset(
        bags=[[path]], ground_truths=torch.ones(1, 1, dtype=torch.bool), transform=None
    )
    features, coords, *_ = bags[0]
    return np.rint(coords.numpy() / MPP), features.numpy()


def _anndata(written: Written) -> Loaded:
    import anndata

    data = anndata.read_h5ad(written.files[0])
    assert data.uns["napari_mcm"]["encoder"] == "timm/resnet18"
    return data.obsm["spatial"] - 224, data.X


def _wsidata(written: Written) -> Loaded:
    import anndata
    import geopandas
    from shapely import box
    from spatialdata import SpatialData, get_element_instances, read_zarr
    from spatialdata.models import ShapesModel, TableModel
    from wsidata import TileSpec

    data = anndata.read_h5ad(written.files[0])
    spec = TileSpec(**data.uns["tile_spec"])
    assert (spec.base_width, spec.base_stride_height) == (448, 448)
    corners = data.obs[["x", "y"]].to_numpy()
    boxes = [box(x, y, x + 448, y + 448) for x, y in corners]
    tiles = geopandas.GeoDataFrame(data.obs[["tile_id", "x", "y"]], geometry=boxes)
    tiles.index = data.obs["tile_id"].to_numpy()
    TableModel().validate(data)
    whole = SpatialData(
        shapes={"tiles": ShapesModel.parse(tiles)}, tables={f"{ENCODER}_tiles": data}
    )
    store = written.files[0].with_suffix(".zarr")
    whole.write(store)
    back = read_zarr(store)
    table = back.tables[f"{ENCODER}_tiles"]
    there = get_element_instances(back.shapes["tiles"])
    assert list(there) == list(table.obs["tile_id"])
    return back.shapes["tiles"].bounds[["minx", "miny"]].to_numpy(), table.X


def _h5(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


CONSUMERS = (
    Consumer("TRIDENT", "trident.IO", "trident", "trident", _trident),
    Consumer("torchmil", "torchmil", "trident", "torchmil", _torchmil),
    Consumer(
        "CLAM, h5", "dataset_modules.dataset_generic", "clam", "clam", _clam(True)
    ),
    Consumer(
        "CLAM, pt", "dataset_modules.dataset_generic", "clam", "clam", _clam(False)
    ),
    Consumer("STAMP", "stamp.modeling.data", "stamp", "stamp.h5", _stamp),
    Consumer("AnnData", "anndata", "anndata", "a.h5ad", _anndata),
    Consumer("wsidata, SpatialData", "wsidata", "anndata", "w.h5ad", _wsidata),
)


@dataclass(frozen=True)
class Producer:
    """A tool whose own code writes a file that we read."""

    tool: str
    needs: str
    kind: str
    write: Callable[[Path, NDArray[np.int64], NDArray[np.float32]], Path]


def _by_trident(
    folder: Path, xy: NDArray[np.int64], features: NDArray[np.float32]
) -> Path:
    from trident.IO import coords_to_h5, read_coords, save_h5

    patches = folder / "case 1_patches.h5"
    coords_to_h5(
        xy.tolist(), str(patches), 256, 40, 20, str(folder), *SIZE, "case 1", 0
    )
    said, coords = read_coords(str(patches))
    path = folder / "case 1.h5"
    about = {"name": "case 1", "savetodir": str(folder), "encoder": "uni_v1"}
    save_h5(
        str(path),
        {"features": features, "coords": coords},
        {"features": about, "coords": said},
    )
    return path


def _by_clam(
    folder: Path, xy: NDArray[np.int64], features: NDArray[np.float32]
) -> Path:
    from utils.file_utils import save_hdf5

    said = {"patch_size": 256, "patch_level": 1, "downsample": (2.0, 2.0)}
    for name in ("patches", "h5_files"):
        (folder / name).mkdir()
    save_hdf5(
        str(folder / "patches/case 1.h5"), {"coords": xy}, {"coords": said}, mode="w"
    )
    path = folder / "h5_files/case 1.h5"
    # Batch after batch, as its extraction does.
    for start in range(0, len(xy), 100):
        part = slice(start, start + 100)
        rows = {"features": features[part], "coords": xy[part].astype(np.int32)}
        save_hdf5(str(path), rows, mode="a" if start else "w")
    return path


def _by_atlaspatch(
    folder: Path, xy: NDArray[np.int64], features: NDArray[np.float32]
) -> Path:
    from atlas_patch.services.storage import H5PatchWriter

    path = folder / "case 1.h5"
    writer = H5PatchWriter(
        chunk_rows=8192,
        patch_size=256,
        patch_size_level0=512,
        level0_mag=40,
        target_mag=20,
        level0_wh=SIZE,
        overlap=0,
        slide_stem="case 1",
        wsi_path="case 1.svs",
    )
    blank = np.zeros((2, 2, 3), np.uint8)
    entries = [(int(x), int(y), 256, 256, 1, blank) for x, y in xy]
    writer.write_coords(path, entries, batch=512)
    rest = iter(np.array_split(features, range(100, len(features), 100)))
    writer.append_features(
        output_path=path,
        entries=entries,
        feature_name="uni_v1",
        feature_fn=lambda batch: next(rest),
        feature_attrs={"embedding_dim": features.shape[1]},
        feature_batch=100,
    )
    return path


def _by_raw2features(layout: str) -> Callable[..., Path]:
    def write(
        folder: Path, xy: NDArray[np.int64], features: NDArray[np.float32]
    ) -> Path:
        from raw2features.export.h5 import export_h5
        from raw2features.sinks.zarr_sink import ZarrSink

        from tests.core.features.interchange.foreign_files import raw2features_header

        sink = ZarrSink()
        sink.create(
            str(folder),
            "case 1",
            grid="mpp0.5_px256",
            n_patches=len(xy),
            coords=xy,
            grid_index=xy // 512,
            grid_tissue=None,
            model_dims={"uni": features.shape[1]},
            header=raw2features_header(),
            features_dtype="float32",
        )
        sink.write_block("uni", 0, features)
        sink.close()
        store = folder / "case 1.embeddings.zarr"
        return Path(export_h5(str(store), layout=layout)[0]) if layout else store

    return write


def _by_wsidata(
    folder: Path, xy: NDArray[np.int64], features: NDArray[np.float32]
) -> Path:
    import xarray
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel
    from wsidata import TileSpec, open_wsi
    from wsidata.io import add_features, add_tiles

    pixels = xarray.DataArray(np.zeros((3, 64, 64), np.uint8), dims=("c", "y", "x"))
    images = {"wsi": Image2DModel.parse(pixels)}
    slide = open_wsi(SpatialData(images=images), image_key="wsi")
    spec = TileSpec(256, 256, 256, 256, 0.5, ops_downsample=2, base_downsample=2)
    add_tiles(slide, "tiles", xy, spec, np.zeros(len(xy), int))
    add_features(slide, "uni_tiles", "tiles", features)
    path = folder / "case 1.h5ad"
    data = slide.fetch.features_anndata("uni_tiles", "tiles")
    del data.uns["slide_properties"]  # holds tuples, which anndata does not write
    data.write_h5ad(path)
    return path


PRODUCERS = (
    Producer("TRIDENT", "trident.IO", "trident", _by_trident),
    Producer("CLAM", "utils.file_utils", "clam", _by_clam),
    Producer(
        "AtlasPatch", "atlas_patch.services.storage", "atlaspatch", _by_atlaspatch
    ),
    Producer("raw2features", "raw2features", "raw2features", _by_raw2features("")),
    Producer("raw2features", "raw2features", "trident", _by_raw2features("trident")),
    Producer("raw2features", "raw2features", "stamp", _by_raw2features("stamp")),
    Producer("wsidata", "wsidata", "anndata", _by_wsidata),
)
