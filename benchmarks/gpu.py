"""Everything that is to be known of a GPU, in under twelve minutes.

    python benchmarks/gpu.py --out FOLDER [--data ../shared/data] [--minutes 11]
    python benchmarks/gpu.py --out FOLDER --device cpu --tiny    # the same, to try it

In this order, as what is wrong is to be known before what is fast:

1. *Correctness*: every verb once on tiny data, and features of real weights: float32 on the
   device against float32 on the CPU, and bfloat16 against float32.
2. *Extraction*: patches per second, the share of the bare encoder's rate, and the stage
   that limits: read, decode, resample, quality, transfer or encode.
3. *Study 2* (HER2ST; the generated cohort where there are no data): up to 20,000 context
   windows per arm, fewer where the measured rate asks for it.

After each step, `gpu.json` and `gpu.md` are written, so that a run that is stopped leaves
what it has. What fails is written down, and the rest goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.studies.prepare import prepare, with_arms
from PIL import Image

from napari_mcm.cli import main as napari_mcm
from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.encoders.cost import measure_cost
from napari_mcm.core.encoders.equivalence import (
    centred_cosines,
    machine_kind,
    measure_equivalence,
    reference_patches,
)
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.finetune import finetune
from napari_mcm.core.runtime.files import write_json, write_text
from napari_mcm.core.runtime.jobs import Metrics, Progress, run
from napari_mcm.core.studies.bench import BenchConfig, bench
from napari_mcm.core.studies.study import run_study
from napari_mcm.core.studies.study_config import StudyConfig, arm_config
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.training.options import merge_preset

ARMS = ("A", "B", "D", "F-l2", "X", "N")
WINDOWS = 20_000
SMALL = {"student": "random:test_efficientnet", "teacher": "random:test_resnet"}
# Of the time that is left, for head warm-ups, checkpoints, and a slower machine's moods.
SAFETY = 0.75


@dataclass
class Session:
    """What the parts share: device, folder, time, and what was found so far."""

    device: str
    out: Path
    data: Path
    tiny: bool
    minutes: float
    began: float = field(default_factory=time.monotonic)
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the script has to be done."""
        return self.began + 60 * self.minutes - time.monotonic()

    @property
    def cores(self) -> int:
        """CPU cores that this process may use."""
        return len(os.sched_getaffinity(0))

    @property
    def work(self) -> Path:
        """Folder of everything that is only needed on the way."""
        return self.out / "work"

    def compute(self, precision: str = "float32") -> ComputeConfig:
        """Return the device, in a precision."""
        return ComputeConfig(device=self.device, precision=precision)

    def save(self) -> None:
        """Write what was found so far."""
        self.found["seconds"] = round(time.monotonic() - self.began, 1)
        write_json(self.out / "gpu.json", self.found)
        write_text(self.out / "gpu.md", "\n".join(page(self.found)) + "\n")

    def step(self, name: str, work: Callable[[Session], Any]) -> None:
        """Do a part; what goes wrong is kept, and the next one begins."""
        print(f"== {name} ({self.left:.0f} s left)", flush=True)
        began = time.monotonic()
        try:
            self.found[name] = work(self)
        # Of any kind: to find it is what the script is for.
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            self.found.setdefault("failed", {})[name] = (
                f"{type(error).__name__}: {error}"
            )
        self.found.setdefault("part_seconds", {})[name] = round(
            time.monotonic() - began, 1
        )
        self.save()


def machine(session: Session) -> dict[str, Any]:
    """Say what this ran on."""
    device = torch.device(session.device)
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "CPU",
        "kind": machine_kind(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "cores": session.cores,
        "tiny": session.tiny,
    }


# --- 1. correctness ---------------------------------------------------------------------


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


def small_study(session: Session, slides: Path, out: Path) -> StudyConfig:
    """Make a study of two generated slides that takes seconds."""
    content = with_arms({"seeds": 1}, ("A", "D", "N"))
    base = {
        **SMALL,
        "grid": {"patch_size": 32, "mpp": 1.0},
        "context": {"s": 3, "depth": 1, "heads": 4, "width": 64, "predictor_width": 64},
        "optimiser": {"head_epochs": 1},
        "held_out": {"validation": 0.0},
        "compute": {"device": session.device, "precision": "float32"},
    }
    named = ("slide_00", "slide_01")
    return StudyConfig.model_validate(
        {
            **content,
            "out": str(out),
            "base": merge_preset(content["base"], base),
            "evaluation": {
                "classes": ["Tumour", "Stroma"],
                "protocol": {"few_shot": 2, "draws": 2, "strength": 1.0},
            },
            "slides": [
                {
                    "slide": str(slides / f"{name}.ome.tif"),
                    "labels": str(slides / f"{name}.geojson"),
                }
                for name in named
            ],
        }
    )


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


# --- 2. extraction ----------------------------------------------------------------------


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


# --- 3. study 2 -------------------------------------------------------------------------


def study_config(session: Session) -> StudyConfig:
    """Make study 2 in two halves of its sections, or of the generated cohort."""
    if session.tiny:
        folder = session.work / "verbs" / "cohort"
        if not folder.is_dir():
            run(generate_cohort(folder, SampleConfig(slides=2, size=640)))
        study = small_study(session, folder, session.work / "study")
        arms = {key: with_arms({}, ARMS)[key] for key in ("arms", "against")}
        return StudyConfig.model_validate(study.model_dump() | arms)
    study = prepare("her2st", session.data, session.work)
    base = merge_preset(
        study.base,
        {
            "compute": {
                "device": session.device,
                "precision": "float32",
                "threads": None,
            },
            "workers": session.cores,
            # 64 patches leave a GPU idle; rates follow by the study's own rule.
            "optimiser": {"batch_windows": 16},
        },
    )
    slides = tuple(
        slide.model_copy(update={"fold": f"half{1 + number // 2}"})
        for number, slide in enumerate(study.slides)
    )
    return study.model_copy(update={"base": base, "slides": slides, "seeds": 1})


def measure_rate(session: Session, study: StudyConfig, arm: str) -> tuple[float, int]:
    """Return windows per second of an arm, and windows per placement of its slides."""
    half = study.slides[: max(len(study.slides) // 2, 1)]
    slides = tuple(slide.slide for slide in half)
    config: FinetuneConfig = arm_config(study, arm, 0, slides, session.work / "rate")
    config = config.model_copy(
        update={
            "optimiser": config.optimiser.model_copy(
                update={"placements": 1, "epochs": 1, "head_epochs": 0}
            )
        }
    )
    total, ends = 0, []
    with contextlib.closing(finetune(config)) as job:
        for event in job:
            if isinstance(event, Progress) and event.stage == "Fine-tuning":
                total = event.total or total
            if isinstance(event, Metrics):
                ends.append(time.monotonic())
            if len(ends) > 1 and ends[-1] - ends[0] > 20:
                break
    if len(ends) < 2:
        raise RuntimeError("fewer than two steps: nothing to measure a rate from")
    # The first step warms up.
    steps, seconds = len(ends) - 1, ends[-1] - ends[0]
    return steps * config.optimiser.batch_windows / seconds, total


def run_arms(session: Session) -> dict[str, Any]:
    """Run study 2, with as many windows as the time that is left allows."""
    study = study_config(session)
    trained = [arm for arm in study.arms if study.arms[arm].encoder is None]
    halves = len({slide.fold or slide.slide for slide in study.slides})
    began = time.monotonic()
    run(run_study(study, arms=[a for a in study.arms if a not in trained]))
    per_trial = (time.monotonic() - began) / (halves * (len(study.arms) - len(trained)))
    rate, per_placement = measure_rate(session, study, "F-l2")
    trials = halves * len(trained)
    seconds = max(session.left - per_trial * trials, 0) * SAFETY / trials
    wanted = per_placement if session.tiny else WINDOWS // halves
    windows = min(wanted, int(rate * seconds))
    placements = max(round(windows / max(per_placement, 1)), 1)
    update = {"optimiser": {"placements": placements}}
    study = study.model_copy(update={"base": merge_preset(study.base, update)})
    print(
        f"{rate:.1f} windows/s, {placements} placements of {per_placement}", flush=True
    )
    done = run(run_study(study))
    return {
        "windows_per_s": rate,
        "windows_wanted_per_arm": wanted * halves,
        "windows_per_arm": placements * per_placement * halves,
        "placements": placements,
        "evaluation_seconds_per_trial": per_trial,
        "failed": list(done.failed),
        "table": done.table.read_text(encoding="utf-8"),
    }


# --- the page ---------------------------------------------------------------------------


def page(found: dict[str, Any]) -> list[str]:
    """Return what was found as Markdown."""
    lines = ["# On a GPU", ""]
    for name, value in found.get("machine", {}).items():
        lines.append(f"- {name}: {value}")
    lines.append(f"- seconds: {found.get('seconds')}")
    for name, problem in found.get("failed", {}).items():
        lines.append(f"- **{name} failed**: {problem}")
    if "verbs" in found:
        lines += [
            "",
            "## Every verb once",
            "",
            "| verb | passed | seconds |",
            "|---|---|---|",
        ]
        for verb, one in found["verbs"].items():
            lines.append(f"| {verb} | {one['passed']} | {one['seconds']} |")
    if "precision" in found:
        lines += ["", "## Features of real weights", ""]
        for name, one in found["precision"].items():
            half = one["bfloat16"]
            lines.append(
                f"- {name}: float32 against the CPU, least cosine "
                f"{one['float32_least_cosine_to_cpu']:.6f}; bfloat16 against float32, least "
                f"{half['least']:.4f}, median {half['median']:.4f}, {half['speedup']:.2f} "
                f"times as fast, over {half['patches']} patches"
            )
    if "extraction" in found:
        lines += ["", "## Extraction", ""]
        head = ["encoder", "patches/s", "bare", "share", "bare at 256", "limited by"]
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for name, one in found["extraction"].items():
            if name != "slide":
                lines.append(f"| {name} | {' | '.join(extraction_cells(one))} |")
    if "study" in found:
        one = found["study"]
        lines += [
            "",
            f"## Study 2: {one['windows_per_arm']:,} of {one['windows_wanted_per_arm']:,} "
            f"windows per arm, {one['windows_per_s']:.1f} windows/s",
            "",
            one["table"],
        ]
    return lines


def extraction_cells(one: dict[str, Any]) -> list[str]:
    """Return the cells of an encoder's row."""
    larger = one["bare_patches_per_s_at_256"]
    return [
        f"{one['patches_per_s']:.1f}",
        f"{one['bare_patches_per_s']:.1f}",
        f"{one['share_of_bare']:.2f}",
        "" if larger is None else f"{larger:.1f}",
        one["limited_by"],
    ]


def main(argv: list[str] | None = None) -> int:
    """Do all parts; the exit status is 1 where anything failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=11.0)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(argv)
    if given.out is None:
        parser.error("--out is needed where $OUT is not set")
    out = Path(given.out).resolve()
    session = Session(given.device, out, given.data, given.tiny, given.minutes)
    session.step("machine", machine)
    session.step("verbs", run_verbs)
    session.step("precision", compare_precisions)
    session.step("extraction", measure_extraction)
    session.step("study", run_arms)
    print((out / "gpu.md").read_text(encoding="utf-8"))
    wrong = [v for v in session.found.get("verbs", {}).values() if not v["passed"]]
    return int(bool(wrong or session.found.get("failed")))


if __name__ == "__main__":
    raise SystemExit(main())
