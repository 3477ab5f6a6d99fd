"""The index: built once, resumed, updated, and checked against exact search."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.interchange.formats import save_features
from napari_mcm.core.heatmaps import Examples, SimilarityIndex
from napari_mcm.core.runtime.jobs import Note, run
from napari_mcm.core.search import (
    CrossSlideConfig,
    SearchIndex,
    cross_slide,
    graph,
    index,
    search_slides,
)
from tests.core.search.cohort import ENCODER, direction_of, made_slide, write_cohort

WIDE = NeighbourhoodConfig(radius=1)

SIZE = {"rows": 50, "columns": 40, "dim": 16}


@pytest.fixture(autouse=True)
def _library() -> None:
    pytest.importorskip("usearch")


def opened(folder: Path) -> SearchIndex:
    return SearchIndex(folder / "search-index", ENCODER, WIDE)


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.features.zarr"))


def parts_in(folder: Path) -> dict[str, int]:
    parts = (folder / "search-index").rglob("*.usearch")
    return {part.name: part.stat().st_mtime_ns for part in parts}


def options(folder: Path, **changes) -> CrossSlideConfig:
    chosen = {"features": folder, "count": 30, "neighbourhood": WIDE} | changes
    return CrossSlideConfig(**chosen)


def test_an_indexed_search_finds_what_exact_search_finds(tmp_path: Path) -> None:
    write_cohort(tmp_path, "abcd", **SIZE)
    notes: list[str] = []
    hits = 0
    for seed in range(5):
        direction = direction_of(seed=seed)
        exact = run(search_slides(options(tmp_path, index="off"), ENCODER, direction))
        with_index = run(
            search_slides(options(tmp_path, index="build"), ENCODER, direction),
            lambda event: notes.append(event.text) if isinstance(event, Note) else None,
        )
        assert exact.indexed == 0 and with_index.indexed == exact.searched
        values = {(p.slide, p.row): p.value for p in exact.patches}
        found = {(p.slide, p.row): p.value for p in with_index.patches}
        both = set(values) & set(found)
        # The values are scored again from the features: equal to the bit.
        assert all(values[one] == found[one] for one in both)
        top = [(p.slide, p.row) for p in exact.patches[:10]]
        hits += sum(one in found for one in top)
        places = {(p.slide, p.row): (p.x, p.y, p.width) for p in exact.patches}
        for patch in with_index.patches:
            if (patch.slide, patch.row) in both:
                place = (patch.x, patch.y, patch.width)
                assert place == places[patch.slide, patch.row]
        for one, other in zip(
            sorted(exact.matches, key=lambda m: m.name),
            sorted(with_index.matches, key=lambda m: m.name),
            strict=True,
        ):
            assert one.name == other.name and one.patches == other.patches
            assert one.mean - 0.02 < other.mean < one.mean + 1e-3
            assert other.area_mm2 <= one.area_mm2 + 1e-12
            assert other.is_lower_bound and not one.is_lower_bound
    assert hits >= 0.95 * 50
    assert "recall@10" in notes[0] and "4 built" in notes[0]
    assert "0 built" in notes[1]


def test_examples_are_not_ranked_by_an_index_either(tmp_path: Path) -> None:
    made = write_cohort(tmp_path, "ab", **SIZE)
    centre = tuple(made["a"].grid.centres[10])
    direction = SimilarityIndex(made["a"], WIDE).directions(10)
    examples = {made["a"].grid.slide["fingerprint"]: Examples((centre,))}
    config = options(tmp_path, index="build")
    result = run(search_slides(config, ENCODER, direction, examples))
    assert 0 < result.indexed < result.searched
    assert ("a", 10) not in {(patch.slide, patch.row) for patch in result.patches}
    assert all(match.best < 0.99 for match in result.matches)
    everything = run(search_slides(config, ENCODER, direction))
    assert everything.patches[0].row == 10 and everything.indexed == result.searched


def test_the_check_measures_recall_against_exact_search(
    tmp_path: Path, monkeypatch
) -> None:
    write_cohort(tmp_path, "ab", **SIZE)
    report = run(opened(tmp_path).build(files_in(tmp_path)))
    assert report.parts == report.built == 2
    assert 0.95 <= report.lowest <= report.recall <= 1
    # A graph that finds nothing of use is not kept: its file is searched exactly.
    shutil.rmtree(tmp_path / "search-index")
    monkeypatch.setattr(
        graph, "ask", lambda *_: (np.arange(10), np.zeros(10, np.float32))
    )
    report = run(opened(tmp_path).build(files_in(tmp_path)))
    assert report.parts == 0 and not parts_in(tmp_path)


def test_an_index_follows_its_files(tmp_path: Path) -> None:
    write_cohort(tmp_path, "abc", **SIZE)
    run(opened(tmp_path).build(files_in(tmp_path)))
    first = parts_in(tmp_path)
    # One comes, one changes, one goes, one stays.
    save_features(made_slide("d", **SIZE), tmp_path / "d.features.zarr")
    save_features(
        made_slide("b", seed=7, **SIZE), tmp_path / "b.features.zarr", overwrite=True
    )
    shutil.rmtree(tmp_path / "c.features.zarr")
    index = opened(tmp_path)
    # Before the update, what has changed is not found by the old part.
    assert index.find(tmp_path / "b.features.zarr", direction_of(), 5) is None
    assert index.find(tmp_path / "a.features.zarr", direction_of(), 5) is not None
    report = run(index.build(files_in(tmp_path)))
    second = parts_in(tmp_path)
    assert (report.parts, report.built, report.removed) == (3, 2, 2)
    assert {name[0] for name in second} == {"a", "b", "d"}
    kept = set(first) & set(second)
    assert {name[0] for name in kept} == {"a"}
    assert all(first[name] == second[name] for name in kept)


def test_a_build_resumes_after_kill_9(tmp_path: Path) -> None:
    write_cohort(tmp_path, "abcdefgh", **SIZE)
    code = (
        "import sys, pathlib, time\n"
        "from napari_mcm.core.search import SearchIndex, index\n"
        "from napari_mcm.core.features.feature_set import NeighbourhoodConfig as N\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "ix = SearchIndex(folder / 'search-index', 'e' * 16, N(radius=1))\n"
        "for event in ix.build(sorted(folder.glob('*.features.zarr'))):\n"
        "    print(getattr(event, 'done', ''), flush=True)\n"
        "    time.sleep(0.05)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "3":
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = parts_in(tmp_path)
    assert 3 <= len(before) < 8
    report = run(opened(tmp_path).build(files_in(tmp_path)))
    after = parts_in(tmp_path)
    assert len(after) == 8 and report.built == 8 - len(before)
    assert all(after[name] == when for name, when in before.items())


def test_a_damaged_part_is_searched_exactly(tmp_path: Path) -> None:
    write_cohort(tmp_path, "a", **SIZE)
    run(opened(tmp_path).build(files_in(tmp_path)))
    (part,) = (tmp_path / "search-index").rglob("*.usearch")
    part.write_bytes(part.read_bytes()[:100])
    assert (
        opened(tmp_path).find(tmp_path / "a.features.zarr", direction_of(), 5) is None
    )
    part.with_suffix(".json").write_text("{")
    report = run(opened(tmp_path).build(files_in(tmp_path)))
    assert report.built == 1


def test_small_files_and_other_encoders_have_no_part(tmp_path: Path) -> None:
    write_cohort(tmp_path, "a", rows=20, columns=20)
    other = made_slide("b", encoder="f" * 16, **SIZE)
    save_features(other, tmp_path / "b.features.zarr")
    report = run(opened(tmp_path).build(files_in(tmp_path)))
    assert report.parts == 0 and not parts_in(tmp_path)
    config = options(tmp_path, index="build")
    result = run(search_slides(config, ENCODER, direction_of()))
    assert [match.name for match in result.matches] == ["a"]
    assert "another encoder" in result.skipped[0]


def test_an_index_is_used_above_five_million_only(tmp_path: Path, monkeypatch) -> None:
    assert cross_slide.EXACT_UP_TO == 5_000_000
    write_cohort(tmp_path, "ab", **SIZE)
    config, notes = options(tmp_path), []

    def search() -> int:
        notes.clear()
        return run(
            search_slides(config, ENCODER, direction_of()),
            lambda event: notes.append(event.text) if isinstance(event, Note) else None,
        ).indexed

    assert search() == 0 and not notes
    monkeypatch.setattr(cross_slide, "EXACT_UP_TO", 100)
    assert search() == 0 and "--index build" in notes[0]
    run(opened(tmp_path).build([tmp_path / "a.features.zarr"]))
    # What the index does not cover is searched exactly.
    assert 0 < search() < run(search_slides(config, ENCODER, direction_of())).searched


def test_without_the_library_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(ConfigError, match=r"napari-mcm\[search\]"):
        opened(tmp_path)


def test_what_killed_processes_left_is_removed(tmp_path: Path, monkeypatch) -> None:
    write_cohort(tmp_path, "a", **SIZE)
    index_of_a = opened(tmp_path)
    index_of_a.folder.mkdir(parents=True)
    left = index_of_a.folder / ".part-0123.usearch"
    left.write_bytes(b"half")
    run(index_of_a.build(files_in(tmp_path)))
    assert left.exists()  # It may be another process that still writes.
    later = time.time() + 1000
    monkeypatch.setattr(index.time, "time", lambda: later)
    run(index_of_a.build(files_in(tmp_path)))
    assert not left.exists()
    (described,) = index_of_a.folder.glob("*.json")
    assert json.loads(described.read_text())["recall"] >= 0.95
