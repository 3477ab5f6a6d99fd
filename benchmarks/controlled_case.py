"""A controlled case: what learning from context can do that distillation cannot.

Islands of tissue each have a hidden state, 0 or 1. A quarter of an island's patches bear a
*sign* of it, a red or a blue disc. Every patch, with or without a sign, bears a *faint
texture*, a grating that lies one way in state 0 and across in state 1. The frozen teacher
sees the signs and no grating at all. The student starts with filters that see nearly none.

A patch without a sign is then the test: its state is in its pixels, and nothing that the
teacher says of it depends on the state. Distillation has no reason to look at the grating.
Masked context modelling has: the grating of the visible patches tells which sign a masked
patch may bear. Take the grating away and nothing is left to be learned.

The windows, the head warm-up, the steps and the losses are the package's own: slides are
written, planned by `plan_windows` and learned by `FinetuneLoop`.

    python -m benchmarks.controlled_case [--seeds 0 1 2] [--out controlled.json]
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
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_mcm.core.encoders import Encoder
from napari_mcm.core.evaluation.intervals import auroc
from napari_mcm.core.evaluation.probes import few_shot
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.loop import FinetuneLoop, plan_windows
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.mcm.windows import Source
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import TissueMask
from napari_mcm.core.training import Run

PATCH = 32
ISLAND, GAP = 6, 2  # patches
SIDE = 8  # islands along a slide's side
SIGNS = 0.25
WAVE = 4  # pixels; a patch holds whole waves, so that its mean does not change
TEXTURE = 10.0  # grey levels, root mean square; the noise has 8

ARMS: Mapping[str, Mapping[str, Any]] = {
    "A": {},
    "D": {"context": {"context_mode": "none"}},
    "F": {"context": {"context_mode": "masked"}},
    "X": {"context": {"context_mode": "foreign"}},
    "N": {"context": {"context_mode": "neighbours"}},
    "F without texture": {"context": {"context_mode": "masked"}},
}


@dataclass(frozen=True)
class Field:
    """A drawn slide, and the truth of each of its patches.

    Attributes
    ----------
    path : Path
        The slide.
    tissue : TissueMask
        The islands.
    pixels : ndarray of uint8, shape (N, PATCH, PATCH, 3)
        All patches.
    state, island : ndarray of int64, shape (N,)
        Hidden state, and number of the island.
    sign : ndarray of bool, shape (N,)
        Whether the patch bears a sign.
    """

    path: Path
    tissue: TissueMask
    pixels: NDArray[np.uint8]
    state: NDArray[np.int64]
    island: NDArray[np.int64]
    sign: NDArray[np.bool_]


def draw_patch(
    state: int, sign: bool, texture: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw a patch: uneven ground, noise, a grating, and perhaps a disc."""
    y, x = np.mgrid[:PATCH, :PATCH].astype(np.float64)
    down, across = rng.normal(0, 0.3, 2)
    grey = 160 + rng.normal(0, 12) + down * y + across * x
    grey += rng.normal(0, 8, (PATCH, PATCH))
    phase = rng.uniform(0, 2 * np.pi)
    grey += texture * 2**0.5 * np.sin(2 * np.pi * (x if state else y) / WAVE + phase)
    image = np.repeat(grey[..., None], 3, axis=2)
    if sign:
        cy, cx = rng.uniform(8, PATCH - 8, 2)
        disc = np.hypot(y - cy, x - cx) < 6
        image[disc] += (70, -20, -50) if state else (-50, -20, 70)
    return image.clip(0, 255).astype(np.uint8)


def draw_field(path: Path, texture: float, seed: int) -> Field:
    """Draw a slide of islands and write it as a TIFF of 1 µm per pixel."""
    rng = np.random.default_rng(seed)
    period = (ISLAND + GAP) * PATCH
    image = np.full((SIDE * period, SIDE * period, 3), 245, np.uint8)
    mask = np.zeros((SIDE * (ISLAND + GAP),) * 2, bool)
    states = rng.permutation(np.arange(SIDE**2) % 2)
    pixels, island, sign = [], [], []
    for number, state in enumerate(states):
        top, left = (n * period for n in divmod(number, SIDE))
        signs = rng.permutation(np.arange(ISLAND**2) < SIGNS * ISLAND**2)
        for place, has in enumerate(signs):
            row, column = (n * PATCH for n in divmod(place, ISLAND))
            patch = draw_patch(int(state), bool(has), texture, rng)
            at = np.s_[top + row :, left + column :]
            image[at][:PATCH, :PATCH] = patch
            mask[(top + row) // PATCH, (left + column) // PATCH] = True
            pixels.append(patch)
            island.append(number)
            sign.append(has)
    unit = {"PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0}
    micron = {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(
        path, image, tile=(256, 256), photometric="rgb", metadata={**unit, **micron}
    )
    tissue = TissueMask.from_array(mask, image.shape[1::-1])
    which = np.array(island)
    return Field(path, tissue, np.stack(pixels), states[which], which, np.array(sign))


class Student(nn.Module):
    """Two convolutions whose first filters are smooth: they hardly see the grating."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 4, stride=2)
        self.second = nn.Conv2d(16, 32, 3, stride=2)
        with torch.no_grad():
            colour = torch.randn(16, 3, 1, 1, generator=generator) / 48**0.5
            rough = torch.randn(16, 3, 4, 4, generator=generator) / 48**0.5
            self.first.weight.copy_(2 * colour + 0.5 * rough)
            self.first.bias.zero_()
            weight = torch.randn(32, 16, 3, 3, generator=generator)
            self.second.weight.copy_(weight * (2 / 144) ** 0.5)
            self.second.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()  # (B, 16, 15, 15)
        return self.second(x).relu().mean(dim=(2, 3))  # (B, 32)


class Teacher(nn.Module):
    """How much red, how much blue, and how bright: 24 fixed mixtures of the three.

    Red and blue are differences of channels, in which a grey grating cancels out. The
    brightness is a mean over the patch, in which it averages out.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(3, 24, generator=generator))
        self.base = nn.Parameter(torch.randn(24, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        red, _, blue = x.unbind(1)  # (B, p, p) each
        seen = [
            20 * (red - blue - 0.5).relu().mean(dim=(1, 2)),
            20 * (blue - red - 0.5).relu().mean(dim=(1, 2)),
            x.mean(dim=(1, 2, 3)),
        ]
        return self.base + torch.stack(seen, dim=1) @ self.mix  # (B, 24)


def as_encoder(module: nn.Module, name: str, dim: int) -> Encoder:
    """Make an encoder of the package out of a module."""
    return Encoder(
        module=module.eval(),
        architecture=name,
        spec=name,
        dim=dim,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        input_size=None,
        fingerprint=name,
        recipe={"architecture": name},
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def make_encoders(seed: int) -> tuple[Encoder, Encoder]:
    """Make student and teacher by a seed."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = Student(generator), Teacher(generator)
    return as_encoder(student, "student", 32), as_encoder(teacher, "teacher", 24)


def make_config(arm: str, seed: int, **optimiser: Any) -> FinetuneConfig:
    """Make the options of an arm; all arms differ in the context only."""
    context = {"s": 3, "width": 32, "heads": 4, "depth": 2, "predictor_width": 64}
    return FinetuneConfig.model_validate(
        {
            "chunk_windows": 16,
            "grid": GridConfig(patch_size=PATCH, mpp=1.0),
            "context": {**context, **ARMS[arm].get("context", {})},
            "target": {"loss": "l2", "start_at_median": False},
            "optimiser": {
                "aligned": True,
                # A flipped grating would lie the other way.
                "flips": False,
                "placements": 8,
                "epochs": 2,
                "batch_windows": 16,
                "student_lr": 5e-3,
                "head_lr": 2e-3,
                "lr_scaling": "none",
                "head_epochs": 4,
                "head_windows": 256,
                "seed": seed,
                **optimiser,
            },
        }
    )


def learn(field: Field, arm: str, seed: int, folder: Path, **optimiser: Any) -> Encoder:
    """Train the student of an arm on a field, by the package's own loop."""
    student, teacher = make_encoders(seed)
    if arm == "A":
        return student
    config = make_config(arm, seed, **optimiser)
    with open_slide(field.path) as slide:
        sources = [Source(slide, field.tissue)]
        windows = plan_windows(config, sources, 1.0)
        trainer = McmTrainer(student, teacher, config)
        run_ = Run.create(folder, config.model_dump(mode="json"))
        run(FinetuneLoop(run_, trainer, config, windows).learn())
    return trainer.student


def probe(student: Encoder, field: Field, seed: int) -> float:
    """Return the few-shot AUROC of the hidden state on patches without a sign."""
    rows = np.flatnonzero(~field.sign)
    student.module.eval()
    features = student.encode(field.pixels[rows]).astype(np.float32)
    labels = field.state[rows]
    # Labels come from half of the islands, the test is the other half.
    folds = field.island[rows] % 2
    draws = few_shot(features, labels, folds, k=10, draws=40, seed=seed)
    values = [auroc(scores[:, 1], labels == 1) for scores in draws]
    return float(np.mean(values))


def measure(arm: str, seed: int, folder: Path, **optimiser: Any) -> float:
    """Train an arm on one slide, and test its student on another one."""
    texture = 0.0 if arm.endswith("without texture") else TEXTURE
    seen, unseen = (
        draw_field(folder / f"{name}.ome.tif", texture, 2 * seed + number)
        for number, name in enumerate(("seen", "unseen"))
    )
    return probe(learn(seen, arm, seed, folder / "run", **optimiser), unseen, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", nargs="*", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    extra = {k: json.loads(v) for k, v in (pair.split("=") for pair in given.set)}
    results: dict[str, list[float]] = {}
    for arm in given.arms:
        for seed in given.seeds:
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                value = measure(arm, seed, Path(folder), **extra)
            results.setdefault(arm, []).append(value)
            print(
                f"{arm:18} {seed} {value:.3f} {time.monotonic() - began:.1f} s",
                flush=True,
            )
    if given.out:
        content = {"auroc": results, "cpu_seconds": time.process_time()}
        given.out.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
