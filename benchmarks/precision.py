"""How far bfloat16 changes an encoder's features, and how much faster it is, by way.

    .venv/bin/python benchmarks/precision.py ENCODER ... --slides SLIDE ... [--patches 64]

Each way of computing in bfloat16 encodes the same patches of real tissue as float32 does,
in turn, so that both see the same load. Cosines are of features less the mean of the
float32 ones, per slide. Encoders must have trained weights: features of random ones are
all alike.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.encoders.encoder import fold_batch_norms
from napari_mcm.core.encoders.equivalence import (
    centred_cosines,
    machine_kind,
    reference_patches,
)
from napari_mcm.core.grid import make_grid
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue

CHUNK = 8
Compute = Callable[[Tensor], Tensor]


class Bfloat16Layer(nn.Module):
    """A layer in bfloat16 between activations in float32; its bias stays float32."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.bias = layer.bias
        self.layer = copy.deepcopy(layer)
        self.layer.bias = None
        self.layer = self.layer.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.to(torch.bfloat16)).float()
        if self.bias is None:
            return y
        return y + (self.bias.reshape(1, -1, 1, 1) if y.ndim == 4 else self.bias)


def some_layers(
    module: nn.Module, chosen: Callable[[nn.Module, float], bool]
) -> nn.Module:
    """Put some layers into bfloat16, by what they are and how deep they lie (0 to 1)."""
    mixed = copy.deepcopy(module)
    kinds = (nn.Conv2d, nn.Linear)
    layers = [(n, x) for n, x in mixed.named_modules() if isinstance(x, kinds)]
    for number, (name, layer) in enumerate(layers):
        if chosen(layer, number / max(len(layers) - 1, 1)):
            parent, _, child = name.rpartition(".")
            setattr(mixed.get_submodule(parent), child, Bfloat16Layer(layer))
    return mixed


def is_pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1)


def ways(encoder: Encoder, example: Tensor) -> dict[str, Compute]:
    """Give each way of computing, by name; float32 first."""
    folded = fold_batch_norms(encoder.module, example)
    folded = folded.to(memory_format=torch.channels_last)
    plain = copy.deepcopy(encoder.module).eval()
    whole = copy.deepcopy(folded).to(torch.bfloat16)
    mixed = {
        "each layer, float32 between": lambda layer, depth: True,
        "each layer but the first and last": lambda layer, depth: 0 < depth < 1,
        "pointwise and linear layers": lambda layer, depth: is_pointwise(layer),
        "other layers": lambda layer, depth: not is_pointwise(layer),
        "deeper half": lambda layer, depth: depth >= 0.5,
        "deepest quarter": lambda layer, depth: depth >= 0.75,
    }
    return {
        "float32": folded,
        "weights and activations": lambda x: whole(x.to(torch.bfloat16)),
        "autocast, norms folded": autocast(folded),
        "autocast, norms apart": autocast(plain),
        **{name: some_layers(folded, chosen) for name, chosen in mixed.items()},
    }


def autocast(module: nn.Module) -> Compute:
    def compute(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return module(x)

    return compute


def encode(compute: Compute, images: Tensor) -> np.ndarray:
    with torch.inference_mode():
        parts = [compute(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
        return torch.cat(parts).float().numpy()


def patches_of(path: Path, count: int) -> np.ndarray:
    with open_slide(path) as slide:
        grid = make_grid(slide, find_tissue(slide))
        rows = np.random.default_rng(0).permutation(len(grid))[:count]
        side = (grid.patch_size, grid.patch_size)
        return np.stack([slide.read(grid.xy[row], side, grid.mpp) for row in rows])


def measure(spec: str, sets: dict[str, np.ndarray], repeats: int) -> None:
    encoder = load_encoder(spec, ComputeConfig(device="cpu", precision="float32"))
    images = {
        name: torch.cat(
            [
                encoder.normalise(torch.from_numpy(p[i : i + 8]))
                for i in range(0, len(p), 8)
            ]
        )
        for name, p in sets.items()
    }
    first = next(iter(images.values()))
    computing = ways(encoder, first[:2])
    seconds: dict[str, list[float]] = {name: [] for name in computing}
    for _ in range(repeats):
        for name, compute in computing.items():
            encode(compute, first[:CHUNK])
            began = time.perf_counter()
            encode(compute, first[:32])
            seconds[name].append(time.perf_counter() - began)
    best = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, compute in computing.items():
        rate, times = 32 / best[name], best["float32"] / best[name]
        row = [spec, name, f"{rate:.0f}", f"{times:.2f}"]
        for kind in images:
            reference = encode(computing["float32"], images[kind])
            cosines = centred_cosines(reference, encode(compute, images[kind]))
            row.append(f"{cosines.min():.4f}, {np.median(cosines):.4f}")
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoders", nargs="+")
    parser.add_argument("--slides", nargs="*", type=Path, default=[])
    parser.add_argument("--patches", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    sets = {path.name: patches_of(path, arguments.patches) for path in arguments.slides}
    sets["reference"] = reference_patches()
    print(f"{machine_kind(torch.device('cpu'))}, {torch.get_num_threads()} threads\n")
    head = ["encoder", "in bfloat16", "patches/s", "times float32"]
    head += [f"least, median cosine: {name}" for name in sets]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for spec in arguments.encoders:
        measure(spec, sets, arguments.repeats)


if __name__ == "__main__":
    main()
