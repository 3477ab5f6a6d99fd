"""Kill a fine-tuning with -9 at ten random moments and compare its weights, bit for bit.

    python benchmarks/resume.py [--kills 10] [--seed 0] [SLIDE ...]

Without slides a generated one is learned from, with tiny random encoders; the process is
killed, resumed and killed again until it has been killed so often, then left to finish.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from napari_mcm.core.runtime.jobs import run as run_job
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.training import Run

TINY = [
    *("--student", "random:test_efficientnet", "--teacher", "random:test_resnet"),
    *("--patch-size", "32", "--mpp", "1.0", "--depth", "2", "--heads", "4"),
    *("--width", "64", "--predictor-width", "64", "--placements", "2"),
]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "napari_mcm.cli", "finetune", *words]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "encoder" / "model.safetensors")


def done_steps(run: Path) -> int:
    file = run / "metrics.csv"
    return max(file.read_text().count("\n") - 1, 0) if file.exists() else 0


def kill_once(words: list[str], run: Path, rng: random.Random) -> int | None:
    """Start, kill some steps later; returns the steps done, None where it finished."""
    child = subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    begun, wanted = done_steps(run), rng.randint(1, 4)
    while done_steps(run) < begun + wanted and child.poll() is None:
        time.sleep(0.002)
    time.sleep(rng.random() * 0.2)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return None if Run(run).summary_file.exists() else done_steps(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slides", nargs="*", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        slides = asked.slides or make_slides(root)
        options = [*map(str, slides), *([] if asked.slides else TINY)]
        options += ["--checkpoint-seconds", "0", "--batch-windows", "2"]
        subprocess.run(command(*options, "--out", str(root / "whole")), check=True)
        run, kills = root / "killed", 0
        while kills < asked.kills:
            fresh = not (run / "config.json").exists()
            words = [*options, "--out", str(run)] if fresh else ["--resume", str(run)]
            steps = kill_once(words, run, rng)
            if steps is None:
                print(f"finished after {kills} kills: too few steps for more")
                break
            kills += 1
            print(f"kill {kills} after {steps} steps")
        subprocess.run(command("--resume", str(run)), check=True)
        one, two = weights(root / "whole"), weights(run)
        same = one.keys() == two.keys() and all(
            torch.equal(one[k], two[k]) for k in one
        )
        print(f"{kills} kills: weights {'are' if same else 'are NOT'} the same bits")
        sys.exit(not same)


def make_slides(root: Path) -> list[Path]:
    config = SampleConfig(slides=1, size=2000)
    return [Path(p) for p in run_job(generate_cohort(root / "cohort", config)).slides]


if __name__ == "__main__":
    main()
