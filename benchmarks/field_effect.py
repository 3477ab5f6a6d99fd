"""Masked context modelling on drawn tissue with a field effect: what can be learned, when.

The slides of the generated cohort are drawn twice, with a field effect around their tumours
(a faint ripple of the eosin) and without. EfficientNet-Lite0 learns from Lite2 on slides of
four patients' tissue, arm by arm; then patches of stroma on other slides are asked whether a
tumour is near. None of them shows a cell of one. Without the effect the figures say what
stroma near a tumour looks like by itself, and with it how much of the ripple an encoder's
features hold.

    python -m benchmarks.field_effect [--seeds 0 1 2] [--out field_effect.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.evaluation.intervals import auroc
from napari_mcm.core.evaluation.probes import few_shot
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.finetune import finetune
from napari_mcm.core.mcm.teacher import TeacherCache
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.synthetic.cohort import plan_sample

PATCH, EXTENT, STRENGTH = 64, 250.0, 0.05
COHORT = SampleConfig(slides=8, size=2000, mpp=1.0, seed=11, tumour_share=0.2)
TRAINED, TESTED = (0, 1, 2, 3), (4, 5)
STUDENT, TEACHER = "offline:efficientnet_lite0", "offline:efficientnet_lite2"
FLOAT32 = ComputeConfig(precision="float32", threads=1)

ARMS: Mapping[str, Mapping[str, Any]] = {
    "D": {"context_mode": "none"},
    "F": {"context_mode": "masked"},
    "X": {"context_mode": "foreign"},
    "N": {"context_mode": "neighbours"},
}


@dataclass(frozen=True)
class Stroma:
    """Patches of stroma that show no tumour.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (N, PATCH, PATCH, 3)
        RGB patches.
    near : ndarray of int64, shape (N,)
        1 within half the effect's distance of a tumour, 0 beyond the effect.
    slide : ndarray of int64, shape (N,)
        Number of the slide.
    xy : ndarray of int64, shape (N, 2)
        Upper left corners in level-0 pixels.
    """

    pixels: NDArray[np.uint8]
    near: NDArray[np.int64]
    slide: NDArray[np.int64]
    xy: NDArray[np.int64]


def draw(folder: Path, effect: bool) -> tuple[Path, ...]:
    """Draw the cohort with or without its field effect."""
    with_effect = {
        "field_effect": True,
        "field_extent": EXTENT,
        "field_strength": STRENGTH,
    }
    config = COHORT.model_copy(update=with_effect if effect else {})
    return run(generate_cohort(folder, config)).slides


def find_stroma(slides: tuple[Path, ...]) -> Stroma:
    """Read patches of plain stroma, near the tumours of the tested slides and far away."""
    pixels, near, which, xy = [], [], [], []
    for index in TESTED:
        layout = plan_sample(COHORT, index)
        pitch = layout.chart.pitch
        away = ndimage.distance_transform_edt(layout.tumour <= 0) * pitch
        # Nothing but collagen, fibroblasts and vessels.
        other = np.maximum.reduce([layout.ducts, layout.lobules, layout.fat])
        plain = np.minimum(layout.tissue, -other) > 0
        plain &= layout.lymph < 0.2
        with open_slide(slides[index]) as slide:
            for y in range(0, COHORT.size - PATCH, PATCH // 2):
                for x in range(0, COHORT.size - PATCH, PATCH // 2):
                    box = np.s_[
                        int(y / pitch) : int((y + PATCH) / pitch) + 1,
                        int(x / pitch) : int((x + PATCH) / pitch) + 1,
                    ]
                    least, most = away[box].min(), away[box].max()
                    is_near, is_far = most < 0.75 * EXTENT, least > EXTENT
                    if plain[box].mean() < 0.95 or least < 12 or not is_near | is_far:
                        continue
                    pixels.append(slide.read((x, y), (PATCH, PATCH), 1.0))
                    near.append(int(is_near))
                    which.append(index)
                    xy.append((x, y))
    return Stroma(np.stack(pixels), np.array(near), np.array(which), np.array(xy))


def probe(encoder: Encoder, stroma: Stroma, seed: int) -> float:
    """Return the few-shot AUROC of being near a tumour, labels from the other slide."""
    features = encoder.encode(stroma.pixels).astype(np.float32)
    draws = few_shot(features, stroma.near, stroma.slide, k=10, draws=40, seed=seed)
    # Within slides: stain may differ between them.
    values = [
        auroc(scores[stroma.slide == slide, 1], stroma.near[stroma.slide == slide] == 1)
        for scores in draws
        for slide in TESTED
    ]
    return float(np.mean(values))


def learn(
    slides: tuple[Path, ...], arm: str, seed: int, cache: TeacherCache, **more: Any
) -> Encoder:
    """Fine-tune by an arm on the slides to train on."""
    options = {
        "aligned": True,
        # The teacher's features are then computed once for all arms.
        "flips": False,
        "placements": 4 if arm != "N" else 2,
        "batch_windows": 8,
        "student_lr": 5e-4,
        "head_lr": 1e-3,
        "lr_scaling": "none",
        "head_epochs": 8,
        "head_windows": 128,
        "seed": seed,
        **more,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = FinetuneConfig.model_validate(
            {
                "slides": [str(slides[index]) for index in TRAINED],
                "out": Path(folder) / "run",
                "student": STUDENT,
                "teacher": TEACHER,
                "grid": {"patch_size": PATCH, "mpp": 1.0},
                "context": {"s": 4, **ARMS[arm]},
                "target": {"loss": "l2"},
                "optimiser": options,
                "compute": FLOAT32.model_dump(),
                "workers": 1,
                "chunk_windows": 8,
            }
        )
        done = run(finetune(config, cache=cache))
        return load_encoder(done.run_dir, FLOAT32)


def main() -> None:
    """Measure all arms and print as it goes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--without", nargs="*", default=["F"])
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE")
    parser.add_argument("--work", type=Path, default=Path("field_effect"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    more = {k: json.loads(v) for k, v in (pair.split("=") for pair in given.set)}
    results: dict[str, dict[str, list[float]]] = {}
    began = time.process_time()
    for effect, arms in ((True, given.arms), (False, given.without)):
        slides = draw(given.work / ("with" if effect else "without"), effect)
        stroma = find_stroma(slides)
        cache = TeacherCache(256)
        print(f"{len(stroma.near)} patches of stroma, {stroma.near.mean():.0%} near")
        table = results.setdefault("with" if effect else "without", {})
        for seed in given.seeds:
            for arm in ("A", *arms):
                if arm == "A":
                    encoder = load_encoder(STUDENT, FLOAT32)
                else:
                    encoder = learn(slides, arm, seed, cache, **more)
                value = probe(encoder, stroma, seed)
                table.setdefault(arm, []).append(value)
                seconds = time.process_time() - began
                print(f"{effect} {seed} {arm} {value:.3f} {seconds:.0f} s", flush=True)
    if given.out:
        content = {"auroc": results, "cpu_seconds": time.process_time() - began}
        given.out.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
