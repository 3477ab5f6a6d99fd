"""Masked autoencoders on real patches, and what they buy a classifier of cells."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.results.commands import once, train

from napari_mcm.core.training import Run

HERE = Path(__file__).parent
PRETRAINING = (
    *("--model", "tiny", "--image-size", 112, "--vit-patch", 16, "--tiles", 8),
    *("--batch-size", 64, "--steps", 1500, "--base-lr", 1.5e-3),
)
CELLS: dict[str, tuple[object, ...]] = {
    "bccd_cropped": (),
    "segmentation_wbc_d1": ("--validation", 0.3),
}
REFERENCE = "offline:efficientnet_lite0"


def section(data: Path, work: Path, pictures: Path) -> str:
    """Run what is not done yet and write the section."""
    text = (HERE / "mae.md").read_text(encoding="utf-8")
    run_dir = pretrained(data, work)
    text = text.replace("<<pretraining>>", losses(run_dir))
    look = work / "look.png"
    once(
        look,
        "mae",
        "reconstruct",
        run_dir,
        data / "patches" / "monuseg",
        *("--mask-ratio", 0.25, "--mask-ratio", 0.5, "--mask-ratio", 0.75),
        "--out",
        look,
    )
    pictures.mkdir(parents=True, exist_ok=True)
    shutil.copy(look, pictures / "results-mae.png")
    for name, options in CELLS.items():
        out = work / name
        once(
            out / "done",
            "ablate",
            data / "wbc" / name,
            "--out",
            out,
            *("--arms", "scratch", "--arms", f"mae:{run_dir}", "--arms", REFERENCE),
            *("--seeds", 3, "--image-size", 112),
            *("--steps", 80, "--batch-size", 16, "--base-lr", 8e-3),
            *options,
        )
        table = (out / "ablation.md").read_text(encoding="utf-8")
        text = text.replace(f"<<{name}>>", _below_title(table))
        for picture in sorted(out.glob("*.png")):
            target = pictures / f"results-{name}-{picture.name}"
            shutil.copy(picture, target)
    return text


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
    run = Run.open(run_dir)
    summary, loss = run.summary() or {}, run.metrics()["loss"]
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
