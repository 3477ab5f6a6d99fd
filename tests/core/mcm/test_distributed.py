"""Several processes train as one: two of them, by gloo, on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.training import Run

_CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.errors import McmError
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.finetune import finetune
config = FinetuneConfig.model_validate_json(Path(sys.argv[1]).read_text())
try:
    run(finetune(config))
except McmError as error:
    sys.exit(f"told: {error}")
"""


@pytest.fixture
def start(tmp_path):
    """Give a function that starts the processes of a team, as torchrun does."""
    started = []

    def make(config, size=2):
        file = tmp_path / "team.json"
        file.write_text(config.model_dump_json())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for rank in range(size):
            env = os.environ | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            }
            command = [sys.executable, "-c", _CHILD, str(file)]
            pipe = subprocess.PIPE
            started.append(subprocess.Popen(command, env=env, stderr=pipe, text=True))
        return started

    yield make
    for child in started:
        child.kill()
        child.communicate()


def test_two_processes_learn_what_one_does(config, tmp_path, start):
    # An odd batch, so that shares differ; five windows, the last step fewer.
    options = config.optimiser.model_copy(update={"batch_windows": 3, "head_epochs": 2})
    held_out = config.held_out.model_copy(update={"validation": 0.2})
    compute = config.compute.model_copy(update={"precision": "float32"})
    config = config.model_copy(
        update={"optimiser": options, "held_out": held_out, "compute": compute}
    )
    alone = run(finetune(config))
    both = config.model_copy(update={"out": tmp_path / "both"})
    children = start(both)
    for child in children:
        assert child.wait(timeout=240) == 0, child.stderr.read()
    one, two = (Run.open(path) for path in (alone.run_dir, both.out))
    for name in ("loss", "cosine", "held_out_loss"):
        np.testing.assert_allclose(
            one.metrics()[name], two.metrics()[name], rtol=1e-5, atol=1e-5
        )
    ours, theirs = (
        load_file(r.path / "encoder" / "model.safetensors") for r in (one, two)
    )
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4)
    assert two.summary()["windows"] == alone.windows


def test_when_one_is_killed_all_end_and_the_run_can_go_on(config, tmp_path, start):
    options = config.optimiser.model_copy(update={"batch_windows": 2, "epochs": 50})
    config = config.model_copy(update={"optimiser": options, "checkpoint_seconds": 0.0})
    children = start(config)
    run_dir = Run(config.out)
    deadline = time.monotonic() + 120
    while not run_dir.checkpoint_file.exists():
        assert all(c.poll() is None for c in children) and time.monotonic() < deadline
        time.sleep(0.01)
    children[1].send_signal(signal.SIGKILL)
    assert children[0].wait(timeout=60) == 1
    told = [line for line in children[0].stderr.read().splitlines() if "told:" in line]
    assert len(told) == 1 and "another process" in told[0] and "--resume" in told[0]
    assert run_dir.summary() is None
    job = resume_finetune(config.out)
    notes = [getattr(next(job), "text", "") for _ in range(12)]
    job.close()
    assert any("resuming at step" in text for text in notes)
