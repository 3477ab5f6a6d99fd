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
import os
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu_parts.correctness import compare_precisions, run_verbs
from benchmarks.gpu_parts.extraction import measure_extraction
from benchmarks.gpu_parts.session import Session
from benchmarks.gpu_parts.study_two import run_arms

from napari_mcm.core.encoders.equivalence import machine_kind


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
