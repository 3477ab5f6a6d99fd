"""A controlled case: masked context modelling learns what distillation cannot.

The case is drawn by `benchmarks.controlled_case`, which runs it with all arms and more
seeds. Tested are patches whose state shows in a faint texture only, of islands that no
encoder has seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.controlled_case import (
    TEXTURE,
    draw_field,
    draw_patch,
    make_config,
    make_encoders,
    measure,
)

# 864 patches of each state are tested: the AUROC of a score that knows nothing has a
# standard error of .014. The mean over 40 draws of labels varies less.
CHANCE = 0.06


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_teacher_sees_signs_and_no_texture():
    _, teacher = make_encoders(0)

    def encode(state: int, sign: bool, texture: float) -> np.ndarray:
        rng = np.random.default_rng(5)
        patches = [draw_patch(state, sign, texture, rng) for _ in range(8)]
        return teacher.encode(np.stack(patches))

    spread = encode(0, False, 0.0).std(axis=0).mean()
    plain = encode(0, False, 0.0)
    # The waves of a patch are whole: all that they change is the rounding to 8 bits.
    for state in (0, 1):
        assert np.abs(encode(state, False, TEXTURE) - plain).mean() < 0.05 * spread
    signs = np.abs(encode(0, True, TEXTURE) - encode(1, True, TEXTURE))
    assert signs.mean() > 3 * spread


def test_a_field_is_what_it_says(tmp_path: Path):
    field = draw_field(tmp_path / "field.ome.tif", TEXTURE, 0)
    for island in np.unique(field.island):
        mine = field.island == island
        assert len(set(field.state[mine])) == 1
        assert field.sign[mine].mean() == 0.25
    assert field.state.mean() == 0.5


def test_arms_differ_in_the_context_only():
    base = make_config("F", 0).model_dump()
    for arm in ("D", "X", "N"):
        other = make_config(arm, 0).model_dump()
        assert other["context"].pop("context_mode") != "masked"
        assert other["optimiser"] == base["optimiser"]
        assert other["target"] == base["target"]


@pytest.mark.parametrize("arm", ["A", "D", "X", "F without texture"])
def test_without_context_or_cue_nothing_is_learned(arm: str, tmp_path: Path):
    assert abs(measure(arm, 0, tmp_path) - 0.5) < CHANCE


def test_masked_context_finds_the_faint_texture(tmp_path: Path):
    assert measure("F", 0, tmp_path) > 0.8


def test_targets_of_the_neighbourhood_find_it_too(tmp_path: Path):
    # This case flatters them: all nine patches of a neighbourhood share the state.
    assert measure("N", 0, tmp_path, epochs=1) > 0.8
