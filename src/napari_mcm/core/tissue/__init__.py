"""Where the tissue is: found on a thumbnail, or drawn by hand and read from a file."""

from napari_mcm.core.tissue.files import read_mask, write_mask
from napari_mcm.core.tissue.find import find_tissue
from napari_mcm.core.tissue.mask import TissueConfig, TissueMask

__all__ = ["TissueConfig", "TissueMask", "find_tissue", "read_mask", "write_mask"]
