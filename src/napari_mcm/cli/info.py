"""Show what a slide file holds, and how patches would be read from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.cli.output import Outcome, say, table
from napari_mcm.core.grid import GridConfig, common_mpp
from napari_mcm.core.runtime.files import atomic_path
from napari_mcm.core.slides import ReadConfig, Slide
from napari_mcm.core.slides.paths import shown


class InfoOptions(BaseModel):
    """The slide, and the patches whose reading is planned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: Path = Field(description="Slide file, folder or URL.")
    mpp: float | Literal["auto"] = Field(
        "auto",
        description="Resolution of patches in µm per pixel; auto is 0.5, or the "
        "slide's own if that is coarser.",
    )
    patch_size: int = Field(
        224, ge=16, le=4096, description="Side of a patch, in pixels of that mpp."
    )
    images: Path | None = Field(
        None,
        description="Folder to write label, macro and thumbnail images to, as PNG. "
        "They may show a patient's name.",
    )
    read: ReadConfig = ReadConfig()


OPTIONS, POSITIONAL = InfoOptions, "slide"


def run(options: InfoOptions) -> Outcome:
    """Describe the slide."""
    with options.read.open(options.slide) as slide:
        plan = _plan(slide, options)
        result = _describe(slide) | {"plan": plan}
        rows = _rows(slide, plan)
        if options.images is not None:
            files = _write_images(slide, options.images)
            result["files"] = files
            rows += [("written", str(file)) for file in files]
        for warning in slide.warnings:
            say(f"warning: {shown(slide.path)}: {warning}")
        return Outcome(result, table(rows))


def _describe(slide: Slide) -> dict[str, Any]:
    return {
        "name": slide.name,
        "path": shown(slide.path),
        "backend": slide.backend,
        "width": slide.size[0],
        "height": slide.size[1],
        "mpp": slide.stated_mpp,
        "levels": [
            {
                "width": level.size[0],
                "height": level.size[1],
                "downsample": level.downsample,
                "tile": level.source.tile_size,
                "stored": level.stored,
            }
            for level in slide.levels
        ],
        "associated": slide.associated,
        "properties": dict(slide.properties),
        "warnings": slide.warnings,
        "fingerprint": slide.fingerprint,
    }


def _plan(slide: Slide, options: InfoOptions) -> dict[str, Any] | None:
    """Return how patches would be read; None if the resolution is unknown."""
    if slide.stated_mpp is None:
        return None
    grid = GridConfig(mpp=options.mpp, allow_upsampling=True)
    mpp = common_mpp([slide], grid)
    plan = slide.plan(mpp)
    # Sides along x and y: in level-0 pixels, and in pixels of the level that is read.
    side = [options.patch_size * mpp / own for own in slide.mpp]
    read = [math.ceil(options.patch_size * factor - 1e-6) for factor in plan.factor]
    tile = slide.levels[plan.level].source.tile_size
    # Tiles per patch along x and y, as the mean over all positions relative to the tiles.
    tiles = [
        (pixels - 1) / length + 1 for pixels, length in zip(read, tile, strict=True)
    ]
    return {
        "mpp": mpp,
        "patch_size": options.patch_size,
        "patch_um": options.patch_size * mpp,
        "patch_size_level0": side,
        "level": plan.level,
        "factor": plan.factor,
        "tiles": round(tiles[0] * tiles[1], 2),
        "upsampled": min(plan.factor) < 0.99,
    }


def _write_images(slide: Slide, folder: Path) -> list[Path]:
    """Write label, macro and thumbnail as PNG, without colour profile or metadata."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in slide.associated:
        file = folder / f"{slide.name}.{name}.png"
        with atomic_path(file) as unfinished:
            Image.fromarray(slide.associated_image(name)).save(unfinished, "PNG")
        files.append(file)
    return files


def _rows(slide: Slide, plan: dict[str, Any] | None) -> list[tuple[str, str]]:
    width, height = slide.size
    rows = [
        ("slide", shown(slide.path)),
        ("backend", slide.backend),
        ("size", f"{width:,} x {height:,} px{_physical(slide)}"),
        ("resolution", _resolution(slide)),
    ]
    for i in range(len(slide.levels)):
        rows.append(("levels" if i == 0 else "", _level(slide, i)))
    rows += [
        (name.replace("_", " "), value) for name, value in slide.properties.items()
    ]
    rows.append(("other images", ", ".join(slide.associated) or "none"))
    rows.append(("patches", _reading(plan) if plan else "unknown without a resolution"))
    return rows


def _physical(slide: Slide) -> str:
    if slide.stated_mpp is None:
        return ""
    sides = (n * m / 1000 for n, m in zip(slide.size, slide.stated_mpp, strict=True))
    return " = {:.2f} x {:.2f} mm".format(*sides)


def _resolution(slide: Slide) -> str:
    if slide.stated_mpp is None:
        return (
            "not stated by the file: give it in µm per pixel with --mpp-override, "
            "e.g. 0.25 for 40x"
        )
    x, y = slide.stated_mpp
    text = f"{x:.4g} µm per pixel" if x == y else f"{x:.6g} x {y:.6g} µm per pixel"
    return text + (", as given with --mpp-override" if slide.mpp_override else "")


def _level(slide: Slide, index: int) -> str:
    level = slide.levels[index]
    width, height = level.size
    text = f"{index}: {width:,} x {height:,} px"
    if slide.stated_mpp is not None:
        text += f", {slide.stated_mpp[0] * level.downsample[0]:.4g} µm per pixel"
    if not level.stored:
        return text + ", made on demand"
    return text + ", tiles of {} x {}".format(*level.source.tile_size)


def _reading(plan: dict[str, Any]) -> str:
    x, y = plan["factor"]
    if plan["upsampled"]:
        how = "enlarged: the slide is coarser, which needs --allow-upsampling"
    elif (x, y) == (1.0, 1.0):
        how = "as stored"
    else:
        how = f"shrunk {x:.4g} times"
    return (
        f"{plan['patch_size']} px at {plan['mpp']:.4g} µm per pixel "
        f"= {plan['patch_um']:.4g} µm = {plan['patch_size_level0'][0]:.4g} level-0 px, "
        f"read from level {plan['level']}, {how}, out of {plan['tiles']:.3g} tiles each"
    )
