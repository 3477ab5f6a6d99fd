"""Random numbers that depend on a seed only, whatever else goes on in the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch

from napari_mcm.core.encoders.seeding import SeededSteps, seeded


def drawn(seed: int) -> list[float]:
    with seeded(seed):
        numbers = []
        for _ in range(5):
            numbers.append(float(torch.rand(())))
            time.sleep(0.01)
        return numbers


def test_jobs_that_run_side_by_side_draw_what_they_draw_alone() -> None:
    alone = [drawn(1), drawn(2)]
    found: dict[int, list[float]] = {}

    def work(seed: int) -> None:
        found[seed] = drawn(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[1], found[2]] == alone


def test_numbers_of_others_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    expected = [float(torch.rand(())) for _ in range(2)]
    torch.manual_seed(5)
    first = float(torch.rand(()))
    drawn(1)
    assert [first, float(torch.rand(()))] == expected


class _Pass:
    """One pass of a network in training, with dropout or without."""

    def __init__(self, dropout: float) -> None:
        self.dropout = torch.nn.Dropout(dropout)
        self.seeding = SeededSteps(torch.device("cpu"))

    def __call__(self, seed: int) -> list[float]:
        with self.seeding.seed(seed):
            values: list[float] = self.dropout(torch.ones(50)).tolist()
            return values


def _ends_beside_a_seeded_block(work: Callable[[], object], seconds: float) -> bool:
    """Tell whether some work ends in time while another thread is inside `seeded`."""
    done = threading.Event()

    def body() -> None:
        work()
        done.set()

    with seeded(0):
        thread = threading.Thread(target=body)
        thread.start()
        ended = done.wait(seconds)
    thread.join()
    return ended


def test_passes_without_dropout_do_not_wait_for_one_another() -> None:
    one = _Pass(dropout=0.0)
    one(1)
    assert _ends_beside_a_seeded_block(lambda: one(2), seconds=60)


def test_passes_with_dropout_keep_to_their_seed_and_wait() -> None:
    one = _Pass(dropout=0.5)
    first, second = one(1), one(2)
    assert first != second and [one(1), one(2)] == [first, second]
    assert not _ends_beside_a_seeded_block(lambda: one(1), seconds=0.2)


def test_a_mode_that_draws_is_seeded_after_one_that_does_not() -> None:
    seeding = SeededSteps(torch.device("cpu"))

    def drawn_in(mode: str, count: int) -> list[float]:
        with seeding.seed(3, mode):
            numbers: list[float] = torch.rand(count).tolist()
            return numbers

    drawn_in("frozen", 0)
    assert drawn_in("learning", 2) == drawn_in("learning", 2)


def test_numbers_of_a_gpu_are_seeded_and_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = torch.Generator().manual_seed(7)
    monkeypatch.setattr(torch.cuda, "default_generators", (torch.Generator(), gpu))
    before = gpu.get_state()
    found = []
    for _ in range(2):
        with seeded(5, torch.device("cuda:1")):
            found.append(torch.rand(3, generator=gpu).tolist())
    assert found[0] == found[1]
    assert torch.equal(gpu.get_state(), before)
