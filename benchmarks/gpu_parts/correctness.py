"""Every verb once on tiny data, and features of real weights between devices."""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.gpu_parts.session import SMALL, Session
from benchmarks.gpu_parts.study_two import small_study
from PIL import Image

from napari_mcm.cli import main as napari_mcm
from napari_mcm.core.encoders import ComputeConfig, load_encoder
from napari_mcm.core.encoders.cost import measure_cost
from napari_mcm.core.encoders.equivalence import (
    centred_cosines,
    measure_equivalence,
    reference_patches,
)
from napari_mcm.core.runtime.files import write_json


def write_cells(folder: Path) -> Path:
    """Write two classes of small pictures, one bluer than the other."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("lymphocyte", "neutrophil")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(8):
            pixels = rng.integers(60, 200, (40, 40, 3), np.uint8)
            pixels[..., 2] += np.uint8(50 * number)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def verbs(session: Session) -> dict[str, list[str]]:
    """Return a tiny call of each verb, in an order in which each has its input.

    `view` opens a window; `demo` is these verbs in a row, and is left to its own tests.
    """
    f = session.work / "verbs"
    slides, features = f / "cohort", f / "features"
    one = f"{slides}/slide_00.ome.tif"
    device = f"--device {session.device}"
    patches = "--patch-size 32 --mpp 1"
    tiny = f"--student {SMALL['student']} --teacher {SMALL['teacher']}"
    vit = "--model tiny --image-size 32 --vit-patch 8 --depth 1"
    few = f"--steps 2 --batch-size 4 {device}"
    encoder, other = (f"--encoder {SMALL[name]}" for name in ("student", "teacher"))
    mil = f"--epochs 2 --folds 2 --resamples 20 {device}"
    lines = {
        "sample": f"--slides 8 --size 640 --out {slides}",
        "info": one,
        "grid": f"{one} {patches} --out {f}/grid.png",
        "extract": f"{slides} {encoder} {patches} {device} --out {features}",
        "extract (second encoder)": f"{slides} {other} {patches} {device} "
        f"--out {f}/others",
        "verify": f"{features}",
        "similarity": f"{features}/slide_00.features.zarr --at 350,350 --out {f}/map.png",
        "convert": f"{features}/slide_00.features.zarr --to anndata --out {f}/one.h5ad",
        "evaluate": f"{one} {slides}/slide_01.ome.tif {encoder} {patches} {device} "
        f"--labels {slides} --classes Tumour --classes Stroma --few-shot 2 --draws 2 "
        f"--strength 1 --resamples 100 --out {f}/evaluation",
        "finetune": f"{one} {tiny} {patches} --s 3 --head-epochs 1 {device} "
        f"--out {f}/tuned",
        "export": f"{f}/tuned --to torchscript --out {f}/exported",
        "mil train": f"{f}/cohort.csv --features {features} {mil} --out {f}/mil",
        "mil predict": f"{f}/mil --features {features} {device} --out {f}/mil.csv",
        "mil attention": f"{f}/mil --slide slide_00 --features {features} {device} "
        f"--out {f}/attention",
        "mil compare": f"{features} {f}/others --cohort {f}/cohort.csv {mil} "
        f"--out {f}/compared",
        "mae pretrain": f"{f}/cells {vit} {few} --out {f}/mae",
        "mae reconstruct": f"{f}/mae {f}/cells {device} --out {f}/mae.png",
        "classify train": f"{f}/cells {vit} {few} --out {f}/classifier",
        "classify predict": f"{f}/classifier {f}/cells {device} --out {f}/cells.csv",
        "classify evaluate": f"{f}/classifier {f}/cells {device}",
        "classify cells": f"{one} --run {f}/classifier --marks {f}/marks.csv {device} "
        f"--out {f}/cells.geojson",
        "ablate": f"{f}/cells {vit} --percent 50 --seeds 1 {few} --out {f}/ablation",
        "study": f"{f}/study.json",
        "bench": f"extract --slide {one} {encoder} {patches} --patches 16 {device}",
        "doctor": device,
    }
    return {verb: line.split() for verb, line in lines.items()}


def run_verbs(session: Session) -> dict[str, Any]:
    """Run every verb; give status and seconds, and the last line of what fails."""
    folder = session.work / "verbs"
    write_cells(folder / "cells")
    (folder / "marks.csv").write_text("x,y\n300,300\n320,340\n")
    # Each slide of its own patient: two folds need several per class.
    rows = [f"slide_0{n},{'tumour' if n % 4 < 2 else 'normal'}" for n in range(8)]
    (folder / "cohort.csv").write_text("\n".join(["slide,label", *rows, ""]))
    study = small_study(session, folder / "cohort", folder / "study")
    write_json(folder / "study.json", study.model_dump(mode="json"))
    found: dict[str, dict[str, Any]] = {}
    for verb, words in verbs(session).items():
        began = time.monotonic()
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = napari_mcm([*verb.split(" (")[0].split(), *words])
        # doctor reports what a machine lacks by its status
        passed = status == 0 or (verb == "doctor" and status in (0, 1))
        found[verb] = {
            "status": status,
            "passed": passed,
            "seconds": round(time.monotonic() - began, 2),
        }
        if not passed:
            found[verb]["said"] = said.getvalue()[-500:]
        print(f"{verb}: {found[verb]}", flush=True)
    return found


def compare_precisions(session: Session) -> dict[str, Any]:
    """Compare features of real weights: between devices, and between precisions."""
    patches = reference_patches()[: 4 if session.tiny else None]
    names = ["offline:efficientnet_lite0"]
    if not session.tiny:
        names.append("offline:efficientnet_lite2")
    found = {}
    for name in names:
        cpu = load_encoder(name, ComputeConfig(device="cpu", precision="float32"))
        there = load_encoder(name, session.compute())
        cosines = centred_cosines(cpu.encode(patches), there.encode(patches))
        found[name] = {
            "float32_least_cosine_to_cpu": float(cosines.min()),
            "bfloat16": asdict(measure_equivalence(there, patches)),
            "cost": asdict(measure_cost(there)),
        }
    return found
