"""Masked autoencoders on real patches, and what they buy a classifier of cells."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.results.commands import once, train

from napari_mcm.core.mae.config import ReconstructConfig
from napari_mcm.core.mae.reconstruction import reconstruct_pictures
from napari_mcm.core.runtime.jobs import run
from napari_mcm.core.training import Run

HERE = Path(__file__).parent
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
    "_probe": ("--learn", "probe", "--steps", 150, "--percent", 10, "--percent", 100),
}
"""Ends of names of ablations, and how their classifiers learn."""
REFERENCE = "offline:efficientnet_lite0"
RATIOS = (0.25, 0.5, 0.75)


def section(data: Path, work: Path, pictures: Path) -> str:
    """Run what is not done yet and write the section."""
    text = (HERE / "mae.md").read_text(encoding="utf-8")
    pictures.mkdir(parents=True, exist_ok=True)
    run_dir = pretrained(data, work)
    text = text.replace("<<pretraining>>", losses(run_dir))
    text = text.replace("<<errors>>", looked_at(run_dir, data, pictures))
    for name, options in CELLS.items():
        for end, how in LEARNED.items():
            out = work / f"{name}{end}"
            ablate(data / "wbc" / name, out, run_dir, (*how, *options))
            table = (out / "ablation.md").read_text(encoding="utf-8")
            text = text.replace(f"<<{out.name}>>", _below_title(table))
            for picture in sorted(out.glob("*.png")):
                if (shown := f"results-{out.name}-{picture.name}") in text:
                    shutil.copy(picture, pictures / shown)
    return text


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


def looked_at(run_dir: Path, data: Path, pictures: Path) -> str:
    """Draw what is filled in of pictures, and tabulate how wrong it is."""
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
        "| hidden | filled in | a blur instead | visible patches |",
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
    """Tell how the loss fell."""
    opened = Run.open(run_dir)
    summary, loss = opened.summary() or {}, opened.metrics()["loss"]
    tenth = max(len(loss) // 10, 1)
    means = [sum(loss[i : i + tenth]) / tenth for i in range(0, 10 * tenth, tenth)]
    told = ", ".join(f"{mean:.3f}" for mean in means)
    return (
        f"{len(loss)} steps in {summary['seconds'] / 60:.0f} minutes; mean loss of each "
        f"tenth of them: {told}."
    )


def _below_title(page: str) -> str:
    """Drop a page's title, and let its other headings be small ones."""
    lines = [line for line in page.splitlines() if not line.startswith("# ")]
    return "\n".join(
        f"##{line}" if line.startswith("##") else line for line in lines
    ).strip()
