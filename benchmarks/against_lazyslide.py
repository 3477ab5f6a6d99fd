"""Extraction against LazySlide: the same slide, weights, patch size and CPUs, in turns.

LazySlide runs with its defaults in a Python of its own, which has it installed; both
programs are timed from the open slide with its tiles laid to the features on disk or in
memory, after one round to warm up. Features are compared on LazySlide's own tiles.

    python benchmarks/against_lazyslide.py [SLIDE] --python LAZY_ENV/bin/python
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.features import extract
from napari_mcm.core.grid import GridConfig, PatchGrid, make_grid
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.tissue import find_tissue

THEIRS = """
import json, sys, time
import lazyslide as zs, numpy as np, timm, torch
from safetensors.torch import load_file
from torchvision.transforms import v2
slide, weights, tiles, out, mpp, rounds = sys.argv[1:]
model = timm.create_model("resnet18", num_classes=0)
model.load_state_dict(load_file(weights))
model.eval()
mean, std = json.loads(open(tiles).read())["normalisation"]
transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
                        v2.Normalize(mean, std)])
wsi = zs.open_wsi(slide)
zs.pp.find_tissues(wsi)
zs.pp.tile_tissues(wsi, 224, mpp=float(mpp))
print(json.dumps({"tiles": len(wsi["tiles"])}), flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    found = zs.tl.feature_extraction(wsi, model=model, model_name="resnet18",
        transform=transform, device="cpu", pbar=False, return_features=True)
    seconds = time.perf_counter() - began
    bounds = wsi["tiles"].geometry.bounds.to_numpy()
    np.savez(out, features=np.asarray(found), corners=bounds[:, :2])
    print(json.dumps({"seconds": seconds}), flush=True)
"""


def their_process(
    python: str, slide: Path, encoder: Encoder, folder: Path, mpp: float
) -> subprocess.Popen[str]:
    weights = folder / "weights.safetensors"
    state = encoder.module.state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, weights)
    about = folder / "about.json"
    about.write_text(json.dumps({"normalisation": [encoder.mean, encoder.std]}))
    words = [
        str(slide),
        str(weights),
        str(about),
        str(folder / "theirs.npz"),
        str(mpp),
        "1",
    ]
    return subprocess.Popen(
        [python, "-c", THEIRS, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def ask(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise SystemExit("LazySlide's process ended; run it by hand to see why")


def agreement(slide: Path, encoder: Encoder, theirs: Path, mpp: float) -> float:
    """The least cosine between both programs' features of the same tiles."""
    data = np.load(theirs)
    with open_slide(slide) as opened:
        corners = np.rint(data["corners"][:64]).astype(int)
        pixels = np.stack([opened.read(tuple(c), (224, 224), mpp) for c in corners])
    mine, other = encoder.encode(pixels), data["features"][: len(pixels)]
    norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(other, axis=1)
    return float(((mine * other).sum(axis=1) / norms).min())


def our_rate(slide: Path, grid: PatchGrid, encoder: Encoder, folder: Path) -> float:
    with open_slide(slide) as opened:
        file = folder / "ours.features.zarr"
        began = time.perf_counter()
        run(extract(opened, grid, encoder, file, overwrite=True))
        seconds = time.perf_counter() - began
    shutil.rmtree(file)
    return len(grid) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    own = options.python == sys.executable
    if own and importlib.util.find_spec("lazyslide") is None:
        print(
            "LazySlide is not installed here: name a Python that has it with --python"
        )
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = options.slide
        if slide is None:
            config = SampleConfig(slides=1, size=6000)
            slide = run(generate_cohort(folder / "sample", config)).slides[0]
        with open_slide(slide) as opened:
            mpp = max(opened.mpp)
            grid = make_grid(opened, find_tissue(opened), GridConfig(mpp=mpp))
        plain = load_encoder("random:resnet18", ComputeConfig(device="cpu"))
        began = time.perf_counter()
        compiled, problem = plain.compiled()
        print(f"compiling took {time.perf_counter() - began:.0f} s {problem}")
        process = their_process(options.python, slide, plain, folder, mpp)
        tiles = ask(process)["tiles"]
        print(f"{slide.name}: {len(grid)} patches of ours, {tiles:.0f} tiles of theirs")
        rates: dict[str, list[float]] = {
            "LazySlide": [],
            "ours": [],
            "ours compiled": [],
        }
        for number in range(options.rounds + 1):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            found = {
                "LazySlide": tiles / ask(process)["seconds"],
                "ours": our_rate(slide, grid, plain, folder),
                "ours compiled": our_rate(slide, grid, compiled, folder),
            }
            if number:  # the first round warms up
                for key, rate in found.items():
                    rates[key].append(rate)
        process.kill()
        for key, values in rates.items():
            median = float(np.median(values))
            times = median / float(np.median(rates["LazySlide"]))
            print(f"{key}: {median:.1f} patches/s, {times:.2f} times LazySlide's")
        cosine = agreement(slide, plain, folder / "theirs.npz", mpp)
        print(f"features of the same tiles agree: least cosine {cosine:.6f}")


if __name__ == "__main__":
    main()
