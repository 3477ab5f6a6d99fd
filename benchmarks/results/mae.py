"""Masked autoencoders on real patches, and what they bring a classifier of cells."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.results.commands import once, train
from benchmarks.results.pages import template
from benchmarks.results.tables import markdown

from napari_mcm.core.mae.config import ReconstructConfig
from napari_mcm.core.mae.reconstruction import reconstruct_pictures
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.training import Run

PAGES = ("mae-and-cells", "tables-cells")
PRETRAINING = (
    *("--model", "tiny", "--image-size", 112, "--vit-patch", 16),
    # As near as the crops of cells are: one or two nuclei an image.
    *("--tiles", 14, "--patch-size", 48),
    *("--mask-ratio", 0.5, "--no-norm-targets"),
    # Many small steps: what is learned first, that neighbours are alike, takes some.
    *("--batch-size", 16, "--steps", 8000, "--base-lr", 1.6e-2, "--clip-norm", 1.0),
)
CELLS: dict[str, tuple[object, ...]] = {
    "bccd_cropped": (),
    "segmentation_wbc_d1": ("--validation", 0.3),
}
LEARNED: dict[str, tuple[object, ...]] = {
    "": ("--steps", 80, "--base-lr", 8e-3),
    "_probe": ("--train", "probe", "--steps", 150, "--percent", 10, "--percent", 100),
}
"""Ends of names of ablations, and how their classifiers learn."""
REFERENCE = "offline:efficientnet_lite0"
RATIOS = (0.25, 0.5, 0.75)
SHORT = ("data", "images", "start", "accuracy", "balanced accuracy")
"""Columns of an ablation's table that the page itself has."""


def values(data: Path, work: Path, pictures: Path) -> dict[str, str]:
    """Run what is missing; give what the pages have room for, by name."""
    shown = "".join(template(page) for page in PAGES)
    run_dir = pretrained(data, work)
    found = {
        "pretraining": losses(run_dir),
        "errors": reconstruction_errors(run_dir, data, pictures),
    }
    for name, options in CELLS.items():
        for end, how in LEARNED.items():
            out = work / f"{name}{end}"
            ablate(data / "wbc" / name, out, run_dir, (*how, *options))
            table = (out / "ablation.md").read_text(encoding="utf-8")
            found[out.name] = _below_title(table)
            found[f"{out.name}-short"] = short_table(table)
            for picture in sorted(out.glob("*.png")):
                if (copy := f"results-{out.name}-{picture.name}") in shown:
                    shutil.copy(picture, pictures / copy)
    return found


def ablate(data: Path, out: Path, run_dir: Path, options: tuple[object, ...]) -> None:
    """Train the classifiers of one table."""
    once(
        None,
        "ablate",
        data,
        "--out",
        out,
        *("--arms", "scratch", "--arms", f"mae:{run_dir}", "--arms", REFERENCE),
        *("--seeds", 3, "--image-size", 112, "--batch-size", 16),
        *options,
    )


def reconstruction_errors(run_dir: Path, data: Path, pictures: Path) -> str:
    """Draw reconstructions of pictures, and tabulate their errors."""
    config = ReconstructConfig(
        paths=(run_dir, data / "patches" / "monuseg"),
        mask_ratio=RATIOS,
        out=pictures / "results-mae.png",
    )
    errors = run(reconstruct_pictures(config)).errors
    rows = [
        f"| {ratio:.0%} | {e['pixel_error_hidden']:.1f} | {e['pixel_error_blur']:.1f} | "
        f"{e['pixel_error_visible']:.1f} |"
        for ratio, e in errors.items()
    ]
    head = [
        "| hidden | reconstruction | blur | visible patches |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def pretrained(data: Path, work: Path) -> Path:
    """Pre-train on all patches and the tissue of four sections."""
    run_dir = work / "pretraining"
    sections = data / "slides" / "her2st"
    slides = [sections / "her2st_C2.svs", sections / "her2st_C3.tiff"]
    asked = [word for slide in slides for word in ("--slides", slide)]
    train(run_dir, "mae", "pretrain", data / "patches", *asked, *PRETRAINING)
    return run_dir


def losses(run_dir: Path) -> str:
    """Describe how the loss fell."""
    opened = Run.open(run_dir)
    summary, loss = opened.summary() or {}, opened.metrics()["loss"]
    tenth = max(len(loss) // 10, 1)
    means = [sum(loss[i : i + tenth]) / tenth for i in range(0, 10 * tenth, tenth)]
    fell = ", ".join(f"{mean:.3f}" for mean in means)
    return (
        f"{len(loss)} steps in {summary['seconds'] / 60:.0f} minutes; mean loss of each "
        f"tenth of them: {fell}."
    )


def short_table(page: str) -> str:
    """Take the first table of `ablation.md`, with the columns in `SHORT` only."""
    header, _, *rows = _first_table(page)
    columns = [header.index(name) for name in SHORT]
    return markdown(SHORT, [[row[column] for column in columns] for row in rows])


def _first_table(page: str) -> Iterator[list[str]]:
    begun = False
    for line in page.splitlines():
        if line.startswith("|"):
            begun = True
            yield [cell.strip() for cell in line.strip("|").split("|")]
        elif begun:
            return


def _below_title(page: str) -> str:
    """Drop a page's title, and let its other headings be small ones."""
    lines = [line for line in page.splitlines() if not line.startswith("# ")]
    return "\n".join(
        f"##{line}" if line.startswith("##") else line for line in lines
    ).strip()
