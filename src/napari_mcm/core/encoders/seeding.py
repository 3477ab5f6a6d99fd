"""Random numbers that depend on a seed only."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import torch

_lock = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Start PyTorch's random numbers from a seed, and restore them afterwards.

    Only one thread at a time can be inside: a process has one generator per device, and
    may run several jobs at a time.

    Parameters
    ----------
    seed : int
        Determines every number that is drawn in this block.
    device : torch.device, optional
        Seeds this device's numbers as well as the CPU's.

    Yields
    ------
    None
        The block runs with the seeded generators.
    """
    with _lock:
        generators = _generators(device)
        # Restored afterwards: a caller's own random numbers do not notice.
        states = [generator.get_state() for generator in generators]
        for generator in generators:
            generator.manual_seed(seed)
        try:
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


class SeededSteps:
    """Seeder of a computation that is repeated, such as the steps of a training.

    Most networks draw no random numbers, as they have no dropout. The first pass
    detects this: later passes skip the lock, so that parallel jobs do not wait for each
    other.

    Parameters
    ----------
    device : torch.device
        Device of the computation.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._draws_none: set[Hashable] = set()

    @contextmanager
    def seed(self, seed: int, mode: Hashable = None) -> Iterator[None]:
        """Seed one pass of the computation.

        Parameters
        ----------
        seed : int
            Determines every number that is drawn in this block.
        mode : hashable, optional
            Distinguishes passes that compute different things; each is checked once.

        Yields
        ------
        None
            The block runs with the seeded generators.
        """
        if mode in self._draws_none:
            yield
            return
        with seeded(seed, self._device):
            generators = _generators(self._device)
            before = [generator.get_state() for generator in generators]
            yield
            after = [generator.get_state() for generator in generators]
        # The state has not moved, so nothing was drawn.
        if all(map(torch.equal, before, after)):
            self._draws_none.add(mode)


def _generators(device: torch.device | None) -> list[torch.Generator]:
    """List the generators that a computation on a device draws from."""
    found = [torch.default_generator]
    if device is not None and device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        found.append(torch.cuda.default_generators[index])
    elif device is not None and device.type == "mps":
        found.append(torch.mps._get_default_mps_generator())
    return found
