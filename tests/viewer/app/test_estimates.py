"""Estimates: measured rates, first guesses, and the words for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.grid import GridConfig
from napari_mcm.core.mae.config import PretrainConfig
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mil.config import MilConfig
from napari_mcm.core.runtime.jobs import Progress
from napari_mcm.viewer.app import rates
from napari_mcm.viewer.app.estimates import (
    Answer,
    Areas,
    SlideArea,
    count_patches,
    processor_speed,
)
from napari_mcm.viewer.app.rates import (
    Estimate,
    JobTiming,
    Work,
    estimate,
    read_rates,
    rounded,
)
from napari_mcm.viewer.app.workloads import (
    autoencoder_multiply_adds,
    extraction_work,
    finetune_work,
    mil_work,
    pretraining_work,
)

WORK = Work("extract", "a, 224 px", "cpu", "auto", "Extracting", 100.0)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "rates.json"
    monkeypatch.setattr(rates, "_file", lambda: file)
    return file


def measure(work: Work, finished: bool = True, unit_s: float = 0.5) -> None:
    """Run a job of 10 s of starting and 20 units, on a clock of its own."""
    now = [0.0]
    timing = JobTiming(work, clock=lambda: now[0])
    for second in range(10):
        now[0] = float(second)
        timing.follow(Progress("Starting PyTorch", 0, None))
    now[0] = 10.0
    for unit in range(21):
        timing.follow(Progress(f"{work.stage} a", unit, 20, rate=1.0))
        now[0] += unit_s
    timing.end(finished)


def test_what_was_measured_is_the_next_estimate() -> None:
    assert estimate(WORK, read_rates(), None) is None
    measure(WORK)
    found = estimate(WORK, read_rates(), None)
    # 10 s of starting, and the 0.5 s after the last unit; 0.5 s for each of 100 units.
    assert found is not None and found.measured
    assert found.seconds == pytest.approx(10.5 + 100 * 0.5)


def test_a_cancelled_job_teaches_the_rate_only() -> None:
    measure(WORK, finished=False)
    found = estimate(WORK, read_rates(), None)
    assert found is not None and found.seconds == pytest.approx(50.0)


def test_a_new_measurement_is_blended_with_the_old_one() -> None:
    measure(WORK)
    measure(WORK, finished=False, unit_s=1.5)
    found = estimate(WORK, read_rates(), None)
    assert found is not None and found.seconds == pytest.approx(10.5 + 100 * 1.0)


def test_other_devices_and_models_have_other_rates() -> None:
    measure(WORK)
    for other in (
        Work("extract", "b, 224 px", "cpu", "auto", "Extracting", 100.0),
        Work("extract", "a, 224 px", "cuda", "auto", "Extracting", 100.0),
        Work("finetune", "a, 224 px", "cpu", "auto", "Extracting", 100.0),
    ):
        assert estimate(other, read_rates(), None) is None


def test_a_guessed_amount_is_corrected_by_what_was_done() -> None:
    guessed = Work("x", "m", "cpu", "auto", "Extracting", 40.0, exact=False)
    measure(guessed)  # 20 units were done where 40 were guessed
    found = estimate(guessed, read_rates(), None)
    assert found is not None and found.seconds == pytest.approx(10.5 + 20 * 0.5)


def test_a_first_guess_comes_from_multiply_adds() -> None:
    work = Work("x", "m", "cpu", "auto", "Extracting", 100.0, multiply_adds=2e9)
    found = estimate(work, {}, speed=1e10)
    assert found == Estimate(20.0, measured=False) and found.text == "roughly 20 s"
    # Once another model was measured on the device, its speed counts.
    measure(Work("y", "n", "cpu", "auto", "Extracting", 20.0, multiply_adds=1e9))
    found = estimate(work, read_rates(), speed=1e10)
    assert found is not None and found.seconds == pytest.approx(100 * 2e9 / (1e9 / 0.5))
    assert not found.measured
    assert estimate(work, {}, None) is None


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"k": 3}'])
def test_a_damaged_file_is_empty(kept: Path, content: str) -> None:
    kept.write_text(content.replace('"k"', json.dumps(WORK.key)))
    assert estimate(WORK, read_rates(), None) is None
    measure(WORK)
    assert estimate(WORK, read_rates(), None) is not None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "5 s"),
        (14, "15 s"),
        (59, "1 min"),
        (230, "4 min"),
        (11 * 60, "10 min"),
        (58 * 60, "1 h"),
        (2.4 * 3600, "2.5 h"),
        (12 * 3600, "12 h"),
        (47 * 3600, "47 h"),
        (9.2 * 86400, "9 days"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert rounded(seconds) == text


def areas(*known: tuple[Path, float, float, bool]) -> Areas:
    return Areas({p: SlideArea(um2, mpp, exact) for p, um2, mpp, exact in known}, {})


def test_patches_are_counted_from_the_area_of_the_tissue() -> None:
    # 224 px at 0.5 µm are 112 µm: 1 mm² holds 79.7 patches.
    found = [SlideArea(1e6, 0.25, True)]
    assert count_patches(found, GridConfig()) == pytest.approx(1e6 / 112**2)
    # The coarsest slide decides, as it does in an extraction.
    coarse = [*found, SlideArea(1e6, 1.0, True)]
    assert count_patches(coarse, GridConfig()) == pytest.approx(2e6 / 224**2)
    assert count_patches(found, GridConfig(mpp=2.0)) == pytest.approx(1e6 / 448**2)


def test_an_extraction_of_a_file_is_guessed_from_its_size(slide_path: Path) -> None:
    config = ExtractConfig(
        slides=(slide_path,), encoder=("offline:efficientnet_lite0",)
    )
    work = extraction_work(config, areas())
    # 1,200 × 1,000 px of 0.5 µm, of which 30 % are taken for tissue.
    assert work.units == pytest.approx(0.3 * 600 * 500 / 112**2) and not work.exact
    assert work.multiply_adds == 383_907_552
    known = areas((slide_path.absolute(), 112.0**2 * 7, 0.5, True))
    assert extraction_work(config, known).units == pytest.approx(7.0)
    assert extraction_work(config, known).exact


def test_a_fine_tuning_counts_windows(slide_path: Path) -> None:
    config = FinetuneConfig.model_validate(
        {
            "slides": (slide_path,),
            "optimiser": {"epochs": 3, "placements": 2},
            "held_out": {"validation": 0.25},
            "context": {"s": 4},
        }
    )
    known = areas((slide_path.absolute(), 112.0**2 * 320, 0.5, True))
    assert finetune_work(config, known).units == pytest.approx(20 * 0.75 * 3 * 2)


def test_a_large_vit_on_a_cpu_is_warned_of(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.png").touch()
    config = PretrainConfig.model_validate(
        {
            "pictures": (tmp_path,),
            "recipe": {"epochs": 800},
            "compute": {"device": "cpu"},
        }
    )
    work = pretraining_work(config, areas())
    assert work.units == 50 * 800 * config.images.tiles**2
    # At 20 G multiply-adds per second; a minute is no reason to warn.
    guess = estimate(work, {}, 2e10)
    assert guess is not None and guess.seconds > 12 * 3600
    assert Answer(work, guess).is_long and "roughly" in Answer(work, guess).text
    assert not Answer(work, Estimate(60.0)).is_long
    assert not Answer(replace(work, device="cuda"), guess).is_long


def test_the_cost_of_an_autoencoder_is_what_torch_counts() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from napari_mcm.core.mae.pretraining import build_model

    config = PretrainConfig.model_validate(
        {"model": {"model": "tiny"}, "masking": {"mask_ratio": 0.75}}
    )
    model, _ = build_model(config)
    side, patches = config.model.image_size, config.model.grid**2
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, side, side), torch.randperm(patches)[None])
    counted = counter.get_total_flops() / 2
    # Three passes: forwards, and twice as much backwards.
    assert autoencoder_multiply_adds(config) / 3 == pytest.approx(counted, rel=0.03)


def test_mil_counts_epochs_of_slides(tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text(
        "slide,label\n" + "".join(f"s{n},{'ab'[n % 2]}\n" for n in range(8))
    )
    config = MilConfig.model_validate(
        {"cohort": table, "seeds": 2, "split": {"folds": 4}, "training": {"epochs": 10}}
    )
    work = mil_work(config, areas())
    assert work.units == 4 * 2 * 10 * 8 and work.scale == 8
    table.write_text(
        "slide,label,fold\n"
        + "".join(f"s{n},{'ab'[n % 2]},{n // 4}\n" for n in range(8))
    )
    assert mil_work(config, areas()).units == 2 * 2 * 10 * 8


def test_a_slow_kind_of_network_is_guessed_to_take_longer() -> None:
    work = Work("x", "m", "cpu", "auto", "Extracting", 100.0, multiply_adds=2e9)
    found = estimate(replace(work, slowness=2.5), {}, speed=1e10)
    assert found == Estimate(50.0, measured=False)
    # What it reached says more of other networks: 1e9 count as 2.5e9 in 0.5 s.
    light = Work("y", "n", "cpu", "auto", "Extracting", 20.0, multiply_adds=1e9)
    measure(replace(light, slowness=2.5))
    found = estimate(work, read_rates(), None)
    assert found is not None and found.seconds == pytest.approx(100 * 2e9 / 5e9)


def test_the_speed_of_a_busy_computer_is_not_guessed() -> None:
    def clock(waits: float) -> Callable[[], float]:
        """Tell 20 products of 20 ms in all, and after each fourth other programs run."""
        ticks = count()
        return lambda: (tick := next(ticks)) * 0.02 + tick // 4 * waits

    # 64³ multiply-adds per 1 ms on each of 2 cores; networks reach 0.4 of it.
    quiet = processor_speed(clock(0.0), cores=2)
    assert quiet == pytest.approx(0.4 * 2 * 64**3 / 1e-3)
    assert processor_speed(clock(0.3), cores=2) is None


def test_the_first_guess_of_a_small_encoder_is_of_the_measured_order(
    slide_path: Path,
) -> None:
    """EfficientNet-Lite0 took 1 s for 60 patches where a core multiplied 50e9 a second."""
    config = ExtractConfig(
        slides=(slide_path,), encoder=("offline:efficientnet_lite0",)
    )
    work = replace(extraction_work(config, areas()), units=60.0)
    found = estimate(work, {}, speed=0.4 * 2 * 50e9)
    assert found is not None and 0.3 < found.seconds < 3.0
