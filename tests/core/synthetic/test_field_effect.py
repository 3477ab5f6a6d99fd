"""The field effect: faint, around tumours only, and absent unless asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.synthetic import SampleConfig, generate_cohort
from napari_mcm.core.synthetic.cohort import plan_sample
from napari_mcm.core.synthetic.field_effect import WAVELENGTH, FieldEffect

PLAIN = SampleConfig(slides=3, size=1400, seed=2)
EFFECT = PLAIN.model_copy(
    update={"field_effect": True, "field_extent": 120.0, "field_strength": 0.12}
)


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Absolute change of each pixel by the effect, per slide."""
    slides = [
        run(generate_cohort(tmp_path_factory.mktemp("cohort"), config)).slides
        for config in (PLAIN, EFFECT)
    ]
    return [
        np.abs(tifffile.imread(one).astype(int) - tifffile.imread(two)).max(axis=2)
        for one, two in zip(*slides, strict=True)
    ]


def test_it_reaches_as_far_as_it_says_and_no_farther(changes: list[np.ndarray]) -> None:
    for index in (0, 1):
        layout = plan_sample(EFFECT, index)
        step, pitch = layout.chart.step, layout.chart.pitch
        away = ndimage.distance_transform_edt(layout.tumour <= 0) * pitch
        tissue = (layout.tissue > 6) & (layout.fat < -10)
        change = changes[index][::step, ::step]
        away, tissue = (a[: len(change), : len(change)] for a in (away, tissue))
        # A pixel between samples may lie a pitch nearer than its sample, and JPEG
        # spreads a change over squares of 16 pixels.
        assert not change[away > 120 + 2 * pitch + 12].any()
        near = change[tissue & (away > 0) & (away < 80)]
        assert (near > 0).mean() > 0.6
        # Faint: a few grey levels.
        assert np.median(near) < 25


def test_a_slide_without_tumour_has_none(changes: list[np.ndarray]) -> None:
    assert not changes[2].any()


def test_the_ripple_has_unit_variance_and_its_wavelength() -> None:
    effect = FieldEffect(np.zeros((1, 1), np.float32), 0.0, 0.5)
    straight = effect.ripple(1024, 512, np.zeros((512, 512), np.float32))
    assert straight.std() == pytest.approx(1, abs=0.01)
    assert np.abs(straight - straight[0]).max() < 1e-5
    power = np.abs(np.fft.rfft(straight[0]))
    assert power.argmax() == 512 * 0.5 / WAVELENGTH
    # Squares that touch continue the wave.
    beside = effect.ripple(1024, 1024, np.zeros((512, 512), np.float32))
    both = np.concatenate([straight[0], beside[0]])
    assert np.abs(np.diff(both)).max() < 1.05 * np.abs(np.diff(straight[0])).max()


def test_without_it_samples_of_earlier_versions_are_kept(tmp_path: Path) -> None:
    # What earlier versions wrote: no option of serial sections or of the field effect.
    old = '{"size":512,"seed":0,"mpp":0.5,"tumour_share":null}'
    assert SampleConfig(size=512).marker() == old
    assert SampleConfig(size=512, field_strength=0.3).marker() == old
    assert SampleConfig(size=512, field_effect=True).marker() != old
    assert SampleConfig(size=512, serial=True).marker() != old
    first = run(generate_cohort(tmp_path, SampleConfig(slides=1, size=512))).slides[0]
    begun = first.stat().st_mtime_ns
    run(generate_cohort(tmp_path, SampleConfig(slides=1, size=512, field_effect=True)))
    assert first.stat().st_mtime_ns != begun


def test_without_it_plans_consume_the_same_randomness() -> None:
    # Pixels may differ by a rounding between processors; the order of draws may not.
    states = [
        plan_sample(config, 0).chart.rng.bit_generator.state
        for config in (PLAIN, EFFECT)
    ]
    assert states[0] == states[1]
