"""Patch features alone, for whoever needs no places: slide classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.features.interchange.formats import _READERS, detect
from napari_mcm.core.features.interchange.own import OWN_FORMAT
from napari_mcm.core.features.interchange.tensors import read_tensor
from napari_mcm.core.features.reading import read_features


def read_vectors(path: str | Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read the features of the patches that have any, in any format that is known.

    Parameters
    ----------
    path : str or Path
        The file. Nothing else need be stated in it: neither the patches' size nor their
        places.

    Returns
    -------
    features : ndarray of float32, shape (N, D)
        All finite.
    encoder : dict
        ``spec`` and ``fingerprint`` of what computed them, as far as the file says.

    Raises
    ------
    FeatureError
        If the file is damaged, incomplete or of no known format.
    """
    path = Path(path)
    kind = detect(path)
    encoder: dict[str, Any] = {}
    if kind == OWN_FORMAT:
        whole = read_features(path)
        features, encoder = whole.features, whole.encoder
    elif path.suffix.lower() in (".pt", ".pth"):
        features = read_tensor(path)
    else:
        bag = _READERS[kind](path, None, None)
        features, encoder = bag.features, {"spec": bag.encoder}
    kept = np.isfinite(features).all(axis=1)
    return features if kept.all() else features[kept], encoder
