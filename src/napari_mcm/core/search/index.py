"""An index for cohorts of more patches than can be compared one by one.

There is one graph (HNSW, by usearch) per feature file, of the unit vectors of its patches
with their context, in half precision. Its file is named by a hash of what it was made of,
so a part fits its feature file or does not exist: an interrupted build resumes at the next
file, and a file that is new or was written again is indexed again. A query asks every
part; the patches that are listed are then scored exactly.

Each part is checked against exact search when it is built, with queries from its own slide
and from others: the search is widened until the ten best are found, or the part is
dropped and its file is searched exactly.

References
----------
Malkov and Yashunin (2020), *Efficient and robust approximate nearest neighbor search using
hierarchical navigable small world graphs*, IEEE TPAMI 42(4), 824-836.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mcm.core.errors import FeatureError, McmError
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.features.format import slide_of
from napari_mcm.core.features.mapped import MappedFeatures, stamp_of_file
from napari_mcm.core.heatmaps.query import fingerprint_of
from napari_mcm.core.heatmaps.similarity_index import Directions
from napari_mcm.core.runtime.files import atomic_path, write_json
from napari_mcm.core.runtime.jobs import Job, Note, Progress
from napari_mcm.core.runtime.threads import Prefetcher
from napari_mcm.core.search.graph import (
    RECIPE,
    ask,
    check_library,
    new_graph,
    open_graph,
)
from napari_mcm.core.search.index_check import NEIGHBOURS, Probes
from napari_mcm.core.search.scoring import blocks

FOLDER = "search-index"

LEAST_ROWS = 1000
"""Patches of a file below which comparing all of them is as fast."""

_SUFFIX = ".usearch"

_ABANDONED_S = 600.0
"""A temporary file of this age belongs to a process that has died."""

_POLL_S = 0.1

_THREADS = min(16, os.cpu_count() or 1)


@dataclass(frozen=True)
class PartInfo:
    """What is known of a part without its graph.

    Attributes
    ----------
    slide, fingerprint : str
        The slide.
    patches : int
        Patches in the feature file.
    vectors : int
        Patches in the part: those that have features.
    patch_mm2 : float
        Area of a patch in mm².
    expansion : int
        How many candidates a query follows.
    recall : float
        Fraction of the ten best patches that the check has found.
    """

    slide: str
    fingerprint: str
    patches: int
    vectors: int
    patch_mm2: float
    expansion: int
    recall: float


@dataclass(frozen=True)
class IndexReport:
    """What building or updating an index did.

    Attributes
    ----------
    parts : int
        Files that the index covers.
    built, removed : int
        Parts that were built now, and those of files that are gone or have changed.
    vectors : int
        Patches in the index.
    recall, lowest : float
        Recall of the ten best patches: mean over all parts, and that of the worst.
    seconds : float
        Time that it took.
    """

    parts: int
    built: int
    removed: int
    vectors: int
    recall: float
    lowest: float
    seconds: float

    def describe(self) -> str:
        """Describe the index in one line.

        Returns
        -------
        str
            With its recall, where it has a part.
        """
        line = (
            f"index of {self.parts:,} slides, {self.vectors:,} patches "
            f"({self.built:,} built, {self.removed:,} removed, {self.seconds:.0f} s)"
        )
        if not self.parts:
            return line
        return (
            f"{line}; recall@{NEIGHBOURS} {self.recall:.3f} against exact search, "
            f"worst slide {self.lowest:.3f}"
        )


class SearchIndex:
    """The index of one encoder and context, in a folder.

    Parameters
    ----------
    folder : Path
        Where its parts are; it need not exist. Indices of several encoders and contexts
        may share it.
    encoder : str
        Fingerprint of the encoder.
    neighbourhood : NeighbourhoodConfig
        Over which patches features are averaged.

    Raises
    ------
    ConfigError
        If the library is missing.
    """

    def __init__(
        self, folder: Path, encoder: str, neighbourhood: NeighbourhoodConfig
    ) -> None:
        check_library()
        context = f"context-{neighbourhood.radius}-{neighbourhood.weights}"
        self.folder = folder / f"{encoder or 'unknown'}-{context}"
        self.encoder, self.neighbourhood = encoder, neighbourhood

    def path_of(self, file: Path) -> Path:
        """Return where the part of a feature file is, for its present content.

        Parameters
        ----------
        file : Path
            The feature file.

        Returns
        -------
        Path
            It need not exist.

        Raises
        ------
        FeatureError
            If the feature file cannot be read.
        """
        made = f"1 {stamp_of_file(file)} {RECIPE}"
        digest = blake2b(made.encode(), digest_size=8).hexdigest()
        return self.folder / f"{slide_of(file)}.{digest}{_SUFFIX}"

    def find(
        self, file: Path, directions: Directions, count: int
    ) -> tuple[PartInfo, NDArray[np.int64], NDArray[np.float32]] | None:
        """Find the patches of a file that are most similar to a query.

        Parameters
        ----------
        file : Path
            The feature file.
        directions : ndarray of float32, shape (K, D)
            Unit vectors; the nearest counts.
        count : int
            Number of patches, at most.

        Returns
        -------
        tuple or None
            The part, rows (n,) of the feature file, most similar first, and their
            cosines (n,) up to rounding to half precision. None where the index does not
            cover the file.
        """
        try:
            path = self.path_of(file)
            info = read_info(path)
            if info is None:
                return None
            graph = open_graph(path, path.stat().st_mtime_ns, directions.shape[1])
        # Other programs may have removed or damaged it: the file is searched exactly.
        except (McmError, OSError, RuntimeError, ValueError):
            return None
        graph.expansion_search = info.expansion
        return (info, *ask(graph, directions, min(count, info.vectors)))

    def build(self, files: Sequence[Path]) -> Job[IndexReport]:
        """Build the missing parts, and remove those of other content, as a job.

        Parameters
        ----------
        files : sequence of Path
            Feature files; those of other encoders are left out.

        Yields
        ------
        Event
            Progress in slides, and a note per file that cannot be indexed.

        Returns
        -------
        IndexReport
            Of the whole index.

        Raises
        ------
        McmError
            If the folder cannot be written to.
        """
        began = time.monotonic()
        built, wanted = yield from self._build_parts(files)
        removed = _remove_others(self.folder, wanted)
        infos = [info for path in wanted if (info := read_info(path)) is not None]
        recalls = [info.recall for info in infos] or [float("nan")]
        report = IndexReport(
            len(infos),
            built,
            removed,
            sum(info.vectors for info in infos),
            float(np.mean(recalls)),
            min(recalls),
            time.monotonic() - began,
        )
        yield Note(report.describe())
        return report

    def _build_parts(self, files: Sequence[Path]) -> Job[tuple[int, set[Path]]]:
        """Build the parts that are missing; return their number, and all that fit.

        Each part is built by one thread: a graph to which several add at once differs
        from run to run.
        """
        probes, stopped, wanted = Probes(), threading.Event(), set[Path]()
        built = 0

        def one(file: Path) -> tuple[Path, bool] | FeatureError:
            try:
                path = self.path_of(file)
                if read_info(path) is not None:
                    return path, False
                return path, self._build_part(file, path, probes, stopped)
            except FeatureError as error:
                return error

        coming = Prefetcher(one, _THREADS, "index")
        try:
            for file in files:
                coming.add(file)
            for number in range(len(files)):
                file, future = coming.take()
                progress = Progress("Indexing slides", number, len(files), "slides")
                yield progress
                while not wait([future], timeout=_POLL_S).done:
                    yield progress
                result = future.result()
                if isinstance(result, FeatureError):
                    yield Note(f"{file.name}: {result.what}, not indexed", "warning")
                    continue
                wanted.add(result[0])
                built += result[1]
        finally:
            stopped.set()
            coming.close(wait=True)
        return built, wanted

    def _build_part(
        self, file: Path, path: Path, probes: Probes, stopped: threading.Event
    ) -> bool:
        """Index one file; return whether it has a part, and is not searched exactly."""
        features = MappedFeatures(file)
        if fingerprint_of(features.encoder) != self.encoder:
            return False
        rows = np.flatnonzero(features.ok)
        if len(rows) < LEAST_ROWS:
            return False
        check = probes.begin(features, rows, self.neighbourhood)
        graph = new_graph(features.dim)
        for inside, index, block in blocks(features, self.neighbourhood):
            if stopped.is_set():
                return False
            valid = index.valid[inside]
            units = index.units(inside[valid].tolist())
            graph.add(block[valid], units, threads=1, copy=True)
            check.see(block[valid], units)
        found = check.widen(graph)
        if found is None:
            return False
        info = _describe(features, len(graph), *found)
        self.folder.mkdir(parents=True, exist_ok=True)
        # The graph last: a part exists once it is there, and then it is whole.
        write_json(path.with_suffix(".json"), asdict(info))
        with atomic_path(path) as part:
            graph.save(str(part))
        return True


def default_folder(source: Path) -> Path:
    """Return the folder of the index of a folder of features, or of a project.

    Parameters
    ----------
    source : Path
        The folder, or the project file.

    Returns
    -------
    Path
        It need not exist.
    """
    return (source if source.is_dir() else source.parent) / FOLDER


def read_info(path: Path) -> PartInfo | None:
    """Read what is known of a part.

    Parameters
    ----------
    path : Path
        The part's graph.

    Returns
    -------
    PartInfo or None
        None where the part does not exist, or its description is damaged.
    """
    if not path.is_file():
        return None
    try:
        content: Mapping[str, Any] = json.loads(
            path.with_suffix(".json").read_text(encoding="utf-8")
        )
        return PartInfo(**{one.name: content[one.name] for one in fields(PartInfo)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _describe(
    features: MappedFeatures, vectors: int, expansion: int, recall: float
) -> PartInfo:
    grid = features.grid
    step, mpp = grid.patch_size_level0, grid.slide["mpp"]
    return PartInfo(
        str(grid.slide.get("name", slide_of(features.path))),
        str(grid.slide.get("fingerprint", "")),
        len(features),
        vectors,
        step[0] * mpp[0] * step[1] * mpp[1] / 1e6,
        expansion,
        recall,
    )


def _remove_others(folder: Path, wanted: set[Path]) -> int:
    """Remove the parts that no present file has, and what killed processes left."""
    removed = 0
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        if path.name.startswith("."):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
        elif path not in wanted:
            with suppress(OSError):
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)
                removed += 1
    return removed
