"""Show what a slide file holds, and how patches would be read from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_mcm.cli.output import Outcome, table
from napari_mcm.core.grid import GridConfig, common_mpp
from napari_mcm.core.slides import Slide, open_slide


class InfoOptions(BaseModel):
    """Which slide, and the patches whose reading is planned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide: Path = Field(description="Slide file.")
    mpp: float | Literal["auto"] = Field(
        "auto",
        description="Resolution of patches in µm per pixel; auto is 0.5, or the "
        "slide's own where that is coarser.",
    )
    patch_size: int = Field(
        224, ge=16, le=4096, description="Side of a patch, in pixels of that mpp."
    )
    mpp_override: float | None = Field(
        None,
        gt=0,
        description="µm per pixel of a slide that states none, or a wrong one.",
    )


OPTIONS, POSITIONAL = InfoOptions, "slide"


def run(options: InfoOptions) -> Outcome:
    """Look at the slide."""
    with open_slide(options.slide, options.mpp_override) as slide:
        plan = _plan(slide, options)
        result = _describe(slide) | {"plan": plan}
        return Outcome(result, table(_rows(slide, plan)))


def _describe(slide: Slide) -> dict[str, Any]:
    return {
        "name": slide.name,
        "path": slide.path,
        "backend": slide.backend,
        "width": slide.size[0],
        "height": slide.size[1],
        "mpp": slide.stated_mpp,
        "levels": [
            {
                "width": level.size[0],
                "height": level.size[1],
                "downsample": level.downsample,
                "stored": level.stored,
            }
            for level in slide.levels
        ],
        "associated": slide.associated,
        "properties": dict(slide.properties),
        "fingerprint": slide.fingerprint,
    }


def _plan(slide: Slide, options: InfoOptions) -> dict[str, Any] | None:
    """Say how patches would be read; nothing for a slide of unknown resolution."""
    if slide.stated_mpp is None:
        return None
    asked = GridConfig(mpp=options.mpp, allow_upsampling=True)
    mpp = common_mpp([slide], asked)
    plan = slide.plan(mpp)
    side = [options.patch_size * mpp / own for own in slide.mpp]
    return {
        "mpp": mpp,
        "patch_size": options.patch_size,
        "patch_um": options.patch_size * mpp,
        "patch_size_level0": side,
        "level": plan.level,
        "factor": plan.factor,
        "upsampled": min(plan.factor) < 0.99,
    }


def _rows(slide: Slide, plan: dict[str, Any] | None) -> list[tuple[str, str]]:
    width, height = slide.size
    rows = [
        ("slide", str(slide.path)),
        ("backend", slide.backend),
        ("size", f"{width:,} x {height:,} px{_physical(slide)}"),
        ("resolution", _resolution(slide)),
    ]
    for i, level in enumerate(slide.levels):
        rows.append(("levels" if i == 0 else "", _level(slide, i, level.stored)))
    rows += [(name, value) for name, value in slide.properties.items()]
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


def _level(slide: Slide, index: int, stored: bool) -> str:
    level = slide.levels[index]
    width, height = level.size
    text = f"{index}: {width:,} x {height:,} px"
    if slide.stated_mpp is not None:
        text += f", {slide.stated_mpp[0] * level.downsample[0]:.4g} µm per pixel"
    return text + ("" if stored else ", made on demand")


def _reading(plan: dict[str, Any]) -> str:
    x, y = plan["factor"]
    if plan["upsampled"]:
        how = "enlarged: the slide is coarser, which needs --allow-upsampling"
    elif (x, y) == (1.0, 1.0):
        how = "as stored"
    else:
        how = f"shrunk {x:.3g} times"
    return (
        f"{plan['patch_size']} px at {plan['mpp']:.4g} µm per pixel "
        f"= {plan['patch_um']:.4g} µm = {plan['patch_size_level0'][0]:.4g} level-0 px, "
        f"read from level {plan['level']}, {how}"
    )
