"""How fast ABMIL trains on bags of 10,000 x 1,280, and what TransMIL needs of memory.

ABMIL and torchmil's ABMIL take turns on the same bags with the same sizes and optimiser,
without dropout, which torchmil's has not. TransMIL's memory is the growth of the greatest
resident size in a process of its own::

    python benchmarks/mil_rate.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np
import torch

from napari_mcm.core.mil import AggregatorConfig
from napari_mcm.core.mil.models import make_aggregator
from napari_mcm.core.mil.trainer import bag_loss

PATCHES, DIM, HIDDEN, WIDTH, TURNS = 10_000, 1280, 512, 384, 6
LARGE = 100_000


def ours():
    """One training step of our ABMIL."""
    config = AggregatorConfig(model="abmil", hidden=HIDDEN, width=WIDTH, dropout=0.0)
    model = make_aggregator(config, DIM, 2).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step(bag, label):
        optimiser.zero_grad(set_to_none=True)
        bag_loss(model, bag, None, torch.tensor([label])).backward()
        optimiser.step()

    return step


def theirs():
    """One training step of torchmil's ABMIL."""
    from torchmil.models import ABMIL

    extractor = torch.nn.Sequential(torch.nn.Linear(DIM, HIDDEN), torch.nn.ReLU())
    model = ABMIL((DIM,), att_dim=WIDTH, gated=True, feat_ext=extractor).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step(bag, label):
        optimiser.zero_grad(set_to_none=True)
        _, losses = model.compute_loss(torch.tensor([float(label)]), bag)
        sum(losses.values()).backward()
        optimiser.step()

    return step


def rate() -> None:
    """Print bags a second of both, taken in turns."""
    torch.manual_seed(0)
    bag = torch.randn(1, PATCHES, DIM)
    steps = {"napari-mcm": ours()}
    try:
        steps["torchmil"] = theirs()
    except ImportError:
        print("torchmil is not installed")
    seconds = {name: [] for name in steps}
    for turn in range(TURNS + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step(bag, turn % 2)
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    for name, taken in seconds.items():
        print(
            f"{name}: {1 / np.median(taken):.2f} bags/s "
            f"({1 / max(taken):.2f} to {1 / min(taken):.2f}), "
            f"{torch.get_num_threads()} threads"
        )


def memory(training: bool) -> None:
    """Print by how much the process grows over one bag of TransMIL."""
    model = make_aggregator(AggregatorConfig(model="transmil"), DIM, 2)
    bag = torch.randn(1, LARGE, DIM)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if training:
        bag_loss(model.train(), bag, None, torch.tensor([1])).backward()
    else:
        with torch.inference_mode():
            model.eval()(bag, return_attention=True)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    what = "training" if training else "prediction with attention"
    print(
        f"TransMIL, {LARGE:,} patches, {what}: process {after / 2**20:.2f} GiB at most, "
        f"{(after - before) / 2**20:.2f} GiB more than before the bag "
        f"(which is {bag.nbytes / 2**30:.2f} GiB)"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        memory(sys.argv[1] == "training")
    else:
        rate()
        for kind in ("prediction", "training"):
            subprocess.run([sys.executable, __file__, kind], check=True)
