"""The teacher's features kept in memory, for runs that show it the same patches.

Within one run there is nothing to gain: each placement of the windows lies elsewhere. But
the arms of a study see the same windows for the same seed, and their teacher is the same;
and patches that lie as in an extraction may have been encoded by it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.encoders import Encoder

_Key = tuple[str, str, bytes]


class TeacherCache:
    """Features by teacher and patch, up to some memory; what was used last stays.

    Parameters
    ----------
    megabytes : int
        Bound of its memory for what is encoded here; 0 keeps nothing.

    Attributes
    ----------
    size, known_bytes : int
        Memory taken by what was encoded here, and by what was taken in.
    asked, found : int
        Patches asked for, and those whose features were there.
    taken : dict of str to int
        Patches taken in by where from, so that the next run of a study does not again.
    """

    def __init__(self, megabytes: int) -> None:
        self._limit = megabytes * 10**6
        self._features: OrderedDict[_Key, NDArray[np.float32]] = OrderedDict()
        self._known: dict[_Key, NDArray[np.float32]] = {}
        self.size = self.known_bytes = 0
        self.asked = self.found = 0
        self.taken: dict[str, int] = {}

    def encode(
        self, teacher: Encoder, pixels: NDArray[np.uint8], keys: Sequence[bytes]
    ) -> NDArray[np.float32]:
        """Encode patches that are not there; a patch's bits are the same either way.

        Parameters
        ----------
        teacher : Encoder
            Frozen.
        pixels : ndarray of uint8, shape (B, H, W, 3)
            Patches.
        keys : sequence of bytes
            What each patch shows: slide, place, resolution, turn. None at all where
            patches are recoloured at random: nothing is kept then.
        """
        if not keys or not (self._limit or self._known):
            return teacher.encode(pixels)
        names = [(teacher.fingerprint, teacher.precision, key) for key in keys]
        known = {name: self._take(name) for name in names}
        missing = [i for i, name in enumerate(names) if known[name] is None]
        self.asked += len(names)
        self.found += len(names) - len(missing)
        if missing:
            made = teacher.encode(pixels[missing])
            for i, features in zip(missing, made, strict=True):
                known[names[i]] = features
                self._keep(names[i], features.copy())
        return np.stack([f for name in names if (f := known[name]) is not None])

    def take_in(
        self, teacher: Encoder, keys: Sequence[bytes], features: NDArray[np.float32]
    ) -> None:
        """Keep features that are known from elsewhere; these are never dropped.

        Parameters
        ----------
        teacher : Encoder
            Whose they are.
        keys : sequence of bytes
            What each patch shows.
        features : ndarray of float32, shape (N, D)
            One row a key.
        """
        for key, row in zip(keys, features, strict=True):
            name = (teacher.fingerprint, teacher.precision, key)
            # A patch counts once, however often it is brought.
            self.known_bytes += 0 if name in self._known else row.nbytes
            self._known[name] = row

    def describe(self) -> str:
        """Say what it was good for, in one line."""
        return (
            f"teacher features: {self.found:,} of {self.asked:,} were there already "
            f"({self.size / 1e6:.0f} MB)"
        )

    def _take(self, name: _Key) -> NDArray[np.float32] | None:
        if name in self._known:
            return self._known[name]
        if name in self._features:
            self._features.move_to_end(name)
        return self._features.get(name)

    def _keep(self, name: _Key, features: NDArray[np.float32]) -> None:
        self._features[name] = features
        self.size += features.nbytes
        while self.size > self._limit:
            _, dropped = self._features.popitem(last=False)
            self.size -= dropped.nbytes
