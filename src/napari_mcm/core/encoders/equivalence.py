"""Decide by measurement whether bfloat16 gives the features of float32.

An encoder whose precision is ``auto`` computes in bfloat16 where the hardware does so
fast and the features stay the same. Both are measured on real tissue, once per encoder
and kind of machine: patches of one slide are encoded in each precision, the mean of
the float32 features is subtracted from both, and every patch's two vectors must have a
cosine of at least `LEAST_COSINE`. Without subtracting the mean, any two features of an
encoder are nearly parallel, and the comparison would mean nothing.
"""

from __future__ import annotations

import json
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from napari_mcm.core.encoders.compute import automatic_precision, has_fast_bfloat16
from napari_mcm.core.encoders.encoder import Encoder
from napari_mcm.core.errors import McmError
from napari_mcm.core.runtime.files import cache_folder, write_json

LEAST_COSINE = 0.999
"""Least cosine with float32, over all patches, for ``auto`` to be bfloat16."""
SIDE = 224
"""Side of the reference patches in pixels."""
# To be raised when patches or the comparison change, so that old results are not read.
_VERSION = 1


@dataclass(frozen=True)
class Equivalence:
    """The comparison of bfloat16 with float32 on reference tissue.

    Attributes
    ----------
    least, median : float
        Cosine of a patch's features in the two precisions, less float32's mean.
    speedup : float
        Time in float32 divided by time in bfloat16.
    patches : int
        Patches compared.
    """

    least: float
    median: float
    speedup: float
    patches: int

    @property
    def holds(self) -> bool:
        """Return whether bfloat16 may replace float32.

        Returns
        -------
        bool
            True where `least` reaches `LEAST_COSINE`.
        """
        return self.least >= LEAST_COSINE

    def explain(self, name: str) -> str:
        """Explain in one line which precision an encoder uses, and why.

        Parameters
        ----------
        name : str
            The encoder as the user named it.

        Returns
        -------
        str
            For the log and the viewer.
        """
        faster = f"{self.speedup:.1f} times as fast"
        if self.holds:
            return (
                f"{name} computes in bfloat16: {faster} here, least cosine with "
                f"float32 {self.least:.4f} over {self.patches} patches"
            )
        return (
            f"{name} computes in float32: bfloat16 is {faster} here but changes its "
            f"features (least cosine {self.least:.4f}, {LEAST_COSINE} is required); "
            "choose it with --precision bfloat16"
        )


def settle_precision(encoder: Encoder) -> Encoder:
    """Choose the precision of an encoder whose precision is ``auto``.

    Parameters
    ----------
    encoder : Encoder
        In float32.

    Returns
    -------
    Encoder
        In the precision chosen; its `precision_note` explains it in one line.

    Raises
    ------
    ConfigError
        If `AUTO_VARIABLE` holds an unknown precision.
    """
    encoder = replace(encoder, auto_precision=True)
    given = automatic_precision()
    if given is not None:
        return encoder.in_precision(given)
    if not has_fast_bfloat16(encoder.device):
        return encoder
    equivalence = find_equivalence(encoder)
    chosen = encoder.in_precision("bfloat16" if equivalence.holds else "float32")
    return replace(chosen, precision_note=equivalence.explain(encoder.spec))


def find_equivalence(encoder: Encoder) -> Equivalence:
    """Return the comparison of an encoder's precisions on this kind of machine.

    It is measured once and kept in the cache folder, see
    :func:`~napari_mcm.core.runtime.files.cache_folder`.

    Parameters
    ----------
    encoder : Encoder
        In any precision.

    Returns
    -------
    Equivalence
        From the cache, or measured now.
    """
    file = cache_folder("precision") / f"{_key(encoder)}.json"
    cached = _read(file)
    if cached is not None:
        return cached
    measured = measure_equivalence(encoder, reference_patches())
    # Where the home folder is read-only, it is measured again next time.
    with suppress(McmError):
        write_json(file, asdict(measured))
    return measured


def measure_equivalence(encoder: Encoder, patches: NDArray[np.uint8]) -> Equivalence:
    """Encode patches in float32 and in bfloat16, and compare the features.

    Parameters
    ----------
    encoder : Encoder
        In any precision.
    patches : ndarray of uint8, shape (B, H, W, 3)
        At least two RGB patches of tissue.

    Returns
    -------
    Equivalence
        Cosines and speed on this machine.
    """
    features: dict[str, NDArray[np.float32]] = {}
    seconds: dict[str, float] = {}
    for precision in ("float32", "bfloat16"):
        one = encoder.in_precision(precision)
        one.encode(patches[: one.chunk])  # fold batch norms and warm up
        began = time.perf_counter()
        features[precision] = one.encode(patches)
        seconds[precision] = time.perf_counter() - began
    cosines = centred_cosines(features["float32"], features["bfloat16"])
    return Equivalence(
        least=float(cosines.min()),
        median=float(np.median(cosines)),
        speedup=seconds["float32"] / max(seconds["bfloat16"], 1e-9),
        patches=len(patches),
    )


def centred_cosines(
    reference: NDArray[np.float32], other: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the cosine of every row of two feature sets, less the first set's mean.

    Parameters
    ----------
    reference, other : ndarray of float32, shape (B, dim)
        Features of the same patches.

    Returns
    -------
    ndarray of float64, shape (B,)
        0 where a row equals the mean, as where all features are equal.
    """
    # Both less the same mean: each less its own would hide a shift.
    mean = reference.astype(np.float64).mean(axis=0)
    a, b = reference - mean, other - mean
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.zeros(len(a))
    # A vector without length has cosine 0, which fails the comparison.
    np.divide((a * b).sum(axis=1), lengths, out=cosines, where=lengths > 0)
    return cosines


def reference_patches() -> NDArray[np.uint8]:
    """Read the reference patches of tissue that the package contains.

    Returns
    -------
    ndarray of uint8, shape (32, 224, 224, 3)
        H&E at 0.5 µm per pixel; a file beside the image states its source.
    """
    found = files("napari_mcm.core.encoders") / "reference" / "tissue.jpg"
    with found.open("rb") as file, Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
    rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    tiles = pixels.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, SIDE, SIDE, 3))


def machine_kind(device: torch.device) -> str:
    """Name what decides how a machine rounds: processor, instructions, libraries.

    Parameters
    ----------
    device : torch.device
        A device that is present.

    Returns
    -------
    str
        Part of the key under which a comparison is kept.
    """
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    flags = [
        name
        for name in ("amx_tile", "avx512_bf16", "avx512", "avx2")
        if getattr(torch.cpu, f"_is_{name}_supported", bool)()
    ]
    return f"{platform.machine()} {' '.join(flags)}, torch {torch.__version__}"


def _key(encoder: Encoder) -> str:
    parts = (_VERSION, encoder.fingerprint, encoder.spec, machine_kind(encoder.device))
    return blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def _read(file: Path) -> Equivalence | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return Equivalence(**content)
    except (OSError, ValueError, TypeError):
        return None
