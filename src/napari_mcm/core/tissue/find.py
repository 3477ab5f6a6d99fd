"""The tissue of a slide: from a mask drawn by hand, or else found automatically."""

from __future__ import annotations

from pathlib import Path

from napari_mcm.core.errors import GridError
from napari_mcm.core.slides import Slide
from napari_mcm.core.tissue.files import ENDINGS, read_mask
from napari_mcm.core.tissue.mask import TissueConfig, TissueMask
from napari_mcm.core.tissue.search import search


def find_tissue(slide: Slide, config: TissueConfig | None = None) -> TissueMask:
    """Find the tissue on a slide, or read the mask that was drawn by hand.

    See :func:`~napari_mcm.core.tissue.search.search` for the algorithm.

    Parameters
    ----------
    slide : Slide
        With a known resolution.
    config : TissueConfig, optional
        Resolution of the mask, sizes of what is removed and filled, and where masks
        drawn by hand lie.

    Returns
    -------
    TissueMask
        All False where there is no tissue.

    Raises
    ------
    GridError
        If a mask drawn by hand is missing, damaged or of another slide.
    SlideError
        If the slide's resolution is unknown.
    """
    config = config or TissueConfig()
    drawn = config.masks and drawn_mask(config.masks, slide)
    if drawn:
        return read_mask(drawn, slide, config.tissue_mpp)
    # A thumbnail's pixels are not exactly of this size: `mpp` is what they are.
    rgb, mpp = slide.thumbnail(config.tissue_mpp)
    mask = search(rgb, mpp, config)
    height, width = mask.shape
    return TissueMask(mask, (slide.size[0] / width, slide.size[1] / height))


def drawn_mask(masks: Path, slide: Slide) -> Path | None:
    """Return the file that holds a slide's mask.

    Parameters
    ----------
    masks : Path
        Folder of masks, or one file.
    slide : Slide
        Its name selects the file.

    Returns
    -------
    Path or None
        None where a folder holds no mask of the slide.

    Raises
    ------
    GridError
        If the folder or file does not exist, or holds two masks of the slide.
    """
    if not masks.exists():
        raise GridError("no such folder or file of masks", masks, "Check --masks")
    if not masks.is_dir():
        return masks
    found = [p for p in (masks / f"{slide.name}{e}" for e in ENDINGS) if p.is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise GridError(f"holds two masks of one slide, {names}", masks, "Keep one")
    return found[0] if found else None
