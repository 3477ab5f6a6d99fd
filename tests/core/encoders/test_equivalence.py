"""Precision `auto`: measured on tissue, kept, followed by files and runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mcm.core.encoders import ComputeConfig, Encoder, load_encoder
from napari_mcm.core.encoders import equivalence as module
from napari_mcm.core.encoders.compute import AUTO_VARIABLE, settle_training
from napari_mcm.core.encoders.equivalence import (
    Equivalence,
    centred_cosines,
    find_equivalence,
    measure_equivalence,
    reference_patches,
)
from napari_mcm.core.encoders.load import load_encoders
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.runtime.jobs import Note, run

TINY = "random:test_resnet"
AUTO = ComputeConfig(device="cpu", precision="auto")


class Measuring:
    """Stands in for the measurement: what it finds, and of how many patches, each time."""

    least = 0.9991

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, encoder: Encoder, patches: np.ndarray) -> Equivalence:
        self.calls.append(len(patches))
        return Equivalence(self.least, 0.9999, 2.5, len(patches))


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measuring:
    """Have this machine measure, whatever it is."""
    monkeypatch.delenv(AUTO_VARIABLE, raising=False)
    monkeypatch.setenv("NAPARI_MCM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "has_fast_bfloat16", lambda device: True)
    found = Measuring()
    monkeypatch.setattr(module, "measure_equivalence", found)
    return found


def test_the_reference_is_tissue_of_many_places() -> None:
    patches = reference_patches()
    assert patches.shape == (32, 224, 224, 3) and patches.dtype == np.uint8
    # Glass is white: its darkest channel is near 240.
    assert all((patch.min(axis=2) < 210).mean() > 0.5 for patch in patches)
    assert len({patch.tobytes() for patch in patches}) == 32


def test_cosines_are_of_what_is_not_common_to_all_patches() -> None:
    rng = np.random.default_rng(0)
    reference = (100 + rng.standard_normal((20, 8))).astype(np.float32)
    other = (100 + rng.standard_normal((20, 8))).astype(np.float32)
    found = centred_cosines(reference, other)
    mean = np.mean(reference.astype(float), axis=0)
    for row in range(20):
        a, b = reference[row] - mean, other[row] - mean
        expected = a @ b / np.sqrt((a @ a) * (b @ b))
        assert found[row] == pytest.approx(expected, abs=1e-9)
    # Unlike features, although their plain cosine is nearly 1.
    plain = (reference * other).sum(1) / np.linalg.norm(reference, axis=1)
    assert (plain / np.linalg.norm(other, axis=1)).min() > 0.999
    assert abs(found).min() < 0.5


def test_features_that_are_all_alike_are_never_equivalent() -> None:
    same = np.ones((4, 8), np.float32)
    assert (centred_cosines(same, same) == 0).all()


def test_real_weights_are_told_apart_in_bfloat16_and_random_ones_hardly() -> None:
    """The measure sees on real weights what plain cosines of random ones hide."""
    patches = reference_patches()[::4]
    real = load_encoder("offline:efficientnet_lite0", ComputeConfig(device="cpu"))
    found = measure_equivalence(real, patches)
    assert found.patches == 8
    assert 0.95 < found.least < 0.999 and found.least <= found.median < 1
    vectors = [real.in_precision(p).encode(patches) for p in ("float32", "bfloat16")]
    cosines = centred_cosines(*vectors)
    assert found.least == pytest.approx(cosines.min(), abs=1e-6)


@pytest.mark.parametrize(
    ("least", "precision"), [(0.9991, "bfloat16"), (0.9989, "float32")]
)
def test_auto_is_bfloat16_only_where_every_patch_agrees(
    measuring: Measuring, least: float, precision: str
) -> None:
    measuring.least = least
    events: list[object] = []
    (encoder,) = run(load_encoders([TINY], AUTO), events.append)
    assert encoder.precision == precision
    (note,) = [event.text for event in events if isinstance(event, Note)]
    assert f"{least:.4f}" in note and "2.5 times" in note and precision in note
    assert ("--precision bfloat16" in note) == (precision == "float32")


def test_it_is_measured_once_per_encoder_and_machine(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_encoder(TINY, AUTO)
    load_encoder(TINY, AUTO)
    assert measuring.calls == [32]
    load_encoder(TINY, AUTO, random_weights_seed=1)
    assert measuring.calls == [32, 32]
    monkeypatch.setattr(module, "machine_kind", lambda device: "another")
    load_encoder(TINY, AUTO)
    assert measuring.calls == [32, 32, 32]


def test_a_damaged_cache_is_measured_again_and_one_that_cannot_be_written_is_no_error(
    measuring: Measuring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(TINY, AUTO)
    (file,) = (tmp_path / "cache" / "precision").iterdir()
    for text in ("{", "[]", '{"least": 1}'):
        file.write_text(text)
        find_equivalence(encoder)
    assert measuring.calls == [32] * 4
    assert json.loads(file.read_text())["patches"] == 32
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("NAPARI_MCM_CACHE", str(blocked))
    assert find_equivalence(encoder).least == 0.9991


def test_where_bfloat16_is_not_fast_nothing_is_measured(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_fast_bfloat16", lambda device: False)
    encoder = load_encoder(TINY, AUTO)
    assert (encoder.precision, encoder.precision_note) == ("float32", "")
    assert encoder.auto_precision and not measuring.calls


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_asked_for_is_never_measured(
    measuring: Measuring, precision: str
) -> None:
    asked = ComputeConfig(device="cpu", precision=precision)
    encoder = load_encoder(TINY, asked)
    assert encoder.precision == precision and not encoder.auto_precision
    assert settle_training(asked) == asked
    assert not measuring.calls


def test_trainings_compute_in_float32_on_every_cpu(measuring: Measuring) -> None:
    assert settle_training(AUTO).precision == "float32"


@pytest.mark.parametrize("given", ["float32", "bfloat16"])
def test_the_environment_says_what_auto_is(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv(AUTO_VARIABLE, given)
    assert load_encoder(TINY, AUTO).precision == given
    assert settle_training(AUTO).precision == given
    assert not measuring.calls


def test_an_environment_that_says_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(AUTO_VARIABLE, "float16")
    with pytest.raises(ConfigError, match="float16.*float32 or bfloat16"):
        load_encoder(TINY, AUTO)


def test_another_precision_shares_the_module() -> None:
    encoder = load_encoder(TINY, ComputeConfig(device="cpu", precision="float32"))
    other = encoder.in_precision("bfloat16")
    assert other.module is encoder.module and other.dtype == torch.bfloat16
    assert encoder.in_precision("bfloat16") is other
    assert encoder.in_precision("float32") is encoder
