"""Patches a second over several slides: one process, and local clusters of workers.

python benchmarks/cluster.py SLIDE SLIDE ... [--encoder E] [--mpp 1] [--rounds 2]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from napari_mcm.core.features import ExtractConfig
from napari_mcm.core.features.cluster import extract_anywhere
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.runtime.jobs import Progress, run


def measure(options: argparse.Namespace, workers: int) -> None:
    """Extract, and print patches a second from the first patch on."""
    with tempfile.TemporaryDirectory() as folder:
        config = ExtractConfig(
            slides=tuple(options.slides),
            encoder=options.encoder,
            out=Path(folder),
            grid=GridConfig(mpp=options.mpp),
            compile="off",
            local_cluster=workers,
        )
        marks: list[float] = []

        def listen(event: object) -> None:
            if isinstance(event, Progress) and "xtracting" in event.stage and not marks:
                marks.append(time.perf_counter())

        result = run(extract_anywhere(config), listen)
        seconds = time.perf_counter() - marks[0]
    print(result.slides, result.patches, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slides", nargs="+", type=Path)
    parser.add_argument("--encoder", default="offline:efficientnet_lite0")
    parser.add_argument("--mpp", type=float, default=1.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here is not None:
        measure(options, options.here)
        return
    rates: dict[int, list[float]] = {workers: [] for workers in options.workers}
    for _ in range(options.rounds):
        for workers in options.workers:
            command = [sys.executable, __file__, *sys.argv[1:], "--here", str(workers)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            slides, patches, seconds = map(float, done.stdout.split()[-3:])
            rates[workers].append(patches / seconds)
    print(f"{slides:.0f} slides, {patches:,.0f} patches, workers' start-up included:")
    for workers, found in rates.items():
        name = f"{workers} worker(s)" if workers else "no cluster"
        each = ", ".join(f"{rate:.1f}" for rate in found)
        print(f"  {name:12s} {statistics.median(found):6.1f} a second ({each})")


if __name__ == "__main__":
    main()
