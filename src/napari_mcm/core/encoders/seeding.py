"""Random numbers that depend on a seed only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Start PyTorch's random numbers from a seed, and leave others' as they were.

    One thread at a time: a process has one generator, and may run jobs side by side.

    Parameters
    ----------
    seed : int
        What all that is drawn in this block depends on.
    """
    with _lock, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
