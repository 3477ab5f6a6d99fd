"""The verb search, as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.core.search.cohort import write_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[Path, str]:
    """Give a folder of features, and a point on slide a."""
    made = write_cohort(tmp_path / "features", "abc", rows=30)
    x, y = made["a"].grid.centres[10]
    return tmp_path / "features", f"a:{x:g},{y:g}"


def test_search_prints_patches_and_slides(
    call: Call, cohort: tuple[Path, str], tmp_path: Path
) -> None:
    folder, point = cohort
    out = tmp_path / "found.json"
    answer = call("search", folder, "--at", point, "--out", out, "--json")
    assert answer.status == 0
    result = answer.json
    assert result["query"]["title"] == point and result["files"] == [str(out)]
    assert len(result["patches"]) == 60 and len(result["slides"]) == 3
    assert json.loads(out.read_text())["patches"] == result["patches"]
    lines = call("search", folder, "--at", point).out.splitlines()
    assert lines[0].split() == ["query", point]
    best = result["patches"][0]
    words = ["1", f"{best['value']:.3f}", f"{best['x']},{best['y']}", best["slide"]]
    assert lines[4].split() == words
    assert "... and 50 more" in lines


def test_search_names_what_it_skips(call: Call, cohort: tuple[Path, str]) -> None:
    folder, point = cohort
    (folder / "b.features.zarr" / "zarr.json").write_text("{}")
    answer = call("search", folder, "--at", point, "--per-slide", 3, "--json")
    assert answer.status == 3
    assert [line for line in answer.err.splitlines() if line.startswith("failed: b")]
    slides = [patch["slide"] for patch in answer.json["patches"]]
    assert sorted(slides) == ["a"] * 3 + ["c"] * 3


def test_search_builds_an_index_without_a_query(
    call: Call, cohort: tuple[Path, str], tmp_path: Path
) -> None:
    pytest.importorskip("usearch")
    folder, point = cohort
    write_cohort(folder, "d", rows=60, columns=60)
    answer = call("search", folder, "--index", "build")
    assert answer.status == 0 and "recall@10" in answer.err
    answer = call("search", folder, "--index", "build", "--at", point, "--json")
    assert answer.json["searched_with_index"] > 0
    areas = {s["slide"]: s["area_is_lower_bound"] for s in answer.json["slides"]}
    assert areas == {"a": False, "b": False, "c": False, "d": True}


def test_search_of_nothing_is_one_line(call: Call, tmp_path: Path) -> None:
    answer = call("search", tmp_path, "--at", "a:1,1")
    assert answer.status == 1
    assert "holds no feature files (*.features.zarr)" in answer.error
