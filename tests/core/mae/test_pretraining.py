"""Pre-training as a user runs it: results, damage, cancel, kill, resume, bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from napari_mcm.core.encoders import ComputeConfig, load_encoder, save_encoder
from napari_mcm.core.encoders.compute import AUTO_VARIABLE
from napari_mcm.core.errors import ConfigError, RunError, TrainingError, WeightsError
from napari_mcm.core.features import ExtractConfig, extract_slides
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mae import ImagesConfig, PretrainConfig
from napari_mcm.core.mae.patches import grid_positions
from napari_mcm.core.mae.pretraining import build_model, pretrain, resume_pretrain
from napari_mcm.core.runtime import async_writes as writes
from napari_mcm.core.runtime.jobs import Metrics, Note, Progress, run
from napari_mcm.core.tissue import TissueConfig
from napari_mcm.core.training import Run
from napari_mcm.core.training import run as training_run
from tests.core.mae.conftest import CPU, write_pictures


def weights(run_dir):
    parts = [run_dir / "encoder" / "model.safetensors", run_dir / "decoder.safetensors"]
    return [load_file(part) for part in parts]


def assert_same_bits(one, two):
    for first, second in zip(weights(one), weights(two), strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def elsewhere(config, out, **update):
    return config.model_copy(update={"out": out, **update})


@pytest.fixture
def finished(config):
    events = []
    return run(pretrain(config), events.append), events


def test_a_run_leaves_all_that_is_promised(finished, config):
    result, events = finished
    names = {path.name for path in result.run_dir.iterdir()}
    promised = {"config.json", "metrics.csv", "summary.json", "encoder"}
    assert names == promised | {"decoder.safetensors"}
    again = PretrainConfig.model_validate_json(
        (result.run_dir / "config.json").read_text()
    )
    assert again == config
    assert len([e for e in events if isinstance(e, Metrics)]) == result.steps == 12
    last = [e for e in events if isinstance(e, Progress)][-1]
    assert last.done == last.total == 12 * 4
    metrics = Run.open(result.run_dir).metrics()
    assert np.isfinite(metrics["loss"]).all()
    assert result.loss_last < result.loss_first


def test_the_encoder_loads_with_timm_alone_and_keeps_its_positions(finished):
    result, _ = finished
    recipe = json.loads((result.encoder / "recipe.json").read_text())
    model = timm.create_model(
        recipe["architecture"], num_classes=0, **recipe["model_args"]
    )
    state = load_file(result.encoder / "model.safetensors")
    model.load_state_dict(state, strict=True)
    torch.testing.assert_close(state["pos_embed"][0, 1:], grid_positions(4, 192))
    encoder = load_encoder(result.run_dir, CPU)
    assert encoder.input_size == 32 and encoder.mean == (0.485, 0.456, 0.406)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    with torch.inference_mode():
        expected = model.eval()(encoder.normalise(torch.from_numpy(pixels)))
    np.testing.assert_allclose(encoder.encode(pixels), expected, atol=1e-4)
    fresh, _ = build_model(
        PretrainConfig.model_validate(Run.open(result.run_dir).config())
    )
    name = "blocks.0.attn.qkv.weight"
    assert not torch.equal(state[name], fresh.encoder.state_dict()[name])


def test_the_encoder_extracts_features_of_a_slide(finished, tissue_slide, tmp_path):
    result, _ = finished
    extraction = ExtractConfig(
        slides=(tissue_slide,),
        encoder=(str(result.run_dir),),
        out=tmp_path / "features",
        grid=GridConfig(patch_size=64, mpp=2.0),
        tissue=TissueConfig(tissue_mpp=4),
        compute=CPU,
        workers=0,
    )
    done = run(extract_slides(extraction))
    assert done.slides == 1 and done.patches > 0 and not done.failed


def test_a_resumed_run_keeps_its_precision(config, tmp_path, monkeypatch):
    """On another machine, `auto` may be another precision."""
    config = elsewhere(config, config.out, compute=ComputeConfig(device="cpu"))
    monkeypatch.setenv(AUTO_VARIABLE, "bfloat16")
    whole = run(pretrain(config))
    other = elsewhere(config, tmp_path / "cancelled")
    job = pretrain(other)
    next(event for event in job if isinstance(event, Metrics) and event.step == 3)
    job.close()
    monkeypatch.setenv(AUTO_VARIABLE, "float32")
    assert_same_bits(whole.run_dir, run(resume_pretrain(other.out)).run_dir)
    third = run(pretrain(elsewhere(config, tmp_path / "float32")))
    name = "blocks.0.attn.qkv.weight"
    one, two = (weights(result.run_dir)[0][name] for result in (whole, third))
    assert not torch.equal(one, two)


def test_cancel_and_resume_end_in_the_same_weights(finished, config, tmp_path):
    result, _ = finished
    other = elsewhere(config, tmp_path / "cancelled")
    job = pretrain(other)
    for event in job:
        if isinstance(event, Metrics) and event.step == 4:
            break
    job.close()
    assert_same_bits(result.run_dir, run(resume_pretrain(other.out)).run_dir)
    assert Run.open(other.out).metrics()["step"] == list(range(12))


def test_cancel_in_the_middle_of_a_step_resumes_too(finished, config, tmp_path):
    result, _ = finished
    other = elsewhere(config, tmp_path / "cancelled")
    job = pretrain(other)
    after = 0
    for event in job:
        after += bool(after) or (isinstance(event, Metrics) and event.step == 2)
        if after == 4:
            break
    job.close()
    assert_same_bits(result.run_dir, run(resume_pretrain(other.out)).run_dir)


def test_a_large_checkpoint_keeps_no_cancel_waiting(
    finished, config, tmp_path, monkeypatch
):
    result, _ = finished
    other, gate = elsewhere(config, tmp_path / "cancelled"), threading.Event()
    write = training_run.save_file

    def slowly(*args, **kwargs):
        assert gate.wait(20)
        write(*args, **kwargs)

    monkeypatch.setattr(training_run, "save_file", slowly)
    job = pretrain(other)
    for event in job:
        if isinstance(event, Metrics) and event.step == 4:
            break
    job.close()
    assert not Run.open(other.out).checkpoint_file.exists()
    again = resume_pretrain(other.out)
    heard = [next(again) for _ in range(4)]
    assert isinstance(heard[-1], Progress)
    assert heard[-1].stage == "Reading the checkpoint"
    gate.set()
    assert_same_bits(result.run_dir, run(again).run_dir)
    assert Run.open(other.out).metrics()["step"] == list(range(12))


_CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[2]))
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.mae import PretrainConfig
from napari_mcm.core.mae.pretraining import pretrain
run(pretrain(PretrainConfig.model_validate_json(Path(sys.argv[1]).read_text())))
"""


def test_kill_9_and_resume_end_in_the_same_weights(finished, config, tmp_path):
    result, _ = finished
    other = elsewhere(config, tmp_path / "killed", checkpoint_seconds=0.0)
    file = tmp_path / "config.json"
    file.write_text(other.model_dump_json())
    threads = str(torch.get_num_threads())
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(file), threads])
    metrics = other.out / "metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count("\n") < 4:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert Run.open(other.out).summary() is None, "it was killed too late to tell"
    assert_same_bits(result.run_dir, run(resume_pretrain(other.out)).run_dir)


def test_a_finished_run_is_not_run_again(finished):
    result, _ = finished
    again = run(resume_pretrain(result.run_dir))
    assert again.loss_last == result.loss_last


def test_other_pictures_are_not_resumed_with(config, pictures):
    job = pretrain(config)
    next(event for event in job if isinstance(event, Metrics))
    job.close()
    (pictures / "picture_03.png").unlink()
    with pytest.raises(RunError, match="images"):
        run(resume_pretrain(config.out))


def test_damaged_pictures_are_counted_told_and_survived(config, pictures):
    (pictures / "text.png").write_text("no picture")
    whole = (pictures / "picture_00.png").read_bytes()
    (pictures / "picture_00.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "bomb.png").write_bytes(_claims_to_be_huge(whole))
    events = []
    result = run(pretrain(config), events.append)
    assert result.skipped == 3
    told = " ".join(e.text for e in events if isinstance(e, Note))
    assert all(name in told for name in ("text.png", "picture_00.png", "bomb.png"))
    assert result.loss_last < result.loss_first


def _claims_to_be_huge(png):
    import struct
    import zlib

    header = struct.pack(">II", 60_000, 60_000) + png[24:29]
    check = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return png[:16] + header + check + png[33:]


def test_no_readable_picture_is_said(config, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "text.png").write_text("no picture")
    with pytest.raises(TrainingError, match="no image"):
        run(pretrain(config.model_copy(update={"pictures": (folder,)})))


def test_divergence_stops_with_advice(config):
    wild = config.recipe.model_copy(update={"base_lr": 1e30})
    with pytest.raises(TrainingError, match="lower --base-lr"):
        run(pretrain(config.model_copy(update={"recipe": wild})))


def test_tiles_and_slides_are_learned_from_together(config, tissue_slide, tmp_path):
    events = []
    both = config.model_copy(
        update={
            "images": ImagesConfig(slides=(tissue_slide,), tiles=4),
            "grid": GridConfig(patch_size=64, mpp=2.0),
            "tissue": TissueConfig(tissue_mpp=4),
        }
    )
    result = run(pretrain(both), events.append)
    summary = Run.open(result.run_dir).summary()
    assert summary["pictures"] == 12 and summary["slide_patches"] > 4
    assert result.images == 12 * 16 + summary["slide_patches"]
    recipe = json.loads((result.encoder / "recipe.json").read_text())
    assert str(tmp_path) not in json.dumps(recipe)


def test_weights_of_timms_mae_layout_start_a_run(config, tmp_path):
    """As vit_base_patch16_224.mae: class token pooled, nothing after the norm."""
    torch.manual_seed(7)
    arguments = {"img_size": 32, "patch_size": 8, "depth": 2}
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, **arguments)
    recipe = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": arguments,
        "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": 32},
        "license": "cc-by-nc-4.0",
    }
    folder = save_encoder(tmp_path / "theirs", theirs, recipe, "card")
    given = config.model_copy(update={"start": str(folder)})
    model, start = build_model(given)
    assert start is not None and start["license"] == "cc-by-nc-4.0"
    ours = model.encoder.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in theirs.state_dict().items())
    events = []
    result = run(pretrain(given), events.append)
    assert any("cc-by-nc-4.0" in e.text for e in events if isinstance(e, Note))
    assert load_encoder(result.run_dir, CPU).recipe["license"] == "cc-by-nc-4.0"


def test_weights_of_another_vit_are_refused(config):
    with pytest.raises(WeightsError, match="image-size"):
        build_model(config.model_copy(update={"start": "random:test_vit"}))


def test_a_run_is_never_overwritten(config):
    Run.create(config.out, {})
    with pytest.raises(RunError, match="--resume"):
        run(pretrain(config))


@pytest.mark.parametrize("missing", [{"pictures": ()}, {"out": None}])
def test_what_is_missing_is_named(config, missing):
    with pytest.raises(ConfigError):
        run(pretrain(config.model_copy(update=missing)))


def test_threads_are_gone_after_a_cancel(config):
    before = set(threading.enumerate())
    job = pretrain(config)
    next(event for event in job if isinstance(event, Metrics))
    job.close()
    writes.wait_for_all_writes()
    assert set(threading.enumerate()) <= before


def test_a_cancel_is_acted_on_while_pictures_are_read(config, monkeypatch, tmp_path):
    """Slow pictures of a large batch do not keep a cancel waiting."""
    from napari_mcm.core.mae import pictures as module

    plain = module.read_picture

    def slow(path):
        time.sleep(0.3)
        return plain(path)

    monkeypatch.setattr(module, "read_picture", slow)
    folder = write_pictures(tmp_path / "many", 40)
    large = config.recipe.model_copy(update={"batch_size": 40})
    images = config.images.model_copy(update={"cache_mb": 0})
    job = pretrain(
        config.model_copy(
            update={"pictures": (folder,), "recipe": large, "images": images}
        )
    )
    signs, began = [], time.monotonic()
    for event in job:
        if isinstance(event, Metrics):
            break
        signs.append(time.monotonic() - began)
    job.close()
    # All of them at once take six.
    assert max(np.diff(signs[-8:])) < 4


def test_greyscale_and_transparent_pictures_are_read(tmp_path):
    from napari_mcm.core.mae.pictures import read_picture

    Image.new("L", (20, 10), 7).save(tmp_path / "grey.png")
    Image.new("RGBA", (20, 10), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "grey.png") == 7).all()
    assert (read_picture(tmp_path / "clear.png") == 255).all()
    assert read_picture(tmp_path / "grey.png").shape == (10, 20, 3)
