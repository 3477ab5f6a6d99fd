"""The MNIST-bags problem on scikit-learn's digits: AUROC against training bags.

Ilse, Tomczak and Welling (ICML 2018, section 4.2 and figure 4): a bag is positive where
it holds a nine; bags of 10 digits on average; AUROC on 1,000 test bags for 50 to 500
training bags. There an image has 28 x 28 pixels and a small convolutional network; here
8 x 8 pixels of scikit-learn's digits are the patch features themselves, and training and
test digits are apart. The curves are to be compared in kind, not in number::

    python benchmarks/mil_digits.py
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.mil import AggregatorConfig, TrainingConfig
from napari_mcm.core.mil.trainer import Labelled, MilTrainer
from napari_mcm.core.runtime.jobs import run

COUNTS, MODELS, SEEDS = (25, 50, 100, 200, 400), ("mean", "max", "abmil"), (0, 1)
MEAN_SIZE, SD_SIZE, TARGET, TEST_BAGS = 10, 2, 9, 300


class Bags(dict):
    """Bags in memory."""

    def read(self, slide: str) -> np.ndarray:
        """Give one."""
        return self[slide]


def make_bags(
    images: np.ndarray, digits: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[Bags, list[Labelled]]:
    """Draw bags, half of them with a nine."""
    bags, slides = Bags(), []
    others, nines = np.flatnonzero(digits != TARGET), np.flatnonzero(digits == TARGET)
    for number in range(count):
        label = number % 2
        size = max(round(rng.normal(MEAN_SIZE, SD_SIZE)), 2)
        chosen = rng.choice(others, size)
        if label:
            # As many as chance would have put into it, one at least.
            hits = max(rng.binomial(size, 0.1), 1)
            chosen[:hits] = rng.choice(nines, hits)
        bags[str(number)] = images[rng.permutation(chosen)]
        slides.append(Labelled(str(number), label))
    return bags, slides


def one(model: str, count: int, seed: int, data: tuple) -> float:
    """Train on some bags, stop by a fifth as many, and test."""
    (images, digits), (test_images, test_digits) = data
    rng = np.random.default_rng([seed, count])
    bags, slides = make_bags(images, digits, count, rng)
    held, held_slides = make_bags(images, digits, max(count // 5, 10), rng)
    test, test_slides = make_bags(test_images, test_digits, TEST_BAGS, rng)
    config = AggregatorConfig(model=model, hidden=128, width=64)
    options = TrainingConfig(
        epochs=40, lr=1e-3, batch_bags=16, padded=True, min_epochs=10, patience=8
    )
    compute = ComputeConfig(device="cpu", precision="float32")
    learner = MilTrainer(config, options.settled(model), compute, 64, 2, (seed, 0))
    for epoch in range(options.epochs):
        for number, batch in enumerate(learner.plan(slides, epoch)):
            run(learner.step(batch, bags, epoch, number))
        learner.keep_if_best(run(learner.evaluate(held_slides, held))[0], epoch)
        if epoch >= 10 and epoch - learner.best.epoch >= options.patience:
            break
    learner.use_best()
    _, probabilities = run(learner.evaluate(test_slides, test))
    return float(roc_auc_score([s.label for s in test_slides], probabilities[:, 1]))


def measure() -> list[list[str]]:
    """Give a row a number of bags: AUROC by model, mean of the seeds, least to greatest."""
    torch.set_num_threads(1)
    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    half = len(images) * 2 // 3
    data = (
        (images[:half], digits.target[:half]),
        (images[half:], digits.target[half:]),
    )
    rows = []
    for count in COUNTS:
        cells = [str(count)]
        for model in MODELS:
            found = [one(model, count, seed, data) for seed in SEEDS]
            cells.append(f"{np.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})")
        rows.append(cells)
        print(" ".join(f"{cell:>22}" for cell in cells), flush=True)
    return rows


if __name__ == "__main__":
    print(" ".join(f"{name:>22}" for name in ("bags", *MODELS)))
    measure()
