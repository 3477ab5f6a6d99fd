"""The program that computes UMAP and Leiden, in a process of its own.

``python -m napari_mcm.core.atlas.neighbour_process FOLDER`` reads ``reduced.npy`` and
``request.json`` of the folder, and writes ``result.npy``. It prints how far it has come,
as ``done/total``. A process can be stopped at any moment, and shares neither Python's lock
nor its libraries with a window.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REDUCED, REQUEST, RESULT = "reduced.npy", "request.json", "result.npy"

_EXACT = 4096
"""Number of patches up to which the nearest neighbours are found exactly."""


def main(folder: Path) -> None:
    """Compute what the request of a folder asks for.

    Parameters
    ----------
    folder : Path
        Folder of the files.
    """
    reduced = np.load(folder / REDUCED, allow_pickle=False)
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    methods: dict[str, Any] = {"umap": _umap, "leiden": _leiden}
    compute = methods[request.pop("method")]
    np.save(folder / RESULT, compute(reduced, **request), allow_pickle=False)


def _umap(
    reduced: NDArray[np.float32], neighbours: int, min_distance: float, seed: int
) -> NDArray[np.float32]:
    import umap

    # Far fewer points than neighbours leave nothing to arrange.
    neighbours = min(neighbours, len(reduced) - 1)
    start = reduced[:, :2] * (10 / max(float(np.abs(reduced[:, :2]).max()), 1e-12))
    with warnings.catch_warnings():
        # It says that a seed means one thread, which is what is asked for.
        warnings.simplefilter("ignore")
        placed = umap.UMAP(
            n_neighbors=neighbours,
            min_dist=min_distance,
            init=start,
            random_state=seed,
            n_jobs=1,
            tqdm_kwds={
                "disable": False,
                "file": sys.stdout,
                "bar_format": "{n_fmt}/{total_fmt}\n",
                "mininterval": 0.3,
            },
        ).fit_transform(reduced)
    return np.asarray(placed, np.float32)


def _leiden(
    reduced: NDArray[np.float32], neighbours: int, resolution: float, seed: int
) -> NDArray[np.int32]:
    from graspologic_native import leiden_csr
    from scipy.sparse import csr_array

    count = len(reduced)
    indices = _nearest(reduced, min(neighbours, count - 1), seed)  # (N, k)
    ends = np.arange(0, indices.size + 1, indices.shape[1])
    one_way = csr_array(
        (np.ones(indices.size), indices.ravel(), ends), shape=(count, count)
    )
    both: Any = csr_array(one_way + one_way.T)  # 2 where each is the other's neighbour
    both.setdiag(0)
    both.eliminate_zeros()
    both.sort_indices()
    _, found = leiden_csr(
        both.indptr.astype(np.int64),
        both.indices.astype(np.int32),
        both.data.astype(np.float64),
        count,
        resolution=resolution,
        iterations=2,
        seed=seed,
    )
    # A patch without neighbours is a cluster of its own.
    alone = range(len(found), len(found) + count)
    return np.asarray([found.get(i, alone[i]) for i in range(count)], np.int32)


def _nearest(
    reduced: NDArray[np.float32], neighbours: int, seed: int
) -> NDArray[np.int32]:
    """Return the nearest other patches of each, (N, neighbours)."""
    if len(reduced) <= _EXACT:
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=neighbours).fit(reduced)
        return np.asarray(search.kneighbors(return_distance=False), np.int32)
    from pynndescent import NNDescent

    found, _ = NNDescent(
        reduced, n_neighbors=neighbours + 1, random_state=seed, n_jobs=1
    ).neighbor_graph
    return np.asarray(found[:, 1:], np.int32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
