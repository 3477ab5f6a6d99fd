"""Is this encoder better than that one? Measures on labelled patches, with intervals."""

import lazy_loader

# Options can be read without scikit-learn and torch, which take seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["EvaluateConfig", "ProtocolConfig"],
        "evaluate": ["evaluate"],
        "probe_callback": ["HeldOutProbe", "read_probe"],
        "dataset": ["LabelledPatches"],
        "result": ["Evaluation"],
    },
)
