"""Going on with a run: what the verbs that train have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from napari_mcm.core.errors import ConfigError

RESUME: Any = Field(
    None,
    description="Directory of a run to go on with; its options stay as they are.",
)


def run_to_resume(options: Any) -> Path | None:
    """Give the run that a line with ``resume`` names, None where it starts a new one.

    Raises
    ------
    ConfigError
        If the line names other options as well.
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
