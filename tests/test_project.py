"""What holds for the package as a whole: metadata, manifest, borders and floors."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from npe2 import PluginManifest

import napari_mcm

QT_BINDINGS = {"pyqt5", "pyqt6", "pyside2", "pyside6"}

IMPORT_CORE = """
import importlib, pkgutil, sys

BLOCKED = {"napari", "qtpy", "PyQt6", "PySide6", "magicgui", "superqt", "vispy"}

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())

import napari_mcm.core
for module in pkgutil.walk_packages(napari_mcm.core.__path__, "napari_mcm.core."):
    importlib.import_module(module.name)
    print(module.name)
"""

RUN_HELP = """
import json, sys
from napari_mcm.cli import main

try:
    status = main(["--help"])
except SystemExit as stop:
    status = stop.code
heavy = {"torch", "timm", "napari", "qtpy", "numpy"} & set(sys.modules)
print(json.dumps({"status": status or 0, "heavy": sorted(heavy)}))
"""


def run_python(code: str) -> list[str]:
    """Run code in a new interpreter and give the lines that it prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_version_comes_from_one_place(repository: Path):
    assert importlib.metadata.version("napari-mcm") == napari_mcm.__version__
    assert f"version: {napari_mcm.__version__}\n" in (
        repository / "CITATION.cff"
    ).read_text(encoding="utf-8")
    assert f"## [{napari_mcm.__version__}]" in (repository / "CHANGELOG.md").read_text(
        encoding="utf-8"
    )


def test_manifest_at_the_root_is_the_packages(repository: Path):
    manifest = repository / "src" / "napari_mcm" / "napari.yaml"
    assert PluginManifest.from_file(manifest).name == "napari-mcm"
    assert (repository / "napari.yaml").read_bytes() == manifest.read_bytes()


def test_napari_finds_the_manifest():
    distribution = importlib.metadata.distribution("napari-mcm")
    manifest = PluginManifest.from_distribution("napari-mcm")
    assert manifest.package_version == napari_mcm.__version__
    assert "Framework :: napari" in distribution.metadata.get_all("Classifier")


def test_the_base_package_names_no_qt_binding():
    requirements = importlib.metadata.requires("napari-mcm") or []
    base = [line for line in requirements if "extra ==" not in line]
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in base}
    assert "napari" in names
    assert not names & QT_BINDINGS
    assert not [line for line in base if re.match(r"(?i)napari\s*\[", line)]


def test_constraints_know_every_direct_dependency(repository: Path):
    lines = (repository / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    asked = [
        *project["project"]["dependencies"],
        *sum(project["project"]["optional-dependencies"].values(), []),
        *(
            entry
            for group in project["dependency-groups"].values()
            for entry in group
            if isinstance(entry, str)
        ),
    ]
    names = {
        re.split(r"[^\w.-]", entry)[0].lower().replace("_", "-") for entry in asked
    }
    # Amazon's library, below s3fs, wants an older dateutil than the rest of them; PySide6
    # is the other Qt binding, and one is installed.
    assert names - {"s3fs", "pyside6"} <= pinned


def test_core_imports_without_napari_and_qt():
    modules = run_python(IMPORT_CORE)
    assert "napari_mcm.core.slides" in modules


def test_help_imports_nothing_heavy():
    result = json.loads(run_python(RUN_HELP)[-1])
    assert result == {"status": 0, "heavy": []}


def test_imports_keep_to_the_floors(repository: Path):
    lint_imports = Path(sys.executable).with_name("lint-imports")
    command = [str(lint_imports), "--no-cache"]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[done.stdout.find("Contracts") :]
