"""Write a registered protocol as a ``study.json`` over the data on this machine.

    python -m benchmarks.studies.prepare glas --data ../shared/data --out ~/studies
    napari-mcm study ~/studies/glas/study.json

The options that all protocols share, the rates among them, are in ``arms.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_mcm.core.errors import ConfigError
from napari_mcm.core.runtime.files import write_json
from napari_mcm.core.studies.study_config import StudyConfig, arm_config
from napari_mcm.core.training.options import merge_preset

HERE = Path(__file__).parent
PROTOCOLS = ("glas", "her2st", "click-crc", "click-her2st")
HER2ST = {
    "C2": "her2st_C2.svs",
    "C3": "her2st_C3.tiff",
    "C4": "her2st_C4.ome.tiff",
    "C5": "her2st_C5_dicom",
}
CRC = {f"crc_section{n}": f"crc_section{n}.ome.tiff" for n in (1, 2, 3)}


def prepare(name: str, data: Path, out: Path) -> StudyConfig:
    """Make the study of a protocol, and check the options of all its arms."""
    protocol = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    content = with_arms(
        protocol["study"], protocol["arms"], protocol.get("options", {})
    )
    content["out"] = str(out.resolve() / name)
    content |= slides_of(name, protocol, data.resolve())
    study = StudyConfig.model_validate(content)
    for arm in study.arms:
        arm_config(study, arm, 0, (), None)
    return study


def with_arms(
    study: Mapping[str, Any],
    names: Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Add the shared options, and those of some arms, to a protocol's study.

    `options` are the protocol's own for an arm, over the shared ones.
    """
    shared = json.loads((HERE / "arms.json").read_text(encoding="utf-8"))
    against = {
        arm: [c for c in ([found] if isinstance(found, str) else found) if c in names]
        for arm, found in shared["against"].items()
        if arm in names
    }
    return {
        **study,
        "base": merge_preset(shared["base"], study.get("base", {})),
        "arms": {
            arm: merge_preset(
                shared["arms"][arm],
                {"options": options[arm]} if options and arm in options else {},
            )
            for arm in names
        },
        "against": {arm: found for arm, found in against.items() if found},
    }


def slides_of(name: str, protocol: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """Find the slides, labels and serial sections of a protocol."""
    if name == "glas":
        return {"slides": glas_slides(data / "patches" / "glas", protocol["patients"])}
    if name == "her2st":
        folder = data / "slides" / "her2st"
        slides = [
            {
                "slide": str(folder / file),
                "labels": str(folder / f"{section}_regions.geojson"),
                "fold": section,
            }
            for section, file in HER2ST.items()
        ]
        return {"slides": slides}
    files = {k: data / "slides" / "her2st" / v for k, v in HER2ST.items()}
    files |= {k: data / "slides" / "crc_sections" / v for k, v in CRC.items()}
    return {
        "slides": [{"slide": str(files[one])} for one in protocol["train"]],
        "serial": [
            {"first": str(files[first]), "second": str(files[second])}
            for first, second in protocol["serial"]
        ],
    }


def glas_slides(
    folder: Path, patients: Mapping[str, Sequence[str]]
) -> list[dict[str, str]]:
    """List the images of GlaS with class, patient and fold.

    Raises
    ------
    ConfigError
        If a patient is in no fold.
    """
    fold_of = {patient: fold for fold, group in patients.items() for patient in group}
    slides = []
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            if row["patient"] not in fold_of:
                raise ConfigError(f"patient {row['patient']} is in no fold", folder)
            slides.append(
                {
                    "slide": str(folder / "images" / row["image"]),
                    "label": row["label"],
                    "patient": row["patient"],
                    "fold": fold_of[row["patient"]],
                }
            )
    return slides


def main() -> None:
    """Write ``study.json`` and say how to run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", choices=PROTOCOLS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    study = prepare(given.protocol, given.data, given.out)
    assert study.out is not None
    file = study.out / "protocol.json"
    write_json(file, study.model_dump(mode="json"))
    print(f"napari-mcm study {file}")


if __name__ == "__main__":
    main()
