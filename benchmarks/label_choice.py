"""How long it takes to choose what to label next.

    OMP_NUM_THREADS=1 python benchmarks/label_choice.py [--patches 100000] [--dim 768]

CPU time of one call, in milliseconds: median and maximum of `--n`.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from napari_mcm.core.labelling import STRATEGIES, choose_next


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--labels", type=int, default=500)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--n", type=int, default=20)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    features = rng.standard_normal((options.patches, options.dim), np.float32)
    shares = np.ones(options.classes)
    probabilities = rng.dirichlet(shares, options.patches).astype(np.float32)
    labelled = rng.choice(options.patches, options.labels, replace=False)
    figures = {}
    for strategy in STRATEGIES:
        for name, given in (("with a map", probabilities), ("before", None)):
            took = []
            for seed in range(options.n):
                began = time.process_time()
                choose_next(features, given, labelled, options.count, seed, strategy)
                took.append(1e3 * (time.process_time() - began))
            figures[f"{strategy}, {name}"] = [
                round(float(np.median(took)), 1),
                round(max(took), 1),
            ]
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
