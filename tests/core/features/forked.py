"""Extractions in processes that are killed: forked, as torch takes seconds to import.

Run as a script, ``python -m tests.core.features.forked WORK``, where ``WORK`` is a JSON
file: a configuration, how many processes work at a time, how often one of them is killed
and the seed of when. What they do is logged in ``log`` beside it.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from napari_mcm.core.encoders import Encoder, load_encoder
from napari_mcm.core.features import ExtractConfig, extract_slides
from napari_mcm.core.features.extraction import Output
from napari_mcm.core.runtime.jobs import run

_SLOW_S = 0.02
_held: dict[str, int] = {}


def say(log: Path, *words: object) -> None:
    line = " ".join(map(str, words)) + "\n"
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def watch(log: Path) -> None:
    """Log who computes what; the kernel's lock, which dies with its process, is witness."""
    begin, take, finish = Output.__init__, Output.take, Output.finish

    def watched_begin(self: Output, store: Any, *rest: Any) -> None:
        witness = os.open(f"{store.path}.witness", os.O_CREAT | os.O_WRONLY)
        try:
            fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(log, "clash", store.path.name)
        _held[str(store.path)] = witness
        begin(self, store, *rest)

    def watched_take(self: Output, row: int, batch: Any, last: bool) -> None:
        say(log, "rows", self._store.path.name, row, row + len(batch))
        time.sleep(_SLOW_S)
        take(self, row, batch, last)

    def watched_finish(self: Output, provenance: Any) -> None:
        finish(self, provenance)
        say(log, "finished", self._store.path.name)
        os.close(_held.pop(str(self._store.path)))

    Output.__init__ = watched_begin  # type: ignore[method-assign]
    Output.take = watched_take  # type: ignore[method-assign]
    Output.finish = watched_finish  # type: ignore[method-assign]


def fork(config: ExtractConfig, encoder: Encoder) -> int:
    """Start a process that extracts; it ends with 0 once all is there."""
    child = os.fork()
    if child:
        return child
    try:
        result = run(extract_slides(config, [encoder]))
        os._exit(0 if not result.failed else 1)
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
        traceback.print_exc()
        os._exit(2)


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text())
    log = Path(sys.argv[1]).with_name("log")
    config = ExtractConfig.model_validate(work["config"])
    encoder = load_encoder(config.encoder[0], config.compute)
    watch(log)
    rng = random.Random(work["seed"])
    workers = [fork(config, encoder) for _ in range(work["processes"])]
    for _ in range(work["kills"]):
        time.sleep(rng.uniform(*work["every"]))
        number = rng.randrange(len(workers))
        ended, status = os.waitpid(workers[number], os.WNOHANG)
        if ended:
            workers[number] = workers[-1]
            workers.pop()
            assert status == 0, status
            if not workers:
                break
            continue
        os.kill(workers[number], signal.SIGKILL)
        os.waitpid(workers[number], 0)
        say(log, "killed", workers[number])
        workers[number] = fork(config, encoder)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(w, 0)[1]) for w in workers]
    sys.exit(max(statuses, default=0))


if __name__ == "__main__":
    main()
