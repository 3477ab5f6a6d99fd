"""Other tools' own code reads our exports, and we read what it writes.

Skipped where a tool is missing; `consumers.py` says where each is to be had.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from napari_mcm.core.features.interchange import detect, read_foreign
from tests.core.features.interchange.consumers import (
    CONSUMERS,
    PRODUCERS,
    Consumer,
    Producer,
)
from tests.core.features.interchange.foreign_files import MPP, corners, numbers, ours

# The first import of such packages warns of things that are not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


def need(name: str, tool: str) -> None:
    """Skip with the name of what is missing."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{tool} is not installed ({error})")


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda c: c.tool)
def test_exports_are_read(consumer: Consumer, tmp_path: Path) -> None:
    need(consumer.needs, consumer.tool)
    before = ours()
    xy, features = consumer.export_and_load(before, tmp_path)
    assert np.array_equal(xy, before.grid.xy[before.ok])
    tolerance = 2.0**-10 if consumer.kind == "stamp" else 0
    np.testing.assert_allclose(features, before.features[before.ok], rtol=tolerance)


@pytest.mark.parametrize("producer", PRODUCERS, ids=lambda p: f"{p.tool}-{p.kind}")
def test_what_they_write_is_read(producer: Producer, tmp_path: Path) -> None:
    need(producer.needs, producer.tool)
    xy = corners(30, 20)
    features = numbers(len(xy))
    path = producer.write(tmp_path, xy, features)
    assert detect(path) == producer.kind
    found = read_foreign(path, mpp=MPP)
    assert np.array_equal(found.grid.xy, xy)
    assert found.grid.patch_size_level0 == (512, 512)
    tolerance = 2.0**-10 if producer.kind == "stamp" else 0
    np.testing.assert_allclose(found.features, features, rtol=tolerance)
