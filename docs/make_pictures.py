"""Take every picture of the program in the docs and the README, by driving it.

    make pictures
    scripts/with_display.sh .venv/bin/python docs/make_pictures.py [--only mil mae]
        [--out FOLDER]

Each part runs in a process and a home of its own, on slides that are generated there:
nobody's settings, files or slides are seen or changed. Buttons are pressed and the canvas
is clicked; nothing is drawn in afterwards. How each is taken stands in
`screenshot_scenarios.py`.
Pictures called `results-…` are made by `make results`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from napari_mcm import __version__
from napari_mcm.viewer.sample_data import SIZE

HERE = Path(__file__).parent
PICTURES = {
    "slide": ("slide", "slide-light"),
    "features": ("features",),
    "similarity": (
        "viewer-dark",
        "viewer-light",
        "similarity",
        "similarity-difference",
    ),
    "classes": ("classes",),
    "atlas": ("atlas",),
    "finetune": (
        "finetune-setup",
        "finetune-window",
        "finetune-running",
        "finetune-run",
    ),
    "mil": ("mil-training", "mil-results", "mil-attention"),
    "mae": ("mae-training", "mae-reconstruct"),
    "cells": ("mae-cells",),
    "demo": ("before-after",),
}
"""What each part takes."""
SCRATCH = Path(tempfile.gettempdir()) / "mcm"
"""Short: its paths are to be read in the pictures."""
SAMPLES = SCRATCH / "samples"
MARKER = ".napari-mcm-pictures"


def main() -> None:
    """Take all pictures, or those of some parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PICTURES, metavar="PART")
    parser.add_argument("--out", type=Path, default=HERE / "pictures")
    options = parser.parse_args()
    draw_sample()
    for part in options.only or PICTURES:
        began = time.monotonic()
        take(part, options.out.resolve(), SCRATCH / part)
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)


def take(part: str, out: Path, home: Path) -> None:
    """Take the pictures of one part, in a home that is made anew."""
    if home.exists() and not (home / MARKER).exists():
        raise SystemExit(f"{home} holds something else: move it away")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / MARKER).touch()
    shutil.copytree(SAMPLES, home / ".cache" / "napari-mcm" / "samples")
    began = time.time()
    script = HERE / "screenshot_scenarios.py"
    command = [sys.executable, str(script), part, str(out), str(home)]
    subprocess.run(command, env=at_home(home), cwd=home, check=True)
    for name in PICTURES[part]:
        picture = out / f"{name}.png"
        if not picture.exists() or picture.stat().st_mtime < began - 1:
            raise SystemExit(f"{picture} was not taken")
    shutil.rmtree(home)


def draw_sample() -> None:
    """Generate the sample slide that *File > Open Sample* shows; once is enough."""
    program = Path(sys.executable).with_name("napari-mcm")
    folder = SAMPLES / f"{__version__}-{SIZE}-0"
    line = [str(program), "sample", "--slides", "1", "--size", str(SIZE), "--out"]
    subprocess.run([*line, str(folder)], check=True)


def at_home(home: Path) -> dict[str, str]:
    """Give an environment in which all settings and caches are those of a new user."""
    xdg_names = ("CONFIG", "CACHE", "DATA", "STATE")
    left_out = {"NAPARI_CONFIG", *(f"XDG_{name}_HOME" for name in xdg_names)}
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    return kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    main()
