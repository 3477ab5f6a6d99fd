"""The words, the exit statuses and the speed of the command line itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import napari_mcm
from napari_mcm.cli import app, drive, info
from napari_mcm.cli.output import Outcome, plain
from napari_mcm.core.runtime.jobs import Job, Metrics, Note, Progress
from tests.cli.conftest import Call

COMMAND = [sys.executable, "-m", "napari_mcm.cli"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from napari_mcm.cli import main\n"
        "status = main(['--help'])\n"
        "heavy = {'torch', 'napari', 'numpy', 'pydantic', 'rich', 'skimage', 'timm'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for verb in app.VERBS:
        assert f"  {verb} " in done.stdout


def test_version(call: Call) -> None:
    assert call("--version").out == f"napari-mcm {napari_mcm.__version__}\n"


def test_no_words_are_wrong_usage(call: Call) -> None:
    answer = call()
    assert answer.status == 2
    assert "usage: napari-mcm" in answer.out


def test_an_unknown_verb_gets_a_suggestion(call: Call) -> None:
    answer = call("gird")
    assert answer.status == 2
    assert answer.error == "error: there is no verb 'gird'. Did you mean grid?"


def test_a_verb_of_two_words(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "VERBS", app.VERBS | {"slide info": "", "slide grid": ""})
    monkeypatch.setattr(
        app.importlib, "import_module", lambda name: {"slide_info": info}[name[15:]]
    )
    assert call("slide", "info", "--help").out.startswith(
        "usage: napari-mcm slide info"
    )
    for words in (["slide"], ["slide", "--help"], ["slide", "nonsense"]):
        answer = call(*words)
        assert answer.status == 2
        assert answer.error == "error: 'slide' is followed by one of: info, grid"


@pytest.mark.parametrize("verb", app.VERBS)
def test_every_verb_explains_each_option(call: Call, verb: str) -> None:
    answer = call(*verb.split(), "--help")
    assert answer.status == 0
    assert answer.out.startswith(f"usage: napari-mcm {verb}")
    assert answer.err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--patch-size"], "--patch-size"),
        (["--patch-size", "big"], "--patch-size: "),
        (["--patch-size", "3"], "greater than or equal to 16, not '3'"),
        (["--mpp", "fine"], "or Input should be 'auto', not 'fine'"),
        (["--config", "nowhere.json"], "nowhere.json: cannot be read as JSON"),
    ],
)
def test_wrong_options_are_one_line(
    call: Call, slide: Path, words: list[str], message: str
) -> None:
    answer = call("info", slide, *words)
    assert answer.status == 2
    assert message in answer.error
    assert answer.out == ""


def test_a_failure_is_one_line(call: Call, tmp_path: Path) -> None:
    answer = call("info", tmp_path / "missing.svs", "--json")
    assert answer.status == 1
    assert answer.err.count("\n") == 1
    assert "missing.svs: no such file" in answer.error
    assert answer.out == ""


def _break(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(options: object) -> Outcome:
        raise error

    monkeypatch.setattr(info, "run", fail)


def test_an_unexpected_failure_is_one_line_too(
    call: Call, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(monkeypatch, ValueError("two\nlines"))
    answer = call("info", slide)
    assert answer.status == 1
    assert answer.error.startswith("error: unexpected ValueError: two lines")
    assert "NAPARI_MCM_DEBUG=1" in answer.error


def test_the_traceback_is_there_for_who_asks(
    call: Call, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_MCM_DEBUG", "1")
    _break(monkeypatch, ValueError("broken"))
    assert "Traceback" in call("info", slide).err


def test_ctrl_c_before_a_job_is_a_cancel(
    call: Call, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(monkeypatch, KeyboardInterrupt())
    answer = call("info", slide)
    assert answer.status == 130
    assert answer.err == "cancelled; run the same command again\n"


def test_some_failures_are_listed(
    call: Call, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Outcome({"failed": ["b.svs: damaged"]}, ["2 slides"], ["b.svs: damaged"])
    monkeypatch.setattr(info, "run", lambda options: outcome)
    answer = call("info", slide)
    assert answer.status == 3
    assert answer.out == "2 slides\n"
    assert answer.err == "failed: b.svs: damaged\n"


def test_what_libraries_print_stays_out_of_the_json(
    call: Call, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chatty(options: object) -> Outcome:
        print("downloading")
        return Outcome({"a": float("nan"), "b": (Path("x"),)}, ["for people"])

    monkeypatch.setattr(info, "run", chatty)
    answer = call("info", slide, "--json")
    assert answer.out == '{"a": null, "b": ["x"]}\n'
    assert answer.err == "downloading\nfor people\n"


def test_numbers_of_numpy_become_plain_ones() -> None:
    np = pytest.importorskip("numpy")
    assert json.dumps(plain({1: np.float32(0.5), "n": np.int64(3)})) == (
        '{"1": 0.5, "n": 3}'
    )


def _job(closed: list[bool]) -> Job[int]:
    try:
        yield Note("assumed 0.5", "warning")
        for done in range(3):
            yield Metrics(done, {"loss": 1.0 - done / 10})
            yield Progress("Learning", done, 2, "steps", 4.0)
        return 7
    finally:
        closed.append(True)


def test_the_driver_says_how_far_a_job_is(capsys: pytest.CaptureFixture[str]) -> None:
    closed: list[bool] = []
    assert drive.drive(_job(closed)) == 7
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: assumed 0.5"
    assert lines[1].startswith("Learning: 0/2 steps, 4/s")
    assert lines[-1] == "Learning: 2/2 steps, 4/s, 0 s left, loss 0.8000"
    assert closed == [True]


def test_the_driver_draws_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert drive.drive(_job([])) == 7
    shown = capsys.readouterr().err
    assert "Learning" in shown
    assert "warning: assumed 0.5" in shown


_CANCELLED = """
import os, signal, sys, time
from pathlib import Path
from napari_mcm.cli import drive, info
from napari_mcm.cli import main
from napari_mcm.core.runtime.jobs import Progress

def job():
    try:
        yield Progress("Waiting", 0, None)
        print("ready", flush=True)
        time.sleep(60)
    finally:
        Path(sys.argv[1]).write_text("cleaned up")

info.run = lambda options: drive.drive(job(), "resume with --resume X")
sys.exit(main(["info", "any.svs"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_close_the_job(tmp_path: Path, number: signal.Signals) -> None:
    trace = tmp_path / "trace"
    with subprocess.Popen(
        [sys.executable, "-c", _CANCELLED, str(trace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a script has Ctrl-C ignored, and passes it on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "cancelled; resume with --resume X"
    assert trace.read_text() == "cleaned up"


def test_the_installed_script_answers(slide: Path) -> None:
    script = Path(sys.executable).with_name("napari-mcm")
    command = [str(script)] if script.exists() else COMMAND
    done = subprocess.run(
        [*command, "info", str(slide), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["width"] == 512
