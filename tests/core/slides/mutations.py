"""Damage done to files, drawn by hypothesis, and what comes of it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from tempfile import TemporaryFile
from typing import IO

from hypothesis import strategies as st

HANG_S = 10.0
_PATIENCE_S = 90.0
MOST_MB = 2500.0
ROOT = Path(__file__).parents[3]

Change = tuple[str, float, bytes]
"""What is done, where (0 to 1; above 1 in the file's directories), and with what."""

changes: st.SearchStrategy[list[Change]] = st.lists(
    st.tuples(
        st.sampled_from(["flip", "write", "cut", "zero", "drop", "copy"]),
        st.floats(0, 1) | st.floats(0, 1) | st.floats(1, 2),
        st.binary(min_size=1, max_size=8)
        | st.sampled_from([b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff" * 8, b"\1\0"]),
    ),
    min_size=1,
    max_size=2,
)


def mutated(data: bytes, hot: list[int], wanted: list[Change]) -> bytes:
    """Damage some bytes.

    Parameters
    ----------
    data : bytes
        Of the file.
    hot : list of int
        Where its directories lie: a random place hits pixels and little else.
    wanted : list of Change
        What to do to it.
    """
    out = bytearray(data)
    for kind, where, value in wanted:
        if not out:
            break
        at = (
            hot[int((where - 1) * (len(hot) - 1))]
            if where > 1
            else int(where * len(out))
        )
        at = min(at, len(out) - 1)
        if kind == "flip":
            out[at] ^= 1 << (value[0] % 8)
        elif kind == "write":
            out[at : at + len(value)] = value
        elif kind == "cut":
            del out[at:]
        elif kind == "zero":
            out[at : at + 64 * len(value)] = bytes(len(out[at : at + 64 * len(value)]))
        elif kind == "drop":
            del out[at : at + len(value)]
        else:
            out[at:at] = out[: 16 * len(value)]
    return bytes(out)


def hot_places(data: bytes) -> list[int]:
    """Find the bytes that say what the others mean: heads, tails, TIFF directories."""
    places = list(range(min(len(data), 600)))
    places += range(max(len(data) - 300, 0), len(data))
    if data[:2] in (b"II", b"MM"):
        order = "<" if data[:2] == b"II" else ">"
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        while 0 < at < len(data) - 20 and len(places) < 20_000:
            count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
            size = (8 + 20 * count) if big else (2 + 12 * count)
            places += range(at, min(at + size + 8, len(data)))
            after = at + size
            if after + 8 > len(data):
                break
            at = struct.unpack_from(order + ("Q" if big else "I"), data, after)[0]
    return places


@dataclass
class Tally:
    """What became of all mutations of one family of formats."""

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    most_mb: float = 0.0

    def add(self, answer: dict[str, object]) -> None:
        self.files += 1
        self.outcomes[str(answer["outcome"])] += 1
        self.slowest_s = max(self.slowest_s, float(str(answer["seconds"])))
        self.most_mb = max(self.most_mb, float(str(answer["megabytes"])))


class Worker:
    """A process that opens slides; a new one when it was lost."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: Queue[str] = Queue()
        self._complaints: IO[bytes] | None = None

    def ask(self, path: Path) -> dict[str, object]:
        """Have a slide opened and used.

        Raises
        ------
        AssertionError
            If the process hung or died.
        """
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        try:
            line = self._answers.get(timeout=_PATIENCE_S)
        except Empty:
            line = "hang"
        if not line or line == "hang":
            self.stop()
            raise AssertionError(
                f"hung for {_PATIENCE_S:.0f} s"
                if line
                else f"the process died with status {process.returncode}: "
                f"{self._last_words()}"
            )
        answer: dict[str, object] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _last_words(self) -> str:
        """Return the end of what the process wrote to its standard error."""
        assert self._complaints is not None
        self._complaints.seek(0)
        return self._complaints.read()[-4000:].decode(errors="replace")

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._answers = Queue()
        if self._complaints is not None:
            self._complaints.close()
        self._complaints = TemporaryFile()  # noqa: SIM115 - lives with the process
        self._process = process = subprocess.Popen(
            [
                sys.executable,
                "-X",
                "faulthandler",
                "-m",
                "tests.core.slides.mutation_worker",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        answers = self._answers

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                answers.put(line)
            answers.put("")

        threading.Thread(target=listen, daemon=True).start()
        return process
