"""The script for a GPU works the day there is one: here it runs on the CPU, tiny."""

from __future__ import annotations

import json

import pytest
from benchmarks import gpu
from benchmarks.gpu_parts.extraction import limiting
from benchmarks.gpu_parts.study_two import ARMS


# 30 CPU seconds; the whole command line once, beside other work.
@pytest.mark.timeout(900)
def test_all_parts_run_on_the_cpu(tmp_path, capsys):
    status = gpu.main(["--out", str(tmp_path), "--device", "cpu", "--tiny"])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "failed" not in found and status == 0, found.get("failed")
    assert len(found["verbs"]) > 20
    assert [v for v, one in found["verbs"].items() if not one["passed"]] == []
    # the CPU against itself
    (precision,) = found["precision"].values()
    assert precision["float32_least_cosine_to_cpu"] == pytest.approx(1, abs=1e-6)
    assert 0.9 < precision["bfloat16"]["least"] < 1
    (rates,) = (one for one in found["extraction"].values() if isinstance(one, dict))
    assert rates["limited_by"] in rates["stage_seconds"]
    assert rates["share_of_bare"] == pytest.approx(
        rates["patches_per_s"] / rates["bare_patches_per_s"]
    )
    study = found["study"]
    assert study["failed"] == [] and study["windows_per_arm"] > 0
    text = (tmp_path / "gpu.md").read_text()
    for arm in ARMS:
        assert f"| {arm} | 0 |" in text
    assert "| mil train | True |" in text


def test_what_fails_is_written_down_and_the_rest_goes_on(tmp_path):
    session = gpu.Session("cpu", tmp_path, tmp_path, True, 1)

    def broken(_: gpu.Session) -> None:
        raise RuntimeError("no kernel image is available")

    session.step("verbs", broken)
    session.step("machine", gpu.machine)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["failed"] == {"verbs": "RuntimeError: no kernel image is available"}
    assert found["machine"]["device"] == "CPU"
    assert "**verbs failed**" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # readers work at the same time as the device: the slower side counts
        ((0.1, 0.2, 0.1, 0.1, 0.1, 0.3), "decode"),
        ((0.1, 0.1, 0.1, 0.1, 0.1, 0.6), "encode"),
        ((0.1, 0.1, 0.1, 0.1, 0.5, 0.4), "transfer"),
    ],
)
def test_the_stage_that_limits(seconds, expected):
    names = ("read", "decode", "resample", "quality", "transfer", "encode")
    assert limiting(dict(zip(names, seconds, strict=True))) == expected
