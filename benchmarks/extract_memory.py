"""Peak memory of an extraction, for a slide and for one with four times its patches.

python benchmarks/extract_memory.py [--size 25000] [--encoder random:test_efficientnet]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from sparse_slide import write_sparse_slide

from napari_mcm.core.features import ExtractConfig, extract_slides
from napari_mcm.core.runtime.jobs import run


def measure(size: int, encoder: str) -> None:
    """Extract in this process, and print patches and peak resident memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        slide = write_sparse_slide(Path(folder) / "sparse.tif", size)
        config = ExtractConfig(
            slides=(slide,), encoder=encoder, out=Path(folder), compile="off"
        )
        result = run(extract_slides(config))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(result.patches, peak, result.patches_per_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=25_000)
    parser.add_argument("--encoder", default="random:test_efficientnet")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure(options.size, options.encoder)
        return
    peaks = []
    for size in (options.size, 2 * options.size):
        command = [sys.executable, __file__, "--here", "--encoder", options.encoder]
        done = subprocess.run(
            [*command, "--size", str(size)], stdout=subprocess.PIPE, check=True
        )
        patches, peak, rate = map(float, done.stdout.split()[-3:])
        peaks.append(peak)
        print(f"{patches:,.0f} patches: {peak:,.0f} MB at most, {rate:,.0f} a second")
    print(f"difference: {peaks[1] - peaks[0]:+,.0f} MB")


if __name__ == "__main__":
    main()
