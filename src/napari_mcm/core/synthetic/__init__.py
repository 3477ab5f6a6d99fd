"""The generated cohort: whole-slide images with a known ground truth, without any data.

::

    from napari_mcm.core.runtime.jobs import run
    from napari_mcm.core.synthetic import SampleConfig, generate_cohort

    cohort = run(generate_cohort(folder, SampleConfig(slides=4, size=2000)))
"""

from napari_mcm.core.synthetic.cohort import Cohort, SampleConfig, generate_cohort

__all__ = ["Cohort", "SampleConfig", "generate_cohort"]
