from napari_mcm.core.features.batch_extraction import ExtractResult as ExtractResult
from napari_mcm.core.features.batch_extraction import extract_slides as extract_slides
from napari_mcm.core.features.config import ExtractConfig as ExtractConfig
from napari_mcm.core.features.extraction import extract as extract
from napari_mcm.core.features.feature_set import FeatureSet as FeatureSet
from napari_mcm.core.features.feature_set import Status as Status
from napari_mcm.core.features.format import feature_path as feature_path
from napari_mcm.core.features.neighbourhood import (
    NeighbourhoodConfig as NeighbourhoodConfig,
)
from napari_mcm.core.features.neighbourhood import (
    average_neighbourhood as average_neighbourhood,
)
from napari_mcm.core.features.reading import read_features as read_features
