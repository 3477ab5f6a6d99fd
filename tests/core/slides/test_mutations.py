"""Damaged files of every format: a result or one of our errors, never anything else.

25 per family, in the long run (``make test-long``) the 500 that the figures in
``docs/formats.md`` are of; ``NAPARI_MCM_MUTATION_REPORT`` says where to write what became
of them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.core.conftest import stained_image
from tests.core.slides import scanner_files as files
from tests.core.slides.mutations import (
    HANG_S,
    MOST_MB,
    Tally,
    Worker,
    changes,
    hot_places,
    mutated,
)
from tests.lengths import length

EXAMPLES = length(25, 500)
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="memory is bounded and measured as Linux does it"
)
IMAGE = stained_image(768, 640)
REAL = {
    "Aperio SVS, JPEG": ["cmu1/CMU-1-Small-Region.svs", "her2st/her2st_C2.svs"],
    "Aperio SVS, JPEG 2000": ["luna/1065626.svs"],
    "pyramidal TIFF": ["her2st/her2st_C3.tiff"],
    "OME-TIFF": [
        "her2st/her2st_C4.ome.tiff",
        "openslide_crops/OS-1-detail.ome.tif",
        "openslide_crops/OS-2-ndpi.ome.tif",
        "openslide_crops/OS-2-vsi.ome.tif",
    ],
    "DICOM": [
        "cmu1/CMU-1-Small-Region_dicom",
        "her2st/her2st_C5_dicom",
        "camelyon_dicom",
    ],
    "OME-Zarr": ["cmu1/CMU-1-Small-Region.ome.zarr"],
}
WRITTEN = {
    "Hamamatsu NDPI": (files.write_ndpi, "slide.ndpi"),
    "Leica SCN": (files.write_scn, "slide.scn"),
    "Ventana BIF": (files.write_bif, "slide.bif"),
    "Akoya QPTIFF": (files.write_qptiff, "slide.qptiff"),
    "Philips TIFF": (files.write_philips, "slide.tiff"),
}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    process = Worker()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def report() -> Iterator[dict[str, Tally]]:
    tallies: dict[str, Tally] = {}
    yield tallies
    if path := os.environ.get("NAPARI_MCM_MUTATION_REPORT"):
        Path(path).write_text(json.dumps({k: vars(t) for k, t in tallies.items()}))


def attack(bases: list[Path], folder: Path, worker: Worker) -> Tally:
    """Damage copies of files, or one file of a folder, in turn."""
    tally, turn = Tally(), iter(range(10**9))
    contents = [_parts(base) for base in bases]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(changes)
    def one(wanted):
        number = next(turn)
        base = bases[number % len(bases)]
        parts = contents[number % len(bases)]
        name, data, hot = parts[number // len(bases) % len(parts)]
        target = folder / f"{number % len(bases)}" / base.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if base.is_dir() else shutil.copyfile)(base, target)
        damaged = target / name if base.is_dir() else target
        damaged.write_bytes(mutated(data, hot, wanted))
        try:
            answer = worker.ask(target)
            if answer["seconds"] >= HANG_S:
                # What hangs hangs twice; a machine that others use is slow once.
                again = worker.ask(target)
                answer["seconds"] = min(answer["seconds"], again["seconds"])
        finally:
            damaged.write_bytes(data)
        tally.add(answer)
        assert answer["outcome"] != "not one of our errors", answer["detail"]
        assert answer["seconds"] < HANG_S, answer
        assert answer["megabytes"] < MOST_MB, answer
        assert "\n" not in answer["detail"], answer["detail"]

    one()
    return tally


def _parts(base: Path) -> list[tuple[str, bytes, list[int]]]:
    inside = [p for p in base.rglob("*") if p.is_file()] if base.is_dir() else [base]
    # What describes the others comes as often as it matters.
    small = [p for p in inside if p.stat().st_size < 20_000]
    chosen = sorted(inside) + sorted(small) * 3
    found = []
    for path in chosen:
        data = path.read_bytes()
        name = str(path.relative_to(base)) if base.is_dir() else path.name
        found.append((name, data, hot_places(data)))
    return found


@pytest.mark.parametrize("family", WRITTEN)
def test_damaged_files_of_a_scanner_s_structure(family, tmp_path, worker, report):
    write, name = WRITTEN[family]
    report[family] = attack([write(tmp_path / name, IMAGE)], tmp_path / "x", worker)
    assert report[family].outcomes["refused"] > 0
    assert report[family].outcomes["read"] > 0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("family", REAL)
def test_damaged_real_files(family, shared_data, tmp_path, worker, report):
    bases = [shared_data / "slides" / name for name in REAL[family]]
    report[family] = attack(bases, tmp_path / "x", worker)
    assert report[family].outcomes["refused"] > 0
    assert report[family].outcomes["read"] > 0
