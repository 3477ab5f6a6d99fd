"""Fine-tuning as a user runs it: results, cancel, kill, resume, bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from napari_mcm.core.encoders import Encoder, load_encoder
from napari_mcm.core.encoders.compute import AUTO_VARIABLE
from napari_mcm.core.errors import ConfigError, RunError, TrainingError
from napari_mcm.core.evaluation import HeldOutProbe
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.runtime import async_writes as writes
from napari_mcm.core.runtime.jobs import Metrics, Progress, run
from napari_mcm.core.training import Run


def weights(run_dir):
    return load_file(run_dir / "encoder" / "model.safetensors")


def assert_same_bits(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def finished(config):
    events = []
    return run(finetune(config), events.append), events


def test_a_run_leaves_all_that_is_promised(finished, config):
    result, events = finished
    names = {p.name for p in result.run_dir.iterdir()}
    assert names == {"config.json", "metrics.csv", "summary.json", "encoder"}
    assert json.loads(
        (result.run_dir / "config.json").read_text()
    ) == config.model_dump(mode="json")
    assert len([e for e in events if isinstance(e, Metrics)]) == result.steps
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert last.done == last.total == result.windows
    metrics = Run.open(result.run_dir).metrics()
    assert np.isfinite(metrics["loss"]).all()
    assert result.loss_last < result.loss_first


@pytest.mark.usefixtures("in_float32")
def test_the_student_loads_with_timm_alone(finished):
    result, _ = finished
    recipe = json.loads((result.encoder / "recipe.json").read_text())
    model = timm.create_model(recipe["architecture"], num_classes=0)
    model.load_state_dict(weights(result.run_dir), strict=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    encoder = load_encoder(result.run_dir)
    with torch.inference_mode():
        features = model.eval()(encoder.normalise(torch.from_numpy(pixels)))
    np.testing.assert_allclose(encoder.encode(pixels), features, rtol=1e-4, atol=1e-4)


def test_the_student_has_learned_and_says_from_what(finished, config):
    result, _ = finished
    before = load_encoder(config.student)
    after = load_encoder(result.run_dir)
    assert after.fingerprint != before.fingerprint
    assert after.recipe["fine_tuning"]["teacher"] == config.teacher
    card = (result.encoder / "README.md").read_text()
    assert config.teacher in card and "1 µm per pixel" in card


def test_cancel_and_resume_end_in_the_same_weights(finished, config, tmp_path):
    result, _ = finished
    other = config.model_copy(update={"out": tmp_path / "cancelled"})
    job = finetune(other)
    for event in job:
        if isinstance(event, Metrics) and event.step == 1:
            break
    job.close()
    resumed = run(resume_finetune(other.out))
    assert_same_bits(weights(result.run_dir), weights(resumed.run_dir))
    steps = Run.open(other.out).metrics()["step"]
    assert steps == list(range(result.steps))


def test_a_resumed_run_keeps_its_precision(config, tmp_path, monkeypatch):
    """On another machine, `auto` may be another precision."""
    monkeypatch.setenv(AUTO_VARIABLE, "bfloat16")
    whole = run(finetune(config))
    other = config.model_copy(update={"out": tmp_path / "cancelled"})
    job = finetune(other)
    next(event for event in job if isinstance(event, Metrics) and event.step == 1)
    job.close()
    monkeypatch.setenv(AUTO_VARIABLE, "float32")
    resumed = run(resume_finetune(other.out))
    assert_same_bits(weights(whole.run_dir), weights(resumed.run_dir))
    third = config.model_copy(update={"out": tmp_path / "float32"})
    elsewhere = weights(run(finetune(third)).run_dir)
    name = "conv_stem.weight"
    assert not torch.equal(elsewhere[name], weights(whole.run_dir)[name])


def test_cancel_in_the_middle_of_a_step_resumes_too(finished, config, tmp_path):
    result, _ = finished
    other = config.model_copy(update={"out": tmp_path / "cancelled"})
    job = finetune(other)
    after = 0
    for event in job:
        after += bool(after) or isinstance(event, Metrics)
        if after == 4:
            break
    job.close()
    resumed = run(resume_finetune(other.out))
    assert_same_bits(weights(result.run_dir), weights(resumed.run_dir))


def test_no_more_than_a_window_is_encoded_between_two_events(config, monkeypatch):
    # What lies between two events is what a cancel may have to wait for.
    encode, patches = Encoder.encode, [0]

    def counted(encoder, pixels):
        patches[-1] += len(pixels)
        return encode(encoder, pixels)

    monkeypatch.setattr(Encoder, "encode", counted)
    labelled = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    probe = HeldOutProbe(labelled, [*"ab"] * 20, ["slide"] * 40, k=5, draws=2)
    run(finetune(config, probe), lambda _: patches.append(0))
    # By student and teacher.
    assert 0 < max(patches) <= 2 * config.context.s**2


_CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[2]))
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.mcm import FinetuneConfig
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
config = FinetuneConfig.model_validate_json(Path(sys.argv[1]).read_text())
there = (config.out / "config.json").exists()
run(resume_finetune(config.out) if there else finetune(config))
"""


def kill_after(steps, config, file):
    """Run in a process of its own and kill it once some steps are done."""
    file.write_text(config.model_dump_json())
    threads = str(torch.get_num_threads())
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(file), threads])
    metrics = config.out / "metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count("\n") < 1 + steps:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert Run.open(config.out).summary() is None, "it was killed too late to tell"


def test_kill_9_twice_and_resume_end_in_the_same_weights(config, tmp_path):
    # One window a step, one in four kept out, statistics that move: all that is state.
    options = config.optimiser.model_copy(
        update={"batch_windows": 1, "batch_norm": "train"}
    )
    held_out = config.held_out.model_copy(
        update={"validation": 0.2, "validate_every": 2}
    )
    config = config.model_copy(update={"optimiser": options, "held_out": held_out})
    result = run(finetune(config))
    other = config.model_copy(
        update={"out": tmp_path / "killed", "checkpoint_seconds": 0.0}
    )
    for steps in (2, 5):
        kill_after(steps, other, tmp_path / "config.json")
    resumed = run(resume_finetune(other.out))
    assert_same_bits(weights(result.run_dir), weights(resumed.run_dir))
    one, two = (Run.open(path).metrics() for path in (result.run_dir, other.out))
    for name in ("step", "loss", "held_out_loss", "feature_rank"):
        np.testing.assert_array_equal(one[name], two[name])


def test_a_finished_run_is_not_run_again(finished):
    result, _ = finished
    stamp = (result.encoder / "model.safetensors").stat().st_mtime_ns
    again = run(resume_finetune(result.run_dir))
    assert again.loss_last == result.loss_last
    assert (result.encoder / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_run_is_never_overwritten(finished, config):
    with pytest.raises(RunError, match="--resume"):
        run(finetune(config))


def test_other_slides_are_not_resumed_with(config, write_slide):
    job = finetune(config)
    next(e for e in job if isinstance(e, Metrics))
    job.close()
    from tests.core.conftest import stained_image

    write_slide(stained_image(1200, 1000, seed=5), config.slides[0].name)
    with pytest.raises(RunError, match="slides"):
        run(resume_finetune(config.out))


def test_a_damaged_checkpoint_says_what_to_do(config):
    job = finetune(config)
    next(e for e in job if isinstance(e, Metrics))
    job.close()
    writes.wait_for_all_writes()
    file = Run.open(config.out).checkpoint_file
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(RunError, match="Remove it"):
        run(resume_finetune(config.out))


def test_divergence_stops_with_advice(config):
    wild = config.optimiser.model_copy(update={"student_lr": 1e30, "head_lr": 1e30})
    with pytest.raises(TrainingError, match="lower --student-lr"):
        run(finetune(config.model_copy(update={"optimiser": wild})))


def test_no_tissue_is_said_before_encoders_are_loaded(config, write_slide):
    blank = np.full((900, 900, 3), 243, np.uint8)
    path = write_slide(blank, "blank.ome.tif")
    with pytest.raises(TrainingError, match="tissue"):
        run(finetune(config.model_copy(update={"slides": (path,)})))


@pytest.mark.parametrize("missing", [{"slides": ()}, {"out": None}])
def test_what_is_missing_is_named(config, missing):
    with pytest.raises(ConfigError):
        run(finetune(config.model_copy(update=missing)))


def test_config_survives_json_and_refuses_typing_errors(config):
    assert FinetuneConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValueError, match="mask_ration"):
        FinetuneConfig.model_validate({"mask_ration": 0.5})


def test_threads_are_gone_after_a_cancel(config):
    import threading

    job = finetune(config)
    next(e for e in job if isinstance(e, Metrics))
    job.close()
    writes.wait_for_all_writes()
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
