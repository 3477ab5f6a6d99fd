"""One step of masked autoencoding against the same step on every patch.

Both ways use the same ViT, decoder, loss and optimiser, in turns in one process. The plain
way gives the encoder all patches, as a masked autoencoder with mask tokens in its encoder
does; ours gives it the visible ones only (He et al., CVPR 2022, section 3).

    python benchmarks/mae_step.py [--models tiny small] [--images 16] [--rounds 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.mae import ModelConfig, PretrainConfig
from napari_mcm.core.mae.pretraining import MaeTrainer, MaskedImage, build_model
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.training.images import to_images


class EveryPatch(MaeTrainer):
    """The encoder sees all patches; hidden ones are the same grey."""

    def losses(self, samples: Sequence[MaskedImage]) -> tuple[Tensor, dict[str, float]]:
        pixels, orders = zip(*samples, strict=True)
        mean, std = self.augmenting.mean, self.augmenting.std
        images = to_images(pixels, self.device, mean, std)
        order = torch.from_numpy(np.stack(orders)).to(self.device)
        with self.autocast():
            encoded = self.model.encode(images, order)
            predictions = self.model.decoder(encoded, order)
        mask = torch.ones(order.shape, device=self.device)
        return self.model.loss(images, predictions, mask) * len(samples), {}


def measure(name: str, options: argparse.Namespace) -> None:
    """Print images a second of both, and their ratio, per round and at the median."""
    config = PretrainConfig(
        model=ModelConfig(
            model=name, image_size=options.image_size, vit_patch=options.vit_patch
        ),
        compute=ComputeConfig(device=options.device, precision=options.precision),
    )
    ours = MaeTrainer(build_model(config)[0], config)
    plain = EveryPatch(build_model(config)[0], config)
    ours.chunk = options.chunk or ours.chunk
    plain.chunk = ours.chunk
    rng = np.random.default_rng(0)
    side, patches = options.image_size, config.model.grid**2
    batch = [
        MaskedImage(
            rng.integers(0, 256, (side, side, 3), np.uint8), rng.permutation(patches)
        )
        for _ in range(options.images)
    ]
    ratios, work = [], []
    for number in range(options.rounds + 1):
        seconds, busy = [], []
        for learner in (plain, ours):
            began, worked = time.perf_counter(), time.process_time()
            run(learner.step(batch, 1.0, number))
            if learner.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
            busy.append(time.process_time() - worked)
        if number:  # the first round warms up
            ratios.append(seconds[0] / seconds[1])
            work.append(busy[0] / busy[1])
            rates = [options.images / s for s in seconds]
            print(
                f"{name}: every patch {rates[0]:.2f}, visible ones {rates[1]:.2f} "
                f"images/s, {ratios[-1]:.2f}x",
                flush=True,
            )
    print(
        f"{name}, {side} px, patches of {options.vit_patch}: median "
        f"{np.median(ratios):.2f}x by the clock, {np.median(work):.2f}x in processor time "
        f"(for busy machines without a GPU), {ours.precision}, {torch.get_num_threads()} "
        "thread(s)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny", "base"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--vit-patch", type=int, default=16)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--chunk", type=int, help="images at once; as a run by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    given = parser.parse_args()
    for model in given.models:
        measure(model, given)
