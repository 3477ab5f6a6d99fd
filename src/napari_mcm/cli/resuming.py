"""The option ``--resume``, shared by the verbs that train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from napari_mcm.core.errors import ConfigError

RESUME: Any = Field(
    None,
    description="Directory of a run to resume. The run keeps its options.",
)


def run_to_resume(options: Any) -> Path | None:
    """Return the folder of the run to resume, or None to start a new run.

    Parameters
    ----------
    options : BaseModel
        Options of a verb with a field ``resume``.

    Raises
    ------
    ConfigError
        If other options are given as well.
    """
    resume: Path | None = options.resume
    if resume is None:
        return None
    others = sorted(options.model_fields_set - {"resume"})
    if others:
        raise ConfigError(
            "takes no other options: the run has its own",
            "--resume",
            f"Leave out {', '.join(others)}",
        )
    return resume
