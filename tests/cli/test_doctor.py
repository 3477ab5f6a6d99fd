"""The verb doctor: each check finds what is there, and says what to do about the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from napari_mcm.core import diagnostics
from napari_mcm.core.diagnostics import Check, DoctorConfig, diagnose
from napari_mcm.core.encoders import ComputeConfig
from napari_mcm.core.encoders import sources as hub
from napari_mcm.core.encoders.compute import AUTO_VARIABLE
from napari_mcm.core.errors import WeightsError
from napari_mcm.core.runtime.jobs import run
from tests.cli.conftest import Call


@pytest.fixture(autouse=True)
def no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for a display in one test only: it takes a second."""
    monkeypatch.setattr(diagnostics, "_DISPLAY_TEST", "print('PyQt6', 'xcb', 1)")


def found(**config: Any) -> dict[str, Check]:
    checks = run(diagnose(DoctorConfig(**config)))
    named = {check.name: check for check in checks}
    assert len(named) == len(checks)
    return named


def test_a_line_per_check_and_0_where_nothing_must_be_mended(call: Call) -> None:
    answer = call("doctor", "--json")
    assert answer.status == 0 and answer.json["ok"] is True
    states = {check["name"]: check["state"] for check in answer.json["checks"]}
    assert {"Python", "packages", "device", "precision", "memory", "disk"} <= {*states}
    assert "problem" not in states.values()
    lines = call("doctor").out.splitlines()
    assert sum(line[0] in "✓!" for line in lines) == len(states)


def test_versions_are_those_that_are_installed() -> None:
    checks = found()
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in checks["Python"].what
    for name in ("torch", "timm", "napari"):
        assert f"{name} {metadata.version(name)}" in checks["packages"].what
    assert metadata.version("tifffile") in checks["reader TIFF"].what


def test_a_package_that_is_missing_or_too_old_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    true = metadata.version

    def version(name: str) -> str:
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "timm" else true(name)

    monkeypatch.setattr(metadata, "version", version)
    what = found()["packages"].what
    assert "scipy is not installed" in what and "timm 0.1 does not meet" in what
    answer = call("doctor")
    assert answer.status == 1
    assert any(line.startswith("✗ packages") for line in answer.out.splitlines())


def test_a_reader_that_is_not_installed_is_a_note_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true = metadata.version

    def version(name: str) -> str:
        if name == "wsidicom":
            raise metadata.PackageNotFoundError(name)
        return true(name)

    monkeypatch.setattr(metadata, "version", version)
    check = found()["reader DICOM"]
    assert check.state == "note" and "napari-mcm[dicom]" in check.hint


def test_a_reader_whose_library_does_not_load_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    check = found()["reader TIFF"]
    assert check.state == "problem" and "does not load" in check.what


def test_a_device_that_is_not_there_is_a_problem() -> None:
    check = found(compute=ComputeConfig(device="cuda:63"))["device"]
    assert check.state == "problem" and "PyTorch sees" in check.what


@pytest.mark.parametrize("given", ["float32", "bfloat16"])
def test_the_precision_that_auto_takes_is_told(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv(AUTO_VARIABLE, given)
    assert f"auto is {given}" in found()["precision"].what


def test_the_measured_precision_is_told_with_its_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_mcm.core.encoders import compute, equivalence

    monkeypatch.delenv(AUTO_VARIABLE)
    for module in (compute, equivalence):
        monkeypatch.setattr(module, "has_fast_bfloat16", lambda device: True)
    measured = equivalence.Equivalence(0.9876, 0.99, 2.0, 32)
    monkeypatch.setattr(equivalence, "find_equivalence", lambda encoder: measured)
    check = found(encoder="random:test_resnet")["precision"]
    assert "0.9876" in check.what and "float32" in check.what


def test_a_folder_that_cannot_be_written_to_is_a_problem(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    check = found(out=blocked / "features")["disk"]
    assert check.state == "problem" and "cannot be written" in check.what
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_little_memory_and_little_room_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diagnostics, "_LEAST_MEMORY", 2**60)
    monkeypatch.setattr(diagnostics, "_LEAST_DISK", 2**60)
    checks = found()
    assert checks["memory"].state == checks["disk"].state == "note"


def test_no_display_is_a_note_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; sys.exit('could not connect to display :9')"
    monkeypatch.setattr(diagnostics, "_DISPLAY_TEST", script)
    check = found()["display"]
    assert check.state == "note" and "could not connect to display :9" in check.what


def test_an_encoder_that_is_here_is_loaded_and_one_that_is_not_is_a_problem() -> None:
    weights = found(encoder="random:resnet18")["weights"].what
    assert "512-d, 11 M parameters, 1.8 G multiply-adds per patch of 224 px" in weights
    check = found(encoder="no/such")["weights"]
    assert check.state == "problem" and "no/such" in check.what


def test_a_gated_model_is_asked_for_and_its_refusal_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def refuse(name: str) -> None:
        asked.append(name)
        raise WeightsError("its licence must be accepted", name, "hf auth login")

    monkeypatch.setattr(hub, "check_access", refuse)
    check = found(encoder="hf-hub:someone/gated")["weights"]
    assert asked == ["hf-hub:someone/gated"]
    assert check.state == "problem" and check.hint == "hf auth login"


def test_access_is_asked_of_the_hub_for_the_repository_of_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hub, "is_reachable", lambda: True)
    monkeypatch.setattr(
        hub.HfApi, "auth_check", lambda self, repository: asked.append(repository)
    )
    hub.check_access("hf-hub:MahmoodLab/UNI")
    hub.check_access("resnet18.tv_in1k")
    assert asked == ["MahmoodLab/UNI", "timm/resnet18.tv_in1k"]
    monkeypatch.setattr(hub, "is_reachable", lambda: False)
    with pytest.raises(WeightsError, match="offline:"):
        hub.check_access("resnet18.tv_in1k")


def test_what_is_wrong_with_a_check_itself_is_a_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr("psutil.virtual_memory", broken)
    check = found()["memory"]
    assert check.state == "problem"
    assert check.what == "RuntimeError: no such instruction"


def test_a_terminal_without_the_marks_gets_plain_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "napari_mcm.cli", "doctor"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    lines = done.stdout.decode("ascii").splitlines()
    assert done.returncode == 0 and lines[0].startswith("+ Python")


def test_the_bug_report_asks_for_it(repository: Path) -> None:
    form = repository / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml"
    assert "napari-mcm doctor" in form.read_text(encoding="utf-8")
