from napari_mcm.core.encoders.compute import ComputeConfig as ComputeConfig
from napari_mcm.core.encoders.encoder import Encoder as Encoder
from napari_mcm.core.encoders.export import save_encoder as save_encoder
from napari_mcm.core.encoders.load import load_encoder as load_encoder
from napari_mcm.core.encoders.load import load_encoders as load_encoders
