from napari_mcm.core.evaluation.config import EvaluateConfig as EvaluateConfig
from napari_mcm.core.evaluation.config import ProtocolConfig as ProtocolConfig
from napari_mcm.core.evaluation.dataset import LabelledPatches as LabelledPatches
from napari_mcm.core.evaluation.evaluate import evaluate as evaluate
from napari_mcm.core.evaluation.probe_callback import HeldOutProbe as HeldOutProbe
from napari_mcm.core.evaluation.probe_callback import read_probe as read_probe
from napari_mcm.core.evaluation.result import Evaluation as Evaluation
