"""Slide classification from patch features by multiple-instance learning.

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
