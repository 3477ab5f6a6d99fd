"""Check that feature files are complete, undamaged, and of the slides they name.

Everything in a file is read and checked: its schema, checksums, lengths and ranges, and
its identity against its content. Files are never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome
from napari_mcm.core.errors import ConfigError
from napari_mcm.core.features.verify import Verdict, VerifyConfig, verify_files
from napari_mcm.core.slides.find import find_slides

OPTIONS, POSITIONAL = VerifyConfig, "files"


def run(options: VerifyConfig) -> Outcome:
    """Verify each file."""
    if options.slide is not None and options.slides:
        raise ConfigError(
            "cannot be given with --slides", "--slide", "Give one of them"
        )
    config = options.model_copy(update={"slides": find_slides(options.slides)})
    verdicts = drive(verify_files(config))
    return Outcome(
        {"files": [_described(verdict) for verdict in verdicts], **_counts(verdicts)},
        [str(verdict) for verdict in verdicts if verdict.state == "ok"],
        [str(verdict) for verdict in verdicts if verdict.state != "ok"],
    )


def _described(verdict: Verdict) -> dict[str, Any]:
    contents = verdict.contents
    return {
        "file": verdict.file,
        "state": verdict.state,
        "what": verdict.what,
        "rows": contents.rows if contents else None,
        "done": contents.done if contents else None,
        "checksums": contents.checksums if contents else None,
    }


def _counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    states = [verdict.state for verdict in verdicts]
    return {"verified": len(states), "failed": len(states) - states.count("ok")}
