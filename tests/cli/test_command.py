"""What a window copies is what the command line reads: the very same options."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from pydantic import BaseModel

from napari_mcm.cli.app import load_verb, make_parser
from napari_mcm.cli.options import read_config
from napari_mcm.core.features.config import ExtractConfig
from napari_mcm.core.features.feature_set import NeighbourhoodConfig
from napari_mcm.core.grid import GridOptions
from napari_mcm.core.heatmaps.config import SimilarityConfig
from napari_mcm.core.labelling.config import (
    ClassifierConfig,
    ClassifyPatchesConfig,
    TrainPatchesConfig,
)
from napari_mcm.core.mae.config import ReconstructConfig
from napari_mcm.core.mcm.config import FinetuneConfig
from napari_mcm.core.mil.config import AttentionConfig, MilConfig, PredictConfig
from napari_mcm.core.runtime.command import Command

CONFIGS: list[tuple[str, BaseModel]] = [
    ("extract", ExtractConfig()),
    (
        "extract",
        ExtractConfig(
            slides=(Path("a slide's name.svs"), Path("-odd.svs")),
            encoder=("resnet18", "runs/it's mine"),
            out=Path("-out"),
            grid={"mpp": 0.25, "min_tissue": 0.05, "allow_upsampling": True},
            compute={"device": "cuda:1", "threads": 3},
            compile="off",
            overwrite=True,
        ),
    ),
    ("finetune", FinetuneConfig(slides=(Path("slides"),), out=Path("run"))),
    (
        "finetune",
        FinetuneConfig(
            preset="paper",
            slides=(Path("/a/b c.svs"), Path("$HOME.svs")),
            context={"s": 6, "mask_ratio": 0.75},
            optimiser={"batch_norm": "frozen", "student_lr": 3e-5, "flips": False},
            held_out={"validation": 0.2},
            chunk_windows=2,
            tissue={"masks": Path("napari-mcm")},
        ),
    ),
    (
        "mil train",
        MilConfig(
            cohort=Path("cohort of 60.csv"),
            features=Path("features"),
            seeds=3,
            aggregator={"model": "clam_mb", "subtyping": True},
            training={"max_patches": None, "balanced": False, "lr": 2e-3},
        ),
    ),
    (
        "grid",
        GridOptions(
            slide=Path("-a slide.svs"),
            tissue_out=Path("mask of it.geojson"),
            grid={"mpp": 1.0, "patch_size": 64},
            read={"mpp_override": 0.3},
        ),
    ),
    (
        "similarity",
        SimilarityConfig(
            features=Path("some of.features.zarr"),
            query=Path("q.query.json"),
            out=Path("map.png"),
            slide=Path("a.svs"),
            limits="robust",
        ),
    ),
    (
        "similarity",
        SimilarityConfig(
            features=Path("a.features.zarr"),
            at=((1.5, -2.0), (3, 4)),
            not_at=((5, 6),),
            above=-0.25,
            out=Path("map.geojson"),
        ),
    ),
    (
        "mil attention",
        AttentionConfig(
            run=Path("run"),
            slide="a b.svs",
            features=Path("features"),
            out=Path("out"),
            class_name="tumour, left",
            compute={"precision": "auto"},
        ),
    ),
    (
        "mil predict",
        PredictConfig(run=Path("run"), features=Path("features"), out=Path("p.csv")),
    ),
    (
        "classify patches",
        ClassifyPatchesConfig(
            classifier=Path("a b.safetensors"),
            features=(Path("one"), Path("-two")),
            out=Path("areas"),
            write=("csv", "ome-tiff"),
            unsure_below=0.7,
        ),
    ),
    (
        "labels train",
        TrainPatchesConfig(
            labels=Path("a.labels.json"),
            features=(Path("features"),),
            out=Path("a.safetensors"),
            classifier=ClassifierConfig(neighbourhood=NeighbourhoodConfig(radius=2)),
        ),
    ),
    (
        "mae reconstruct",
        ReconstructConfig(
            paths=(Path("run"), Path("-a picture.png")),
            mask_ratio=(0.6,),
            paste=False,
            seed=3,
            out=Path("figure.png"),
        ),
    ),
]


FAMILIES = ("mil", "mae", "classify", "labels")


def read(words: list[str]) -> BaseModel:
    """Read a line as the program does."""
    verb = " ".join(words[1:3]) if words[1] in FAMILIES else words[1]
    arguments = make_parser(verb).parse_args(words[1 + len(verb.split()) :])
    return read_config(arguments, load_verb(verb).OPTIONS)


@pytest.mark.parametrize(("verb", "config"), CONFIGS)
def test_the_line_is_read_as_the_same_options(
    verb: str, config: BaseModel, tmp_path: Path
) -> None:
    positional = load_verb(verb).POSITIONAL
    command = Command(verb, config, positional)
    line = shlex.split(command.line)
    assert line[0] == "napari-mcm"
    found = read(line).model_dump(exclude={"resume"})
    assert type(config)(**found) == config
    # So is the file, with nothing else on the line.
    command.save(tmp_path / "config.json")
    words = ["napari-mcm", *verb.split(), "--config", str(tmp_path / "config.json")]
    assert type(config)(**read(words).model_dump(exclude={"resume"})) == config


def test_only_what_differs_is_said() -> None:
    assert Command("extract", ExtractConfig(), "slides").words == [
        "napari-mcm",
        "extract",
    ]
    preset = FinetuneConfig(preset="paper", slides=(Path("a.svs"),))
    line = Command("finetune", preset, "slides").line
    assert line == "napari-mcm finetune a.svs --preset paper"
