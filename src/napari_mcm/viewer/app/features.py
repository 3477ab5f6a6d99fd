"""The long jobs that the widgets start, ready to be handed to the job runner."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mcm.core.errors import FeatureError
from napari_mcm.core.runtime.jobs import Job
from napari_mcm.core.runtime.threads import run_in_thread
from napari_mcm.core.slides.slide import slide_name
from napari_mcm.viewer.app.commands import reserve_gui_core
from napari_mcm.viewer.app.out_of_memory import PATCHES, explain_out_of_memory

if TYPE_CHECKING:
    from napari_mcm.core.encoders.compute import ComputeConfig
    from napari_mcm.core.features.config import ExtractConfig
    from napari_mcm.core.grid import GridConfig
    from napari_mcm.core.heatmaps import SimilarityIndex
    from napari_mcm.core.slides import Slide
    from napari_mcm.core.tissue import TissueMask


@dataclass(frozen=True, eq=False)
class Loaded:
    """Features of a slide, ready to be asked.

    Attributes
    ----------
    label : str
        The encoder, for people.
    index : SimilarityIndex
        The normalised features.
    path : Path
        The feature file.
    limits : tuple of float
        Between which most similarities of this encoder lie on this slide.
    """

    label: str
    index: SimilarityIndex
    path: Path
    limits: tuple[float, float] = (-1.0, 1.0)

    def describe(self) -> str:
        """Say it in one line: ``520 patches of 112 µm, 1,280 features each``."""
        features = self.index.features
        patches, um = len(features), features.grid.patch_um
        return (
            f"{patches:,} patches of {um:.3g}\u00a0µm, {features.dim:,} features each"
        )


@dataclass(frozen=True)
class FeatureRequest:
    """Which features are wanted of which slide.

    Attributes
    ----------
    slide : Path
        The slide.
    mpp : float or None
        What the user stated of its resolution.
    encoder, label : str
        The encoder as :func:`load_encoder` takes it, and for people.
    grid : GridConfig
        How patches are laid.
    out : Path
        Folder for the feature file.
    overwrite : bool
        Replace a file that was made with other options.
    mask : TissueMask or None
        Tissue as somebody drew it; None has it searched for.
    compute : ComputeConfig or None
        Device and precision; by default what is fast here.
    beside : bool
        Keep a file that was made with other options, and write beside it.
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
        """The same as the command line takes it."""
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
        """Where a mask is kept, beside the features that are made with it."""
        return self.out / f"{slide_name(self.slide)}.tissue.png"

    def keep_mask(self) -> None:
        """Write the mask, to the pixel; nothing where there is none."""
        from napari_mcm.core.slides import open_slide
        from napari_mcm.core.tissue import write_mask

        if self.mask is not None:
            with open_slide(self.slide, self.mpp) as slide:
                write_mask(self.mask_file, self.mask, slide)


def find_mask(slide: Slide) -> Job[TissueMask]:
    """Search a slide for tissue.

    Parameters
    ----------
    slide : Slide
        Open, with a known resolution.
    """
    from napari_mcm.core.tissue import find_tissue
    from napari_mcm.viewer.layers.overlays import warm_up

    mask = yield from run_in_thread("Finding tissue", find_tissue, slide)
    yield from run_in_thread("Showing the mask", warm_up)
    return mask


def compute_features(request: FeatureRequest) -> Job[Loaded]:
    """Find tissue, lay the grid, extract, and make the features ready."""
    # PyTorch takes seconds to import: apart, so that a cancel acts at once.
    for module in ("torch", "timm", "napari_mcm.core.features"):
        features = yield from run_in_thread(
            "Starting PyTorch", importlib.import_module, module
        )
    yield from run_in_thread("Saving the mask", request.keep_mask)
    config = reserve_gui_core(request.config)
    with explain_out_of_memory(PATCHES, config, config.out):
        result = yield from features.extract_slides(config)
    if not result.files:
        raise FeatureError("; ".join(result.failed) or "no patches were extracted")
    return (
        yield from load_features(
            result.files[0], request.slide, request.mpp, request.label
        )
    )


def load_features(
    path: Path, slide: Path, mpp: float | None = None, label: str = ""
) -> Job[Loaded]:
    """Read a feature file and make it ready.

    Parameters
    ----------
    path : Path
        A ``.features.zarr``, or a file of another tool that the command line's
        ``convert`` reads.
    slide : Path
        The slide that it must be of.
    mpp : float, optional
        What the user stated of the slide's resolution.
    label : str
        The encoder, for people; by default what the file says.

    Raises
    ------
    FeatureError
        If the file is damaged, or of another slide.
    """
    features = yield from run_in_thread("Reading features", _read, path, slide, mpp)
    if not len(features):
        raise FeatureError(
            "holds no patches: no tissue was found",
            path,
            "Check the tissue mask, or use smaller patches",
        )
    from napari_mcm.core.heatmaps import SimilarityIndex, usual_range

    index = yield from run_in_thread("Normalising features", SimilarityIndex, features)
    limits = yield from run_in_thread(
        "Measuring the range of similarities", usual_range, index
    )
    return Loaded(label or _name(features.encoder, path), index, path, limits)


def _read(path: Path, slide: Path, mpp: float | None) -> Any:
    from napari_mcm.core.features.interchange import read_foreign
    from napari_mcm.core.slides import open_slide

    with open_slide(slide, mpp) as opened:
        # Another tool's file knows no slide: it is taken for this one's, if it fits.
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
    return str(encoder.get("spec") or encoder.get("architecture") or path.parent.name)


SLOTS = ("first", "second", "third")
"""Places for encoders that are compared; the same query is asked of each."""
