"""Random numbers that depend on a seed only, whatever else goes on in the process."""

from __future__ import annotations

import threading
import time

import torch

from napari_mcm.core.encoders.seeding import seeded


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
