"""Register two serial sections, and carry annotations from the first to the second.

Sections that do not correspond are refused. The error is measured on tissue that the fit
left out, and on the outlines of the tissue.
"""

from __future__ import annotations

from napari_mcm.cli.drive import drive
from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.sections import RegisterConfig, RegisterResult, register_slides

OPTIONS, POSITIONAL = RegisterConfig, "slides"


def run(options: RegisterConfig) -> Outcome:
    """Register the slides, and carry files over."""
    return _outcome(drive(register_slides(options)))


def _outcome(done: RegisterResult) -> Outcome:
    found = done.registration
    turned = f"{found.angle_deg:.1f}°{', mirrored' if found.mirrored else ''}"
    rows = [
        ("sections", f"{found.first['name']} to {found.second['name']}"),
        ("turned", turned),
        ("error", found.residual.describe()),
        ("error on edges", found.edges.describe()),
        ("overlap", f"{found.overlap:.0%} of the first section's tissue"),
    ]
    rows += [("carried", f"{one.describe()}: {one.path}") for one in done.carried]
    rows += [("file", str(path)) for path in done.files]
    result = {
        "registration": found.describe(),
        "files": done.files,
        "carried": [
            {
                "file": one.source,
                "out": one.path,
                "placed": one.states.count("placed"),
                "left_out": [vars(left) for left in one.left_out],
            }
            for one in done.carried
        ],
    }
    return Outcome(result, table(rows))
