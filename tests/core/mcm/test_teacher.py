"""Features of the teacher that are kept are the ones that it would give."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import load_file

from napari_mcm.core.mcm.finetune import finetune
from napari_mcm.core.mcm.teacher import TeacherCache
from napari_mcm.core.mcm.window_pixels import read_window
from napari_mcm.core.mcm.windows import Source, plan_epoch
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.slides import open_slide
from napari_mcm.core.tissue import find_tissue


def arm(config, out, mode="masked"):
    context = config.context.model_copy(update={"context_mode": mode})
    return config.model_copy(update={"context": context, "out": out})


def test_arms_share_what_the_teacher_said_and_end_in_the_same_bits(config, tmp_path):
    cache = TeacherCache(50)
    plain = run(finetune(arm(config, tmp_path / "plain", "shuffled")))
    run(finetune(arm(config, tmp_path / "first"), cache=cache))
    asked, found = cache.asked, cache.found
    shared = run(finetune(arm(config, tmp_path / "second", "shuffled"), cache=cache))
    assert cache.found - found == cache.asked - asked > 50
    one, two = (load_file(r.encoder / "model.safetensors") for r in (plain, shared))
    assert all((one[name] == two[name]).all() for name in one)


def test_the_same_key_is_the_same_pixels_and_the_other_way_round(tissue_slide, config):
    slide = open_slide(tissue_slide)
    source = Source(slide, find_tissue(slide, config.tissue))
    still = config.optimiser.model_copy(update={"flips": False})
    plain = config.model_copy(update={"optimiser": still})
    by_key = {}
    for epoch in range(2):
        for ref in plan_epoch([source], config, 1.0, 0):
            # The same places unturned and turned: other pixels, so other keys.
            window = read_window(ref, plain if epoch == 1 else config)
            for kind in ("visible", "masked"):
                keys = getattr(window, f"{kind}_keys")
                pixels = getattr(window, f"{kind}_pixels")
                assert len(keys) == len(pixels)
                for key, patch in zip(keys, pixels, strict=True):
                    assert by_key.setdefault(key, patch.tobytes()) == patch.tobytes()
    assert len(set(by_key.values())) == len(by_key)


def test_recoloured_patches_are_never_taken_from_it(tissue_slide, config):
    slide = open_slide(tissue_slide)
    source = Source(slide, find_tissue(slide, config.tissue))
    strong = config.optimiser.model_copy(update={"jitter": 0.3})
    config = config.model_copy(update={"optimiser": strong})
    window = read_window(plan_epoch([source], config, 1.0, 0)[0], config)
    assert window.visible_keys == window.masked_keys == ()


@pytest.mark.parametrize("megabytes", [0, 1])
def test_its_memory_is_bounded(teacher, megabytes):
    cache = TeacherCache(megabytes)
    rng = np.random.default_rng(0)
    for n in range(40):
        pixels = rng.integers(0, 256, (32, 8, 8, 3), np.uint8)
        keys = [f"{n} {i}".encode() for i in range(32)]
        features = cache.encode(teacher, pixels, keys)
        assert features.shape == (32, teacher.dim)
        again = cache.encode(teacher, pixels, keys)
        np.testing.assert_array_equal(features, again)
        assert cache.size <= megabytes * 10**6
    assert bool(cache.found) is bool(megabytes)
