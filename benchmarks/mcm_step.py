"""One MCM-KD step against the plain way, alternating in one process.

The plain way is what one writes first: every patch of the window through the student and
through the teacher, float32, PyTorch's default memory layout, the same context model and
optimiser. Ours runs the student on visible patches and the teacher on masked ones only, in
the layout and precision that this machine computes fastest.

    python benchmarks/mcm_step.py [--pairs lite resnet] [--windows 4] [--rounds 3]

With `--split`, what our step spends its time on instead.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn

from napari_mcm.core.encoders import load_encoder
from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.mcm.window_pixels import Window
from napari_mcm.core.runtime.jobs import run

PAIRS = {
    "lite": ("random:tf_efficientnet_lite0", "random:tf_efficientnet_lite2"),
    "resnet": ("random:resnet18", "random:resnet50"),
}


def make_windows(count: int, config: FinetuneConfig) -> list[Window]:
    """Windows full of tissue, half of each masked."""
    rng = np.random.default_rng(0)
    slots, side = config.context.s**2, config.grid.patch_size
    windows = []
    for _ in range(count):
        masked = np.zeros(slots, bool)
        masked[rng.permutation(slots)[: slots // 2]] = True
        pixels = rng.integers(0, 256, (2, slots // 2, side, side, 3), np.uint8)
        windows.append(Window(~masked, masked, pixels[0], pixels[1]))
    return windows


class Plain:
    """All patches through both networks in float32, as one writes it first."""

    def __init__(self, config: FinetuneConfig) -> None:
        plain = ComputeConfig(precision="float32")
        student = load_encoder(config.student, plain)
        teacher = load_encoder(config.teacher, plain)
        self.learner = McmTrainer(student, teacher, config)
        for encoder in (student, teacher):
            encoder.module.to(memory_format=torch.contiguous_format)
        self.normalise, self.student = student.normalise, student.module
        self.teacher: nn.Module = teacher.module.eval()

    def step(self, windows: list[Window]) -> None:
        learner = self.learner
        self.student.train()
        learner.optimiser.zero_grad(set_to_none=True)
        for window in windows:
            shape = (len(window.masked), *window.visible_pixels.shape[1:])
            pixels = np.empty(shape, np.uint8)
            pixels[window.visible], pixels[window.masked] = (
                window.visible_pixels,
                window.masked_pixels,
            )
            images = self.normalise(torch.from_numpy(pixels)).contiguous()
            visible = torch.from_numpy(window.visible)
            masked = torch.from_numpy(window.masked)
            with torch.no_grad():
                targets = learner.target.scale(self.teacher(images)[masked])
            features = self.student(images)[visible]
            predictions = learner.head(features, visible[None], masked[None])
            learner.target.loss(predictions, targets).backward()
        learner.optimiser.step()


def measure(name: str, windows: int, rounds: int) -> None:
    """Print patches a second of both, and their ratio, per round and at the median."""
    student, teacher = PAIRS[name]
    config = FinetuneConfig(preset="mcm-kd", student=student, teacher=teacher)
    ours = McmTrainer(load_encoder(student), load_encoder(teacher), config)
    plain = Plain(config)
    batch = make_windows(windows, config)
    patches = windows * config.context.s**2
    ratios = []
    for number in range(rounds + 1):
        began = time.perf_counter()
        plain.step(batch)
        middle = time.perf_counter()
        run(ours.step(batch, 1.0, True, 0))
        ended = time.perf_counter()
        rates = patches / (middle - began), patches / (ended - middle)
        if number:  # the first round warms up
            ratios.append(rates[1] / rates[0])
            print(
                f"{name}: plain {rates[0]:.1f}, ours {rates[1]:.1f} patches/s, "
                f"{ratios[-1]:.2f}x"
            )
    print(
        f"{name}: {student} <- {teacher}: median {np.median(ratios):.2f}x "
        f"({ours.student.dtype}, {torch.backends.cpu.get_cpu_capability()})"
    )


class Timer:
    """Adds up the time spent within functions, calls of one another apart."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inner = [0.0]

    def around(self, name: str, owner: object, function: str) -> None:
        """Time a function of an object from now on."""
        inside = getattr(owner, function)

        def timed(*args: object, **options: object) -> object:
            began = time.perf_counter()
            self._inner.append(0.0)
            result = inside(*args, **options)
            took = time.perf_counter() - began
            own = took - self._inner.pop()
            self._inner[-1] += took
            self.spent[name] = self.spent.get(name, 0.0) + own
            return result

        setattr(owner, function, timed)


def split_step(name: str, windows: int, rounds: int) -> dict[str, float]:
    """Tell which part of a step each of its pieces takes."""
    student, teacher = PAIRS[name]
    config = FinetuneConfig(preset="mcm-kd", student=student, teacher=teacher)
    learner = McmTrainer(load_encoder(student), load_encoder(teacher), config)
    batch = make_windows(windows, config)
    run(learner.step(batch, 1.0, True, 0))
    timer = Timer()
    timer.around("teacher", learner, "targets_of")
    timer.around("student, forward", learner, "_see")
    timer.around("Transformer and predictor, forward", learner.head, "forward")
    timer.around("optimiser", learner, "_update")
    began = time.perf_counter()
    for _ in range(rounds):
        run(learner.step(batch, 1.0, True, 0))
    whole = time.perf_counter() - began
    rest = whole - sum(timer.spent.values())
    parts = {**timer.spent, "backward and the rest": rest}
    return {part: seconds / whole for part, seconds in parts.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--split", action="store_true")
    options = parser.parse_args()
    for pair in options.pairs:
        if options.split:
            shares = split_step(pair, options.windows, options.rounds)
            told = ", ".join(f"{part} {share:.0%}" for part, share in shares.items())
            print(f"{pair}: {told}")
            continue
        measure(pair, options.windows, options.rounds)
