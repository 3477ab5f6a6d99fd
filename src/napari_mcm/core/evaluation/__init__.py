"""Evaluation of encoders on labelled patches: probes, similarity and geometry, with intervals.

Is this encoder better than that one? Groups (patients or slides) are left out in turn,
and the patches of each are scored by a classifier trained on the others: a linear
probe, k nearest neighbours, or a few-shot probe on k labels per class. Similarity takes
each patch as a query, ranks the candidates by cosine similarity, and measures how well
this separates the query's class. Every measure is a mean of contributions, so that
bootstrap resamples of groups, shared by all encoders, give intervals of values and of
paired differences::

    AUROC       = mean over groups g of P( score(positive) > score(negative) | g )
    interval    = percentiles over b of  value + Σ_u (n_bu - 1) · influence_u
    difference  = value(encoder) - value(reference), on the same resamples
"""

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
