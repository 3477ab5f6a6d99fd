"""Checks of what this machine can do with the package, one at a time.

Each check gives one line: fine, worth knowing, or wrong, and what to do about it.
Checks that may hang or crash (a display server, the network) run in a process of their
own or with a time limit.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict, Field

from napari_mcm import __version__
from napari_mcm.core.encoders.compute import ComputeConfig
from napari_mcm.core.errors import McmError, WeightsError
from napari_mcm.core.runtime.files import cache_folder, write_text
from napari_mcm.core.runtime.jobs import Job, Progress

State = Literal["ok", "note", "problem"]
TESTED_PYTHONS = ((3, 11), (3, 13))
_GIB = 2**30
_LEAST_MEMORY, _LEAST_DISK = 4 * _GIB, 5 * _GIB
_DISPLAY_SECONDS = 60
_PACKAGE = "napari-mcm"
_READERS = {
    "TIFF": ("tifffile", "imagecodecs"),
    "OME-Zarr": ("zarr",),
    "PNG, JPEG": ("pillow",),
    "DICOM": ("wsidicom",),
    "OpenSlide": ("openslide-python", "openslide-bin"),
}
_EXTRA_OF = {"DICOM": "dicom", "OpenSlide": "openslide"}
_DISPLAY_TEST = """
from qtpy import API_NAME
from qtpy.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext
app = QGuiApplication([])
surface, context = QOffscreenSurface(), QOpenGLContext()
surface.create()
drawn = context.create() and context.makeCurrent(surface)
print(API_NAME, app.platformName(), int(bool(drawn)))
"""


class DoctorConfig(BaseModel):
    """What is checked besides the machine itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str | None = Field(
        None,
        description="An encoder to check: whether its weights are on this machine or can "
        "be downloaded, and which precision auto is for it.",
    )
    out: Path = Field(Path("."), description="Folder that results will be written to.")
    compute: ComputeConfig = ComputeConfig()


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes
    ----------
    name : str
        What was checked.
    state : {"ok", "note", "problem"}
        ``"note"`` limits what can be done, ``"problem"`` must be fixed.
    what : str
        The finding, in one line.
    hint : str
        What to do; "" where nothing is needed.
    """

    name: str
    state: State
    what: str
    hint: str = ""


def diagnose(config: DoctorConfig) -> Job[list[Check]]:
    """Check this machine, as a job.

    Parameters
    ----------
    config : DoctorConfig
        What to check besides it.

    Returns
    -------
    list of Check
        Software, hardware, display, network and weights, in this order.

    Yields
    ------
    Progress
        Before each check.
    """
    encoder = config.encoder
    steps: dict[str, Callable[[], Iterator[Check]]] = {
        "Python": _python,
        "packages": _packages,
        "readers": _readers,
        "device": lambda: _device(config.compute),
        "precision": lambda: _precision(encoder, config.compute),
        "memory": _memory,
        "disk": lambda: _disk(config.out),
        "display": _display,
        "hub": _hub,
        "weights": lambda: _weights(encoder),
    }
    found: list[Check] = []
    for number, (name, step) in enumerate(steps.items()):
        yield Progress(f"Checking {name}", number, len(steps), "checks")
        try:
            found += step()
        except McmError as error:
            place = "" if error.where is None else f"{error.where}: "
            found.append(Check(name, "problem", place + error.what, error.hint))
        # An error of another library is a finding, and must not end the diagnosis.
        except Exception as error:  # noqa: BLE001
            found.append(Check(name, "problem", f"{type(error).__name__}: {error}"))
    yield Progress("Checked", len(steps), len(steps), "checks")
    return found


def _python() -> Iterator[Check]:
    version = platform.python_version()
    what = f"{version}, {_PACKAGE} {__version__}, {platform.system()}"
    low, high = TESTED_PYTHONS
    if sys.version_info[:2] < low:
        yield Check("Python", "problem", what, "Install Python 3.11 or newer")
    elif sys.version_info[:2] > high:
        newest = ".".join(map(str, high))
        yield Check("Python", "note", what, f"Tests have been run up to {newest}")
    else:
        yield Check("Python", "ok", what)
    if sys.flags.dont_write_bytecode:
        yield Check(
            "bytecode",
            "note",
            "PYTHONDONTWRITEBYTECODE is set: each start takes seconds longer",
            "unset PYTHONDONTWRITEBYTECODE",
        )


def _packages() -> Iterator[Check]:
    wrong, extras = [], dict[str, bool]()
    for text in metadata.requires(_PACKAGE) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            if (problem := _lacks(requirement)) is not None:
                wrong.append(problem)
            continue
        for extra in metadata.metadata(_PACKAGE).get_all("Provides-Extra") or ():
            if marker.evaluate({"extra": extra}):
                there = _lacks(requirement) is None
                extras[extra] = extras.get(extra, True) and there
    names = ("torch", "timm", "napari")
    versions = ", ".join(f"{name} {_version(name) or 'missing'}" for name in names)
    if wrong:
        hint = "pip install --upgrade napari-mcm"
        yield Check("packages", "problem", "; ".join(wrong), hint)
    else:
        yield Check("packages", "ok", versions)
    # One Qt binding is enough.
    missing = [n for n, there in extras.items() if not there and n != "pyside6"]
    installed = [name for name, there in extras.items() if there]
    what = f"installed: {', '.join(installed) or 'none'}"
    hint = f'pip install "{_PACKAGE}[{missing[0]}]", for example' if missing else ""
    if missing:
        what += f"; not installed: {', '.join(missing)}"
    yield Check("extras", "ok", what, hint)


def _lacks(requirement: Requirement) -> str | None:
    """Return what is wrong with an installed requirement; None if nothing is."""
    version = _version(requirement.name)
    if version is None:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} {version} does not meet {requirement.specifier}"
    return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _readers() -> Iterator[Check]:
    modules = {"pillow": "PIL", "openslide-python": "openslide", "openslide-bin": ""}
    for name, packages in _READERS.items():
        versions = {package: _version(package) for package in packages}
        found = ", ".join(f"{p} {v}" for p, v in versions.items() if v)
        hint = f'pip install "{_PACKAGE}[{_EXTRA_OF.get(name, "")}]"'.replace("[]", "")
        if versions[packages[0]] is None:
            state: State = "note" if name in _EXTRA_OF else "problem"
            yield Check(f"reader {name}", state, "not installed", hint)
            continue
        try:
            for package in packages:
                if module := modules.get(package, package):
                    importlib.import_module(module)
        # A wheel whose shared library is missing fails with OSError.
        except (ImportError, OSError) as error:
            yield Check(
                f"reader {name}", "problem", f"{found}: does not load ({error})", hint
            )
        else:
            yield Check(f"reader {name}", "ok", found)


def _device(compute: ComputeConfig) -> Iterator[Check]:
    import torch

    from napari_mcm.core.encoders.compute import choose_device
    from napari_mcm.core.encoders.equivalence import machine_kind

    device = choose_device(compute)
    what = f"{device}: {machine_kind(device)}"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        what += f", {free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    elif device.type == "cpu":
        what += f", {torch.get_num_threads()} of {os.cpu_count()} cores"
    yield Check("device", "ok", what)


def _precision(spec: str | None, compute: ComputeConfig) -> Iterator[Check]:
    from napari_mcm.core.encoders import load_encoder
    from napari_mcm.core.encoders.compute import (
        AUTO_VARIABLE,
        automatic_precision,
        choose_device,
        has_fast_bfloat16,
    )

    given, device = automatic_precision(), choose_device(compute)
    if compute.precision != "auto":
        yield Check("precision", "ok", f"{compute.precision}, as requested")
        return
    if given is not None:
        yield Check("precision", "ok", f"auto is {given}, as {AUTO_VARIABLE} says")
        return
    if not has_fast_bfloat16(device):
        what = f"auto is float32: this {device.type} does not compute bfloat16 fast"
        yield Check("precision", "ok", what)
        return
    spec = spec or _any_encoder()
    if spec is None or not _is_here(spec):
        yield Check(
            "precision",
            "ok",
            "auto is chosen by a measurement when an encoder is first loaded",
        )
        return
    # The check of the weights reports an encoder's errors.
    with suppress(WeightsError):
        encoder = load_encoder(spec, compute)
        yield Check("precision", "ok", f"auto: {encoder.precision_note}")


def _any_encoder() -> str | None:
    from napari_mcm.core.encoders.sources import PREFIX, is_installed

    name = "efficientnet_lite0"
    return PREFIX + name if is_installed(name) else None


def _is_here(spec: str) -> bool:
    """Return whether an encoder can be loaded without a download."""
    from napari_mcm.core.encoders.sources import is_cached, is_timm_name

    return not is_timm_name(spec) or is_cached(spec)


def _memory() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    what = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB available"
    if memory.available < _LEAST_MEMORY:
        yield Check(
            "memory",
            "note",
            what,
            "Close other programs, or choose a small encoder and batch",
        )
    else:
        yield Check("memory", "ok", what)


def _disk(out: Path) -> Iterator[Check]:
    for name, folder in (("disk", out.absolute()), ("cache", cache_folder(""))):
        there = next(p for p in (folder, *folder.parents) if p.exists())
        what = f"{shutil.disk_usage(there).free / _GIB:.1f} GiB free in {folder}"
        probe = there / f".napari-mcm-doctor-{os.getpid()}"
        try:
            write_text(probe, "")
            probe.unlink()
        except (McmError, OSError):
            state: State = "problem" if name == "disk" else "note"
            hint = "Choose another --out" if name == "disk" else "Set NAPARI_MCM_CACHE"
            yield Check(name, state, f"{folder} cannot be written to", hint)
            continue
        if shutil.disk_usage(there).free < _LEAST_DISK:
            yield Check(
                name, "note", what, "Features take 5 kB per patch: free some space"
            )
        else:
            yield Check(name, "ok", what)


def _display() -> Iterator[Check]:
    if _version("napari") is None or _version("qtpy") is None:
        yield Check("display", "problem", "napari is not installed")
        return
    # Qt ends the process where it finds no display, so it runs in another one.
    command = [sys.executable, "-c", _DISPLAY_TEST]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_DISPLAY_SECONDS
        )
    except subprocess.TimeoutExpired:
        yield Check("display", "note", "the display does not answer")
        return
    words = done.stdout.split()
    if done.returncode == 0 and len(words) == 3:
        binding, name, drawn = words
        what = f"{binding} {_version(binding) or ''} on {name}"
        if drawn == "1":
            yield Check("display", "ok", what)
        else:
            hint = (
                "Install OpenGL (libgl1 on Debian); the command line works without it"
            )
            yield Check("display", "note", f"{what}, without OpenGL", hint)
    elif "QtBindingsNotFoundError" in done.stderr:
        hint = f'pip install "{_PACKAGE}[all]"; the command line works without it'
        yield Check("display", "note", "no Qt binding is installed", hint)
    else:
        reason = (done.stderr.strip().splitlines() or ["no display"])[0][:150]
        hint = "The viewer needs a desktop or xvfb-run; the command line does not"
        yield Check("display", "note", reason, hint)


def _hub() -> Iterator[Check]:
    from huggingface_hub import constants

    from napari_mcm.core.encoders.sources import is_reachable

    if constants.HF_HUB_OFFLINE:
        yield Check("hub", "note", "not checked: HF_HUB_OFFLINE is set")
    elif is_reachable():
        yield Check("hub", "ok", f"{constants.ENDPOINT} answers")
    else:
        yield Check(
            "hub",
            "note",
            f"{constants.ENDPOINT} cannot be reached: only weights that are on this "
            "computer can be used",
            "Set HTTPS_PROXY where the network needs one, or use the encoders named offline:",
        )


def _weights(spec: str | None) -> Iterator[Check]:
    from napari_mcm.core.encoders import load_encoder
    from napari_mcm.core.encoders.cost import measure_cost
    from napari_mcm.core.encoders.sources import check_access

    if spec is None:
        return
    if not _is_here(spec):
        check_access(spec)
        yield Check("weights", "ok", f"{spec} can be downloaded")
        return
    encoder = load_encoder(spec, ComputeConfig(device="cpu", precision="float32"))
    about = (
        f"{encoder.architecture}, {encoder.dim}-d, {measure_cost(encoder).describe()}"
    )
    yield Check("weights", "ok", f"{spec}: {about}")
