"""Patches per second: whole extractions, the bare encoder, and the stage that limits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu_parts.session import SMALL, Session

from napari_mcm.core.encoders import Encoder, load_encoder
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.studies.bench import BenchConfig, bench
from napari_mcm.core.synthetic import SampleConfig, generate_cohort


def slide_for(session: Session) -> Path:
    """Return a real slide, or a generated one."""
    real = session.data / "slides" / "her2st" / "her2st_C2.svs"
    if real.is_file() and not session.tiny:
        return real
    size = 1000 if session.tiny else 6000
    config = SampleConfig(slides=1, size=size)
    return run(generate_cohort(session.work / "one", config)).slides[0]


def bare_rate(encoder: Encoder, side: int, batch: int, seconds: float) -> float:
    """Measure patches per second of the model alone, on tensors that are ready."""
    pixels = torch.zeros(batch, side, side, 3, dtype=torch.uint8)
    images = encoder.normalise(pixels)
    mixed = encoder.dtype != torch.float32
    with (
        torch.inference_mode(),
        torch.autocast(encoder.device.type, torch.bfloat16, enabled=mixed),
    ):
        encoder.module(images)
        synchronise(encoder.device)
        began, rounds = time.perf_counter(), 0
        while rounds < 3 or time.perf_counter() - began < seconds:
            encoder.module(images)
            synchronise(encoder.device)
            rounds += 1
    return rounds * batch / (time.perf_counter() - began)


def transfer_seconds(encoder: Encoder, side: int, patches: int) -> float:
    """Measure the seconds that patches take from memory to the device."""
    pixels = torch.zeros(encoder.chunk, side, side, 3, dtype=torch.uint8)
    if encoder.device.type != "cuda":
        return 0.0
    pixels.pin_memory().to(encoder.device)
    synchronise(encoder.device)
    began = time.perf_counter()
    for _ in range(20):
        pixels.pin_memory().to(encoder.device, non_blocking=True)
        synchronise(encoder.device)
    return (time.perf_counter() - began) / 20 / encoder.chunk * patches


def synchronise(device: torch.device) -> None:
    """Wait until the device has computed what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_extraction(session: Session) -> dict[str, Any]:
    """Measure whole extractions, the bare encoder, and each stage."""
    path = slide_for(session)
    names = [SMALL["student"]]
    if not session.tiny:
        names = [
            "offline:efficientnet_lite0",
            "random:resnet50",
            "random:vit_base_patch16_224",
        ]
    found: dict[str, Any] = {"slide": path.name}
    for name in names:
        for precision in ("float32", "bfloat16"):
            # The CPU is no news, and bfloat16 is slow on many.
            if precision == "bfloat16" and session.device == "cpu":
                continue
            found[f"{name}, {precision}"] = extraction_of(
                session, path, name, precision
            )
            print(name, precision, found[f"{name}, {precision}"], flush=True)
    return found


def extraction_of(
    session: Session, path: Path, name: str, precision: str
) -> dict[str, Any]:
    """Measure one encoder in one precision."""
    config = BenchConfig(
        slide=path,
        encoder=name,
        patches=16 if session.tiny else 2_000,
        workers=session.cores,
        compute=session.compute(precision),
    )
    side, seconds = config.grid.patch_size, 0.2 if session.tiny else 3.0
    encoder = load_encoder(name, config.compute)
    before = bare_rate(encoder, side, encoder.chunk, seconds)
    whole = run(bench(config))
    after = bare_rate(encoder, side, encoder.chunk, seconds)
    bare, rate = (before + after) / 2, whole.rates["extract"]
    stages = {stage.name: stage.seconds / stage.threads for stage in whole.stages}
    moved = min(transfer_seconds(encoder, side, whole.patches), stages["encode"])
    stages |= {"transfer": moved, "encode": stages["encode"] - moved}
    return {
        "patches": whole.patches,
        "patches_per_s": rate,
        "bare_patches_per_s": bare,
        "share_of_bare": rate / bare,
        # Whether larger batches than the encoder takes would be faster.
        "bare_patches_per_s_at_256": None
        if session.tiny
        else bare_rate(encoder, side, 256, seconds),
        "stage_seconds": stages,
        "limited_by": limiting(stages),
    }


def limiting(stages: dict[str, float]) -> str:
    """Return the stage that an extraction waits for: readers work beside the device."""
    device = {name: stages[name] for name in ("transfer", "encode")}
    readers = {name: s for name, s in stages.items() if name not in device}
    slower = device if sum(device.values()) >= sum(readers.values()) else readers
    return max(slower, key=lambda name: slower[name])
