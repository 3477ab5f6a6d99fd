from napari_mcm.core.evaluation.config import EvaluateConfig as EvaluateConfig
from napari_mcm.core.evaluation.config import ProtocolConfig as ProtocolConfig
from napari_mcm.core.evaluation.evaluate import evaluate as evaluate
from napari_mcm.core.evaluation.held_out import HeldOutProbe as HeldOutProbe
from napari_mcm.core.evaluation.held_out import read_probe as read_probe
from napari_mcm.core.evaluation.labelled import LabelledPatches as LabelledPatches
from napari_mcm.core.evaluation.result import Evaluation as Evaluation
