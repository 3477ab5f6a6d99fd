"""`bench` measures each stage and names the one that limits the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_mcm.core.studies.bench import BenchResult, Stage
from tests.cli.conftest import Call

SMALL = (
    *("--patch-size", "64", "--tissue-mpp", "4", "--min-object-um", "20"),
    *("--max-hole-um", "20", "--device", "cpu"),
)


def test_reading_is_measured_by_stage(call: Call, slide: Path) -> None:
    answer = call("bench", "read", "--slide", slide, *SMALL, "--json")
    assert answer.status == 0
    told = answer.json
    assert list(told["table"]) == ["read", "decode", "resample"]
    assert all(stage["seconds"] >= 0 for stage in told["table"].values())
    assert told["bottleneck"] in told["table"]
    assert told["patches"] == 32
    assert set(told["rates"]) == {"read, one thread", "read, 2 threads"}


def test_extraction_is_measured_to_its_end(call: Call, slide: Path) -> None:
    words = ("--slide", slide, "--encoder", "random:test_resnet", *SMALL)
    answer = call("bench", "extract", *words)
    assert answer.status == 0
    for word in ("decode", "encode", "patches/s", "bottleneck"):
        assert word in answer.out


@pytest.mark.parametrize(
    ("encode", "expected"), [(5.0, "encode"), (2.0, "decode"), (2.6, "encode")]
)
def test_stages_of_the_readers_share_their_threads(
    encode: float, expected: str
) -> None:
    stages = (Stage("decode", 3, 2), Stage("resample", 2, 2), Stage("encode", encode))
    assert BenchResult("slide", 10, stages, {}).bottleneck == expected
