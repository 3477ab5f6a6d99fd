"""One flipped bit in any chunk of any array is found."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.features import read_features
from napari_mcm.core.features.interchange import save_features
from tests.core.features.made_features import made_features

ARRAYS = ("coords", "lattice", "features", "status", "blur", "artefact")


@pytest.fixture
def file(tmp_path):
    return save_features(made_features(), tmp_path / "a.features.zarr")


def chunks(file, name):
    return sorted(part for part in (file / name / "c").rglob("*") if part.is_file())


def flip(part, byte, bit=0):
    content = bytearray(part.read_bytes())
    content[byte] ^= 1 << bit
    part.write_bytes(content)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_flipped_bit_is_found(file, name):
    rng = np.random.default_rng(len(name))
    for part in chunks(file, name):
        whole = part.read_bytes()
        # Its first and last byte, the last being the checksum's own, and some between.
        for byte in (0, len(whole) - 1, *rng.integers(0, len(whole), 6)):
            flip(part, int(byte), int(rng.integers(8)))
            with pytest.raises(FeatureError, match=rf"is damaged \({name}") as error:
                read_features(file)
            assert "\n" not in str(error.value)
            part.write_bytes(whole)
    read_features(file)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_chunk_that_was_cut_short_is_found(file, name):
    part = chunks(file, name)[0]
    for length in (0, 3, part.stat().st_size - 1):
        part.write_bytes(part.read_bytes()[:length])
        with pytest.raises(FeatureError, match=rf"is damaged \({name}"):
            read_features(file)


def test_files_of_before_there_were_checksums_are_read(file):
    expected = read_features(file)
    group = zarr.open_group(file, mode="r+")
    for name in ARRAYS:
        old = group[name]
        values, attributes = old[:], {"fill_value": old.fill_value}
        group.create_array(
            name,
            shape=old.shape,
            chunks=old.chunks,
            dtype=old.dtype,
            compressors="auto",
            config={"write_empty_chunks": True},
            overwrite=True,
            **attributes,
        )[:] = values
    again = read_features(file)
    assert_array_equal(again.features, expected.features)
    assert_array_equal(again.grid.xy, expected.grid.xy)
