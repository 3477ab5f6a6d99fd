"""What every training shares: options, run directory, loop, trainer, monitor, schedules.

A method derives its options from `options.TrainingOptions`, its steps from `trainer.Trainer`
and its loop from `loop.Loop`. `images` has both for trainings on single images, and
`distributed` joins several processes.
"""

import lazy_loader

# Options can be read without torch, which takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"run": ["Run"], "schedule": ["warmup_cosine"]},
)
