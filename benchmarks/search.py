"""The costs of a search over a cohort, exact and with an index, and its recall.

Synthetic slides: 10,000 patches each, whose features lie around the centres of a few kinds
of tissue, change smoothly over the slide, and are stored as float16. Each query is a patch of
a random slide with noise added. Times are of the whole search: listing files, opening them,
and ranking patches of all slides. `--motif` instead generates 50 slides, plants a motif on
two of them, encodes all, and searches for it from one of them.

    python benchmarks/search.py --patches 100000 1000000 --dim 768 [--context 0] \\
        [--queries 20] [--exact 5] [--folder FOLDER] [--out search.json]
    python benchmarks/search.py --motif [--encoder offline:efficientnet_lite0] [--slides 50]

Memory is what the process allocates (RssAnon); mapped files are the system's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_mcm.core.features import ExtractConfig
from napari_mcm.core.features.batch_extraction import extract_slides
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.store import create_group
from napari_mcm.core.grid import GridConfig, PatchGrid
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.search import (
    CrossSlideConfig,
    CrossSlideResult,
    SearchConfig,
    SearchIndex,
    search,
    search_slides,
)
from napari_mcm.core.search.index import default_folder
from napari_mcm.core.synthetic import SampleConfig, generate_cohort

ENCODER = "5" * 16
SIDE, BLOCK = 100, 2048
"""Patches along a slide's side, and rows per block of a file."""
KINDS, LATENT = 24, 48
"""Kinds of tissue, and dimensions in which patches of a kind differ."""


def write_slide(path: Path, number: int, dim: int) -> None:
    """Write the feature file of one synthetic slide."""
    rng = np.random.default_rng(number)
    shared = np.random.default_rng(0)
    centres = shared.normal(size=(KINDS, LATENT)).astype(np.float32)
    spread = shared.normal(size=(LATENT, dim)).astype(np.float32) / np.sqrt(LATENT)
    lattice = np.indices((SIDE, SIDE)).reshape(2, -1).T.astype(np.int32)
    # Kinds in patches of tissue, some of all kinds on each slide.
    seeds = rng.uniform(0, SIDE, (40, 2))
    nearest = ((lattice[:, None] - seeds) ** 2).sum(2).argmin(1)
    latent = centres[rng.integers(0, KINDS, 40)[nearest]]
    latent += 0.6 * rng.normal(size=latent.shape).astype(np.float32)
    latent += 0.3 * rng.normal(size=(1, LATENT)).astype(np.float32)  # stain
    noise = np.random.default_rng(1).normal(size=(SIDE**2, dim)).astype(np.float32)
    values = latent @ spread + 0.35 * np.roll(noise, number * 7919, axis=0)
    grid = full_grid(path.name.split(".")[0], number, lattice)
    encoder = {"spec": "synthetic", "fingerprint": ENCODER, "precision": "float32"}
    group, _ = create_group(path, grid, encoder | {"dim": dim}, BLOCK)
    shutil.rmtree(path / "features")
    array = group.create_array(
        "features",
        shape=values.shape,
        chunks=(BLOCK, dim),
        dtype="float16",
        fill_value=float("nan"),
        compressors=zarr.codecs.Crc32cCodec(),
    )
    array[:] = values.astype(np.float16)
    for name, value in (("status", 0), ("blur", 0.1), ("artefact", 0.1)):
        stored: Any = group[name]
        stored[:] = np.full(len(values), value, stored.dtype)
    group.update_attributes({"provenance": {"software": "benchmark"}, "complete": True})


def full_grid(name: str, number: int, lattice: NDArray[np.int32]) -> PatchGrid:
    """A slide that is covered with patches."""
    identity = {
        "name": name,
        "fingerprint": f"{number:016x}",
        "size": [SIDE * 224] * 2,
        "mpp": [0.5, 0.5],
    }
    return PatchGrid(
        lattice[:, ::-1].astype(np.int64) * 224,
        lattice,
        224,
        0.5,
        (224.0, 224.0),
        (0.0, 0.0),
        (SIDE, SIDE),
        identity,
    )


def write_cohort(folder: Path, patches: int, dim: int) -> float:
    """Write the cohort, and return the seconds that it took."""
    began = time.perf_counter()
    for number in range(patches // SIDE**2):
        path = folder / f"slide_{number:05}.features.zarr"
        if not path.exists():
            write_slide(path, number, dim)
    return time.perf_counter() - began


def make_queries(
    folder: Path, count: int, neighbourhood: NeighbourhoodConfig
) -> list[NDArray[np.float32]]:
    """Draw patches of random slides, with noise of a third of their length."""
    from napari_mcm.core.features.mapped import MappedFeatures
    from napari_mcm.core.search.scoring import index_of

    rng = np.random.default_rng(2)
    files = sorted(folder.glob("*.features.zarr"))
    queries = []
    for file in rng.choice(np.array(files, object), count):
        row = rng.integers(0, SIDE**2, 1)
        inside, index = index_of(MappedFeatures(file), row, neighbourhood)
        unit = index.units(inside.tolist())
        noise = rng.normal(size=unit.shape)
        unit = unit + 0.33 * noise / np.linalg.norm(noise)
        queries.append((unit / np.linalg.norm(unit)).astype(np.float32))
    return queries


@contextmanager
def peak_memory(measured: dict[str, float], name: str) -> Iterator[None]:
    """Note by how much the process's own memory grows at most, in MiB."""
    ended = threading.Event()
    start = own_mib()
    highest = [start]

    def watch() -> None:
        while not ended.wait(0.01):
            highest[0] = max(highest[0], own_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        measured[name] = round(highest[0] - start)


def own_mib() -> float:
    """Return the memory that this process has allocated, without mapped files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


def ask(
    config: CrossSlideConfig, queries: list[NDArray[np.float32]]
) -> tuple[list[CrossSlideResult], list[tuple[float, float]]]:
    """Run the queries, and return results and seconds, by the clock and of processors."""
    results, times = [], []
    for query in queries:
        began, used = time.perf_counter(), time.process_time()
        results.append(run(search_slides(config, ENCODER, query)))
        times.append((time.perf_counter() - began, time.process_time() - used))
    return results, times


def percentiles(name: str, times: list[tuple[float, float]]) -> dict[str, float]:
    """Return the first time, and median and 95th percentile of the others, in s."""
    seconds, used = zip(*times, strict=True)
    p50, p95 = np.percentile(seconds[1:] or seconds, [50, 95])
    return {
        f"{name}_cpu_p50_s": round(float(np.median(used[1:] or used)), 3),
        f"{name}_first_s": round(seconds[0], 3),
        f"{name}_p50_s": round(float(p50), 3),
        f"{name}_p95_s": round(float(p95), 3),
    }


def measure(folder: Path, patches: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one size."""
    from napari_mcm.core.search import cross_slide

    # At any size, to compare both.
    cross_slide.EXACT_UP_TO = 0
    around = NeighbourhoodConfig(radius=options.context)
    measured: dict[str, Any] = {"patches": patches, "dim": options.dim}
    measured["context"] = options.context
    measured["write_s"] = round(write_cohort(folder, patches, options.dim), 1)
    measured["features_gb"] = round(size_of(folder, "*.features.zarr") / 1e9, 2)
    queries = make_queries(folder, options.queries, around)
    config = CrossSlideConfig(
        features=folder, index="off", count=60, neighbourhood=around
    )
    with peak_memory(measured, "exact_mib"):
        exact, times = ask(config, queries[: options.exact])
    measured |= percentiles("exact", times)
    print(json.dumps(measured), flush=True)
    index = SearchIndex(default_folder(folder), ENCODER, around)
    used = time.process_time()
    with peak_memory(measured, "build_mib"):
        report = run(index.build(sorted(folder.glob("*.features.zarr"))))
    measured["build_s"] = round(report.seconds, 1)
    measured["build_cpu_s"] = round(time.process_time() - used, 1)
    measured["build_recall"] = round(report.recall, 4)
    measured["build_lowest"] = round(report.lowest, 4)
    measured["index_gb"] = round(size_of(folder, "search-index") / 1e9, 2)
    print(report.describe(), flush=True)
    with peak_memory(measured, "index_mib"):
        found, times = ask(config.model_copy(update={"index": "auto"}), queries)
    measured |= percentiles("index", times)
    hits = [
        len(top(one) & top(other)) / 10
        for one, other in zip(exact, found, strict=False)
    ]
    measured["recall_at_10"] = round(float(np.mean(hits)), 4)
    measured["indexed"] = found[0].indexed
    return measured


def top(result: CrossSlideResult) -> set[tuple[str, int]]:
    """Return the ten best patches."""
    return {(patch.slide, patch.row) for patch in result.patches[:10]}


def size_of(folder: Path, pattern: str) -> int:
    """Return the bytes of all files below what a pattern names."""
    return sum(
        file.stat().st_size
        for one in folder.glob(pattern)
        for file in one.rglob("*")
        if file.is_file()
    )


def plant(path: Path, corner: tuple[int, int], seed: int) -> None:
    """Draw a motif of 240 px onto a slide: a keratin pearl, rings around pale cores."""
    import tifffile
    from tests.core.conftest import write_pyramid

    image = np.array(tifffile.imread(path, level=0))
    rng = np.random.default_rng(seed)
    side, (left, upper) = 240, corner
    y, x = np.mgrid[:side, :side].astype(float)
    turn = rng.uniform(0, 2 * np.pi)
    bend = 9 * np.sin(3 * np.arctan2(y - 120, x - 120) + turn)
    distance = np.hypot(x - 120, y - 120) + bend
    rings = (np.sin(distance / 5) + 1) / 2
    pearl = rings[..., None] * (235, 120, 140) + (1 - rings[..., None]) * (150, 40, 70)
    pearl += rng.normal(0, 8, pearl.shape)
    inside = (distance < 112)[..., None]
    part = image[upper : upper + side, left : left + side]
    part[:] = np.where(inside, np.clip(pearl, 0, 255), part).astype(np.uint8)
    write_pyramid(path, image)


def find_motif(options: argparse.Namespace) -> dict[str, Any]:
    """Plant a motif on two of many generated slides, and search from one of them."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        sample = SampleConfig(slides=options.slides, size=1536, seed=5)
        slides = run(generate_cohort(folder / "slides", sample)).slides
        places = {3: (600, 720), options.slides - 9: (824, 552)}
        for number, corner in places.items():
            plant(Path(slides[number]), corner, number)
        began = time.perf_counter()
        config = ExtractConfig(
            slides=tuple(Path(slide) for slide in slides),
            encoder=(options.encoder,),
            out=folder / "features",
            grid=GridConfig(mpp=0.5, patch_size=112),
        )
        run(extract_slides(config))
        encoded = time.perf_counter() - began
        source, target = (Path(slides[n]).name.split(".")[0] for n in places)
        x, y = (edge + 120 for edge in places[3])
        began = time.perf_counter()
        asked = SearchConfig(
            features=folder / "features", at=(f"{source}:{x},{y}",), per_slide=3
        )
        result = run(search(asked)).result
        seconds = time.perf_counter() - began
    return describe_motif(result, target, places[options.slides - 9]) | {
        "encoder": options.encoder,
        "slides": len(result.matches),
        "patches": result.searched,
        "encode_s": round(encoded, 1),
        "search_s": round(seconds, 2),
    }


def describe_motif(
    result: CrossSlideResult, target: str, corner: tuple[int, int]
) -> dict[str, Any]:
    """Return where the planted motif is in the ranking, besides the query's own slide."""
    low, high = np.array(corner), np.array(corner) + 240

    def hits(centre: tuple[float, float]) -> bool:
        return bool((low <= centre).all() and (centre <= high).all())

    others = [p for p in result.patches if p.slide != result_source(result, target)]
    ranks = [
        rank
        for rank, patch in enumerate(others, 1)
        if patch.slide == target and hits(patch.centre)
    ]
    first = others[0]
    runner_up = next(p for p in others if p.slide != target)
    return {
        "first": (first.slide == target) and hits(first.centre),
        "rank": ranks[0] if ranks else None,
        "value": round(first.value, 4),
        "best_of_other_slides": round(runner_up.value, 4),
    }


def result_source(result: CrossSlideResult, target: str) -> str:
    """Return the slide with the query: the best one that is not the target."""
    return next(m.name for m in result.matches if m.name != target)


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--context", type=int, default=0)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--exact", type=int, default=5, help="of which exact, too")
    parser.add_argument("--motif", action="store_true")
    parser.add_argument("--encoder", default="offline:efficientnet_lite0")
    parser.add_argument("--slides", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=None, help="is kept")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    if options.motif:
        found = [find_motif(options)]
    else:
        base = options.folder or Path(tempfile.mkdtemp(prefix="search-"))
        found = []
        for patches in options.patches:
            folder = base / f"{patches}-{options.dim}"
            folder.mkdir(parents=True, exist_ok=True)
            found.append(measure(folder, patches, options))
            print(json.dumps(found[-1]), flush=True)
        if options.folder is None:
            shutil.rmtree(base)
    content = {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "measured": found}
    print(json.dumps(content, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
