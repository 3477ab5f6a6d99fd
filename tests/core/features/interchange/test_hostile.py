"""Files that are damaged, or made to do harm, are refused in one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import zarr

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features.feature_set import Status
from napari_mcm.core.features.interchange import detect, read_foreign
from tests.core.features.interchange import foreign_files as files
from tests.core.features.interchange.foreign_files import MPP, corners, numbers

XY = corners()
FEATURES = numbers(len(XY))


def refused(path: Path, match: str, **given: Any) -> None:
    """Expect one line that names the file."""
    with pytest.raises(FeatureError, match=match) as caught:
        read_foreign(path, **({"mpp": MPP, "patch_size_level0": 512} | given))
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("xy", "features", "match"),
    [
        (XY, FEATURES[:-1], "61 rows of features for 62"),
        (XY[:, :1], FEATURES, "coords has 1 columns instead of 2"),
        (XY, FEATURES[:, 0], "features is float32 of shape"),
        (XY, np.stack([FEATURES] * 2), "features is float32 of shape"),
        (XY, FEATURES.astype(np.int32), "features is int32"),
        (XY - 2000, FEATURES, "lie outside the slide"),
        (XY + 10**6, FEATURES, "lie outside the slide"),
        (XY * 10**12, FEATURES, "cannot be on a slide"),
        (np.full(XY.shape, np.nan), FEATURES, "cannot be on a slide"),
        (XY * 0, FEATURES, "lie on no lattice"),
        (XY, FEATURES * np.nan, "no patch whose features are finite"),
    ],
)
def test_wrong_content(tmp_path: Path, xy: Any, features: Any, match: str) -> None:
    refused(files.trident(tmp_path / "x.h5", xy, features), match)


def test_features_without_columns(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["coords"], file["features"] = XY, FEATURES[:, :0]
    refused(tmp_path / "x.h5", "no columns")


def test_rows_that_are_not_finite_have_no_features(tmp_path: Path) -> None:
    features = FEATURES.copy()
    features[4, 2], features[9, 0] = np.nan, np.inf
    found = read_foreign(files.trident(tmp_path / "x.h5", XY, features))
    assert np.flatnonzero(~found.ok).tolist() == [4, 9]
    assert (found.status[~found.ok] == Status.DECODE_ERROR).all()
    assert np.isnan(found.features[~found.ok]).all()
    assert any("2 of" in note for note in found.provenance["notes"])


@pytest.mark.parametrize("keep", [0, 1, 100, 800, 2000, 4000])
def test_truncated(tmp_path: Path, keep: int) -> None:
    path = files.trident(tmp_path / "x.h5", XY, FEATURES)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "damaged, or not HDF5")


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_never_get_through_as_another_error(
    tmp_path: Path, seed: int
) -> None:
    path = files.trident(tmp_path / "x.h5", XY, FEATURES)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, len(content), 30):
        content[at] = rng.integers(0, 256)
    path.write_bytes(content)
    try:
        read_foreign(path)
    except FeatureError as error:
        assert "x.h5" in str(error)


def test_a_small_file_that_claims_to_be_huge(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (10**7, 1024), "f4", chunks=(1000, 1024))
        file.create_dataset("coords", (10**7, 2), "i8", chunks=(1000, 2))
    refused(path, "features claims 39,062 MiB in a file of")


def links(file: h5py.File, there: Path) -> dict[str, Callable[[], Any]]:
    """Ways to have an array of another file read."""
    layout = h5py.VirtualLayout(FEATURES.shape, "f4")
    layout[:] = h5py.VirtualSource(there, "features", FEATURES.shape)
    raw = [(str(there), 0, FEATURES.nbytes)]

    def put(link: Any) -> None:
        file["features"] = link

    return {
        "link": lambda: put(h5py.ExternalLink(there, "features")),
        "soft": lambda: put(h5py.SoftLink("/coords")),
        "virtual": lambda: file.create_virtual_dataset("features", layout),
        "raw": lambda: file.create_dataset(
            "features", FEATURES.shape, "f4", external=raw
        ),
    }


@pytest.mark.parametrize("way", ["link", "soft", "virtual", "raw"])
def test_nothing_is_read_from_another_file(tmp_path: Path, way: str) -> None:
    there = files.trident(tmp_path / "secret.h5", XY, FEATURES)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["coords"] = XY
        links(file, there)[way]()
    refused(path, "no array features|lies in another file", kind="clam")


class _Harm:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_objects_are_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "harm"
    patches = files.clam_patches(tmp_path / "p.h5", XY)
    for name, dump in {
        "a.pt": lambda path: torch.save(_Harm(marker), path),
        "b.pt": lambda path: path.write_bytes(pickle.dumps(_Harm(marker))),
        "c.pt": lambda path: torch.save({"features": _Harm(marker)}, path),
    }.items():
        dump(tmp_path / name)
        refused(tmp_path / name, "file of one tensor", coords=patches)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        ({"features": torch.zeros(3, 2)}, "holds a dict"),
        (torch.zeros(3), "of shape"),
        (torch.zeros(3, 2, dtype=torch.int64), "int64"),
        (torch.zeros(1).expand(100_000, 100_000), "more numbers than it holds"),
    ],
)
def test_other_tensors(tmp_path: Path, tensor: Any, match: str) -> None:
    patches = files.clam_patches(tmp_path / "p.h5", XY)
    torch.save(tensor, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", match, coords=patches)


def test_a_codec_that_unpickles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.embeddings.zarr"
    files.raw2features(path, XY, ["uni"])
    metadata = path / "grids/mpp0.5_px256/features/uni/.zarray"
    text = metadata.read_text().replace('"filters": null', '"filters": [{"id": "%s"}]')
    for codec in ("pickle", "json2", "msgpack2"):
        metadata.write_text(text % codec)
        refused(path, "stored with|damaged")


def test_a_chunk_that_is_missing_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.embeddings.zarr"
    files.raw2features(path, XY, ["uni"])
    (path / "grids/mpp0.5_px256/features/uni/0.0").unlink()
    refused(path, "chunk.s. of features/uni are missing")


def test_what_is_no_file_of_features(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("no")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["attention_scores"] = FEATURES
    zarr.open_group(tmp_path / "c.zarr", mode="w")
    (tmp_path / "d").mkdir()
    for name in ("a.h5", "b.h5", "c.zarr", "d", "missing.h5"):
        with pytest.raises(FeatureError, match=name):
            detect(tmp_path / name)
