"""Save a project over and over in child processes, and kill each at a random moment.

Run as a program with a project file, the number of kills and a seed. It prints one JSON
object: per kill, the last number that was saved for certain, the number that the file
holds afterwards, and how many rows and slides it has.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from napari_mcm.core.project import Project, read_project, write_project


def save_forever(path: Path, project: Project, first: int, told: int) -> None:
    """Count up in `current`, and tell each number that is on the disk."""
    for number in range(first, first + 1_000_000):
        write_project(path, project.model_copy(update={"current": str(number)}))
        os.write(told, number.to_bytes(8, "little"))


def kill_once(path: Path, seconds: float) -> dict[str, int]:
    """Let a child save for some time, kill it, and look at what is left."""
    project = read_project(path)
    first = int(project.current or 0) + 1
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        try:
            save_forever(path, project, first, writer)
        finally:
            os._exit(1)
    os.close(writer)
    # Begin to count when the first save is done, whatever the load.
    told = os.read(reader, 8)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reader, 8 * 4096):
        told = more[-8:]
    os.close(reader)
    left = read_project(path)
    return {
        "told": int.from_bytes(told, "little"),
        "left": int(left.current),
        "slides": len(left.slides),
        "rows": len(left.results),
        "damaged": sum(1 for one in left.slides if one != project.slides[0]),
    }


def main(path: str, kills: str, seed: str) -> None:
    """Kill the given number of times."""
    random.seed(int(seed))
    file = Path(path)
    ends = [kill_once(file, random.uniform(0, 0.02)) for _ in range(int(kills))]
    print(json.dumps(ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
