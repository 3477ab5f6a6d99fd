"""The manifest: valid, complete, and cheap to act on."""

from __future__ import annotations

import subprocess
import sys

import pytest
from npe2 import PluginManager, PluginManifest

from tests.viewer.conftest import MANIFEST


def test_every_command_can_be_imported() -> None:
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.name == "napari-mcm"


@pytest.mark.parametrize(
    "name", ["a.svs", "A.SVS", "b.ome.tif", "c.ndpi", "d.tiff", "e.btf", "f.qptiff"]
)
def test_slide_files_are_claimed(plugin: PluginManager, name: str) -> None:
    readers = {reader.plugin_name for reader in plugin.iter_compatible_readers(name)}
    assert readers == {"napari-mcm"}


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
