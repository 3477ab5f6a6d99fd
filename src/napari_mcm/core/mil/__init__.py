"""Slide classification from patch features by multiple-instance learning (MIL).

A slide is a bag of N patches with features x_n of a frozen encoder; only the slide has
a label. An aggregator projects the features to h_n, weights each patch by attention a_n
and classifies their weighted mean (Ilse et al., ICML 2018)::

    h_n = ReLU(W x_n)
    a_n = softmax_n( w^T (tanh(V h_n) * sigmoid(U h_n)) )
    p   = softmax( C Σ_n a_n h_n )

It is trained by cross-entropy on the folds of a cohort. No patient is in two parts of a
fold, and the validation loss ends training. Mean and max pooling, CLAM, TransMIL and
DSMIL share the interface. Metrics are computed per fold and pooled, with bootstrap
intervals.

::

    from pathlib import Path

    from napari_mcm.core.runtime.jobs import run
    from napari_mcm.core.mil import MilConfig
    from napari_mcm.core.mil.train import train

    config = MilConfig(cohort=Path("cohort.csv"), features=Path("features"),
                       out=Path("runs/abmil"))
    result = run(train(config))
"""

from napari_mcm.core.mil.config import AggregatorConfig, MilConfig, TrainingConfig

__all__ = ["AggregatorConfig", "MilConfig", "TrainingConfig"]
