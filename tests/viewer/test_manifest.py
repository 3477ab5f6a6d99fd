"""The manifest: valid, complete, and cheap to act on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from npe2 import PluginManager, PluginManifest

from napari_mcm.viewer.qt.slide_selector import FILES
from tests.viewer.conftest import MANIFEST


def test_every_command_can_be_imported() -> None:
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.name == "napari-mcm"


SLIDES = (
    *("a.svs", "A.SVS", "b.tif", "b.ome.tif", "b.ome.tiff", "c.ndpi", "d.tiff"),
    *("e.btf", "f.qptiff", "g.mrxs", "h.vms", "h.vmu", "i.svslide", "j.scn", "k.bif"),
    *("l.dcm", "m.ome.zarr.zip", "m.zarr.zip"),
)


@pytest.mark.parametrize("name", SLIDES)
def test_slide_files_are_claimed(plugin: PluginManager, name: str) -> None:
    readers = {reader.plugin_name for reader in plugin.iter_compatible_readers(name)}
    assert readers == {"napari-mcm"}


def test_folders_are_claimed(plugin: PluginManager, tmp_path: Path) -> None:
    readers = list(plugin.iter_compatible_readers(str(tmp_path)))
    assert [reader.plugin_name for reader in readers] == ["napari-mcm"]


def test_projects_are_claimed(plugin: PluginManager, tmp_path: Path) -> None:
    path = tmp_path / "a.mcm.json"
    path.write_text("{}")
    readers = list(plugin.iter_compatible_readers(str(path)))
    assert [reader.command for reader in readers] == ["napari-mcm.get_project_reader"]


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "a.jpeg", "a.zip", "a.csv", "a.json", "a.query.json"]
)
def test_napari_keeps_its_own(plugin: PluginManager, name: str) -> None:
    assert not list(plugin.iter_compatible_readers(name))


def test_the_file_dialog_offers_what_is_read() -> None:
    for name in SLIDES:
        assert f"*{Path(name).suffix.lower()}" in FILES or "zarr.zip" in name


def test_the_modules_of_commands_leave_torch_alone() -> None:
    manifest = PluginManifest.from_file(MANIFEST)
    modules = {
        str(command.python_name).partition(":")[0]
        for command in manifest.contributions.commands or []
    }
    check = "; ".join(
        ["import sys", *(f"import {module}" for module in sorted(modules))]
        + ["assert not {'torch', 'timm', 'matplotlib'} & set(sys.modules)"]
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)
