"""Jobs that find tissue, compute features and load feature files for the open slide."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.errors import FeatureError, McmError
from napari_mcm.core.features.feature_set import PATCH_ALONE, NeighbourhoodConfig
from napari_mcm.core.heatmaps import SimilarityIndex, usual_range
from napari_mcm.core.heatmaps.config import DEFAULT_RADIUS
from napari_mcm.core.heatmaps.similarity import has_usual_range
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.runtime.overall import Stages, portion
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.slides.paths import slide_name
from napari_mcm.viewer.app.commands import reserve_gui_core
from napari_mcm.viewer.app.imports import EXTRACTING, import_modules
from napari_mcm.viewer.app.out_of_memory import PATCHES, explain_out_of_memory

if TYPE_CHECKING:
    from napari_mcm.core.encoders.compute import ComputeConfig
    from napari_mcm.core.features.config import ExtractConfig
    from napari_mcm.core.grid import GridConfig
    from napari_mcm.core.slides import Slide
    from napari_mcm.core.tissue import TissueMask


STARTING, LOADING = 0.1, 0.05
"""Shares of a job that starting PyTorch and loading the features take."""


@dataclass(frozen=True, eq=False)
class LoadedFeatures:
    """Features of a slide in memory, ready for similarity queries.

    Attributes
    ----------
    label : str
        Display name of the encoder.
    index : SimilarityIndex
        Normalised features of all patches.
    path : Path
        The feature file.
    warning : str
        Says that this slide is in the training set of the encoder; "" where it is
        not, or nothing is known.
    """

    label: str
    index: SimilarityIndex
    path: Path
    warning: str = ""

    def describe(self) -> str:
        """Summarise in one line: ``520 patches of 112 µm, 1,280 features each``."""
        features = self.index.features
        patches, um = len(features), features.grid.patch_um
        return (
            f"{patches:,} patches of {um:.3g}\u00a0µm, {features.dim:,} features each"
        )

    def index_at(self, neighbourhood: NeighbourhoodConfig) -> SimilarityIndex:
        """Return the index for queries with a neighbourhood.

        Parameters
        ----------
        neighbourhood : NeighbourhoodConfig
            Ignored where the features are averages already.
        """
        return self.index.at(self._effective(neighbourhood))

    def is_ready(self, neighbourhood: NeighbourhoodConfig) -> bool:
        """Return whether queries with a neighbourhood need no preparation.

        Parameters
        ----------
        neighbourhood : NeighbourhoodConfig
            The neighbourhood.
        """
        effective = self._effective(neighbourhood)
        if not effective.radius:
            return True
        return self.index.is_prepared(effective) and has_usual_range(
            self.index.at(effective)
        )

    def prepare(self, neighbourhood: NeighbourhoodConfig) -> Job[None]:
        """Prepare queries with a neighbourhood: its averages and range of colours.

        Parameters
        ----------
        neighbourhood : NeighbourhoodConfig
            The neighbourhood.
        """
        effective = self._effective(neighbourhood)
        index = yield from self.index.prepare(effective)
        yield from run_in_thread(
            "Measuring the range of similarities", usual_range, index
        )

    def _effective(self, neighbourhood: NeighbourhoodConfig) -> NeighbourhoodConfig:
        averaged = self.index.features.neighbourhood.radius
        return PATCH_ALONE if averaged else neighbourhood


@dataclass(frozen=True)
class FeatureRequest:
    """A request to compute the features of one slide.

    Attributes
    ----------
    slide : Path
        File or folder of the slide.
    mpp : float or None
        Microns per level-0 pixel that the user entered; None to use the file's.
    encoder, label : str
        The encoder as :func:`load_encoder` takes it, and its display name.
    grid : GridConfig
        Resolution, size and minimum tissue fraction of patches.
    out : Path
        Folder for the feature file.
    overwrite : bool
        Whether to replace a file that was made with other options.
    mask : TissueMask or None
        Mask that the user drew; None to find tissue automatically.
    compute : ComputeConfig or None
        Device and precision; None to choose them for this machine.
    beside : bool
        Whether to keep a file that was made with other options, and write another one
        beside it.
    """

    slide: Path
    mpp: float | None
    encoder: str
    label: str
    grid: GridConfig
    out: Path
    overwrite: bool = False
    mask: TissueMask | None = None
    compute: ComputeConfig | None = None
    beside: bool = False

    @property
    def config(self) -> ExtractConfig:
        """The request as the options of the verb ``extract``."""
        from napari_mcm.core.encoders.compute import ComputeConfig
        from napari_mcm.core.features.config import ExtractConfig
        from napari_mcm.core.slides import ReadConfig
        from napari_mcm.core.tissue import TissueConfig

        return ExtractConfig(
            slides=(self.slide,),
            read=ReadConfig(mpp_override=self.mpp),
            encoder=(self.encoder,),
            grid=self.grid,
            tissue=TissueConfig(masks=self.mask_file if self.mask else None),
            compute=self.compute or ComputeConfig(),
            compile="off",  # it needs Triton, see libraries.py
            out=self.out,
            overwrite=self.overwrite,
            beside=self.beside,
        )

    @property
    def mask_file(self) -> Path:
        """File of the drawn mask, beside the features that are computed with it."""
        return self.out / f"{slide_name(self.slide)}.tissue.png"

    def save_mask(self) -> None:
        """Write the drawn mask without loss; do nothing if there is none."""
        from napari_mcm.core.slides import open_slide
        from napari_mcm.core.tissue import write_mask

        if self.mask is not None:
            with open_slide(self.slide, self.mpp) as slide:
                write_mask(self.mask_file, self.mask, slide)


def find_mask(slide: Slide) -> Job[TissueMask]:
    """Find the tissue of a slide.

    Parameters
    ----------
    slide : Slide
        An open slide with a known resolution.
    """
    from napari_mcm.core.tissue import find_tissue
    from napari_mcm.viewer.layers.overlays import prepare_labels

    mask = yield from run_in_thread("Finding tissue", find_tissue, slide)
    yield from run_in_thread("Showing the mask", prepare_labels)
    return mask


def compute_features(request: FeatureRequest) -> Job[LoadedFeatures]:
    """Extract the features of a slide and load them."""
    yield from run_in_thread("Saving the mask", request.save_mask)
    existing = yield from run_in_thread("Looking for features", _finished, request)
    if existing is not None:
        return (
            yield from load_features(
                existing, request.slide, request.mpp, request.label
            )
        )
    starting = 0.0 if "torch" in sys.modules else STARTING
    features = yield from portion(import_modules(EXTRACTING), 0.0, starting)
    config = reserve_gui_core(request.config)
    with explain_out_of_memory(PATCHES, config, config.out):
        extracting = features.extract_slides(config)
        result = yield from portion(extracting, starting, 1.0 - LOADING)
    if not result.files:
        raise FeatureError("; ".join(result.failed) or "no patches were extracted")
    loading = load_features(result.files[0], request.slide, request.mpp, request.label)
    return (yield from portion(loading, 1.0 - LOADING, 1.0))


def _finished(request: FeatureRequest) -> Path | None:
    """Return the file that was made by the same request; it needs no PyTorch."""
    from napari_mcm.core.features.lookup import find_finished_file

    # What is wrong with slide or mask is what the extraction says then.
    with suppress(McmError):
        return find_finished_file(request.config)
    return None


def load_features(
    path: Path, slide: Path, mpp: float | None = None, label: str = ""
) -> Job[LoadedFeatures]:
    """Load a feature file for similarity queries.

    Parameters
    ----------
    path : Path
        A ``.features.zarr``, or a file of another tool that the verb ``convert`` reads.
    slide : Path
        The slide that the features must belong to.
    mpp : float, optional
        Microns per level-0 pixel of the slide that the user entered.
    label : str
        Display name of the encoder; by default the name in the file.

    Raises
    ------
    FeatureError
        If the file is damaged, has no patches, or belongs to another slide.
    """
    features = yield from run_in_thread("Reading features", _read, path, slide, mpp)
    if not len(features):
        raise FeatureError(
            "holds no patches: no tissue was found",
            path,
            "Check the tissue mask, or use smaller patches",
        )
    from napari_mcm.core.encoders.learned_from import warn_of_seen

    name = label or _name(features.encoder, path)
    # In a thread: of an older run, its slides are opened to know them.
    warning = yield from run_in_thread(
        "Reading features",
        lambda: warn_of_seen(features.encoder, [features.grid.slide], name),
    )
    index = yield from run_in_thread("Normalising features", SimilarityIndex, features)
    loaded = LoadedFeatures(name, index, path, warning)
    # Other neighbourhoods are prepared in the background, once these can be queried.
    radii = dict.fromkeys((DEFAULT_RADIUS, 0))
    stages = Stages(*[1.0] * len(radii))
    for radius in radii:
        preparing = loaded.prepare(NeighbourhoodConfig(radius=radius))
        yield from stages.next(preparing)
    return loaded


def _read(path: Path, slide: Path, mpp: float | None) -> Any:
    from napari_mcm.core.features.interchange import read_foreign
    from napari_mcm.core.slides import open_slide

    with open_slide(slide, mpp) as opened:
        # Files of other tools do not name their slide: they are accepted if they fit.
        features = read_foreign(path, slide=opened)
        same = features.grid.slide.get("fingerprint") == opened.fingerprint
    if not same:
        raise FeatureError(
            f"holds features of another slide ({features.grid.slide.get('name')}), "
            f"not of {slide.name}",
            path,
            "Load the file that belongs to this slide, or compute features",
        )
    return features


def _name(encoder: dict[str, Any], path: Path) -> str:
    return encoder_label(
        str(encoder.get("spec") or encoder.get("architecture") or path.parent.name)
    )


def encoder_label(spec: str) -> str:
    """Return a display name for an encoder: the folder of a run, or the model's name.

    Parameters
    ----------
    spec : str
        The encoder as the user named it.
    """
    path = Path(spec)
    if not path.exists():
        return spec.removeprefix("offline:").removeprefix("hf-hub:")
    path = path.resolve()
    if path.is_file():
        path = path.parent
    return path.parent.name if path.name == "encoder" else path.name


SLOTS = ("first", "second", "third")
"""Slots for the features of up to three encoders, which answer the same query."""
