"""What was found on a GPU, as Markdown."""

from __future__ import annotations

from typing import Any


def page(found: dict[str, Any]) -> list[str]:
    """Return what was found as Markdown."""
    lines = ["# On a GPU", ""]
    for name, value in found.get("machine", {}).items():
        lines.append(f"- {name}: {value}")
    lines.append(f"- seconds: {found.get('seconds')}")
    for name, problem in found.get("failed", {}).items():
        lines.append(f"- **{name} failed**: {problem}")
    if "verbs" in found:
        lines += [
            "",
            "## Every verb once",
            "",
            "| verb | passed | seconds |",
            "|---|---|---|",
        ]
        for verb, one in found["verbs"].items():
            lines.append(f"| {verb} | {one['passed']} | {one['seconds']} |")
    if "precision" in found:
        lines += ["", "## Features of real weights", ""]
        for name, one in found["precision"].items():
            half = one["bfloat16"]
            lines.append(
                f"- {name}: float32 against the CPU, least cosine "
                f"{one['float32_least_cosine_to_cpu']:.6f}; bfloat16 against float32, least "
                f"{half['least']:.4f}, median {half['median']:.4f}, {half['speedup']:.2f} "
                f"times as fast, over {half['patches']} patches"
            )
    if "extraction" in found:
        lines += ["", "## Extraction", ""]
        head = ["encoder", "patches/s", "bare", "share", "bare at 256", "limited by"]
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for name, one in found["extraction"].items():
            if name != "slide":
                lines.append(f"| {name} | {' | '.join(extraction_cells(one))} |")
    if "study" in found:
        one = found["study"]
        lines += [
            "",
            f"## Study 2: {one['windows_per_arm']:,} of {one['windows_wanted_per_arm']:,} "
            f"windows per arm, {one['windows_per_s']:.1f} windows/s",
            "",
            one["table"],
        ]
    return lines


def extraction_cells(one: dict[str, Any]) -> list[str]:
    """Return the cells of an encoder's row."""
    larger = one["bare_patches_per_s_at_256"]
    return [
        f"{one['patches_per_s']:.1f}",
        f"{one['bare_patches_per_s']:.1f}",
        f"{one['share_of_bare']:.2f}",
        "" if larger is None else f"{larger:.1f}",
        one["limited_by"],
    ]
