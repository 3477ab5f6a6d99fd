"""Features read when they are needed, in any format, within a memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mcm.core.errors import ConfigError, FeatureError
from napari_mcm.core.features.feature_set import FeatureSet, Status
from napari_mcm.core.features.interchange import save_features, write_foreign
from napari_mcm.core.mil.bags import FeatureFolder, check_there, find_files
from napari_mcm.core.mil.config import BagsConfig
from tests.core.mil.conftest import ENCODER, draw_bag, make_features


@pytest.fixture
def features():
    whole = make_features(draw_bag(1, 1, 20), "A")
    status = whole.status.copy()
    vectors = whole.features.copy()
    status[4], vectors[4] = Status.BLANK, np.nan
    return FeatureSet(vectors, whole.grid, status, whole.encoder)


def kept(features):
    return features.features[features.status == Status.OK]


@pytest.mark.parametrize("kind", ["own", "trident", "clam", "stamp", "anndata"])
def test_any_format_that_convert_reads(tmp_path, features, kind):
    if kind == "own":
        save_features(features, tmp_path / "A.features.zarr")
    else:
        ending = ".h5ad" if kind == "anndata" else ".h5"
        write_foreign(features, tmp_path / f"A{ending}", kind)
    found = FeatureFolder(tmp_path).read("A")
    np.testing.assert_allclose(found, kept(features), rtol=2e-3, atol=2e-3)


def test_bare_tensors_need_no_places(tmp_path, features):
    (tmp_path / "pt_files").mkdir()
    torch.save(torch.from_numpy(kept(features)), tmp_path / "pt_files" / "A.pt")
    found = FeatureFolder(tmp_path).read("A")
    np.testing.assert_array_equal(found, kept(features))


def test_a_pickle_is_never_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save(Evil(), tmp_path / "A.pt")
    with pytest.raises(FeatureError, match="file of one tensor"):
        FeatureFolder(tmp_path).read("A")


def test_memory_is_bounded_and_reading_goes_on(tmp_path):
    for i in range(6):
        vectors = draw_bag(0, i, 1000)
        save_features(make_features(vectors, f"s{i}"), tmp_path / f"s{i}.features.zarr")
    one = vectors.nbytes / 2**30
    bags = FeatureFolder(tmp_path, BagsConfig(cache_gib=2.5 * one))
    for i in (0, 1, 2, 3, 0, 5):
        np.testing.assert_array_equal(bags.read(f"s{i}"), draw_bag(0, i, 1000))
        assert bags.kept_gib <= 2.5 * one
    assert bags.kept_gib == pytest.approx(2 * one)
    half = FeatureFolder(tmp_path, BagsConfig(kept_as="float16"))
    assert half.read("s1").dtype == np.float16
    assert half.kept_gib == pytest.approx(one / 2)
    nothing = FeatureFolder(tmp_path, BagsConfig(cache_gib=0))
    nothing.read("s1")
    assert nothing.kept_gib == 0


def test_features_of_two_encoders_are_not_mixed(tmp_path, features):
    save_features(features, tmp_path / "A.features.zarr")
    other = make_features(draw_bag(0, 2), "B", encoder={**ENCODER, "fingerprint": "x"})
    save_features(other, tmp_path / "B.features.zarr")
    bags = FeatureFolder(tmp_path)
    bags.read("A")
    with pytest.raises(FeatureError, match="one encoder"):
        bags.read("B")


def test_vectors_of_an_unknown_encoder_have_a_hash_each_and_go_together(tmp_path):
    for i in range(2):
        about = {**ENCODER, "fingerprint": f"features-{i}"}
        features = make_features(draw_bag(0, i), f"s{i}", encoder=about)
        save_features(features, tmp_path / f"s{i}.features.zarr")
    bags = FeatureFolder(tmp_path)
    assert len(bags.read("s0")) and len(bags.read("s1"))


def test_what_is_missing_is_listed(tmp_path, features):
    save_features(features, tmp_path / "A.features.zarr")
    bags = FeatureFolder(tmp_path)
    assert check_there(bags, ["A", "B", "C"], tmp_path) == ["B", "C"]
    with pytest.raises(ConfigError, match="none of the slides, such as B"):
        check_there(bags, ["B"], tmp_path)
    with pytest.raises(FeatureError, match="no features of slide B"):
        bags.read("B")


def test_two_files_of_a_slide_are_an_error(tmp_path, features):
    save_features(features, tmp_path / "A.features.zarr")
    write_foreign(features, tmp_path / "A.h5", "trident")
    with pytest.raises(FeatureError, match="both of slide A"):
        find_files(tmp_path)


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(FeatureError, match="extract"):
        find_files(tmp_path)
    with pytest.raises(FeatureError, match="not a folder"):
        find_files(tmp_path / "nowhere")
