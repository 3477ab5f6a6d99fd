"""Anything in any order: no exception, no job and no listener left behind."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.lengths import length
from tests.viewer.conftest import write_pair
from tests.viewer.random_user import Complaints, RandomUser


@pytest.mark.parametrize("seed", range(length(2, 20)))
def test_a_user_who_does_anything_breaks_nothing(
    viewer: Any, tmp_path: Path, seed: int
) -> None:
    slides = write_pair(tmp_path)
    before = threading.active_count()
    with Complaints() as complaints:
        user = RandomUser(viewer, slides, tmp_path, seed)
        user.act(length(60, 200))
        user.finish()
    assert complaints.texts == [], user.did
    assert user.seen == [], user.did
    # Readers and writers stay, one for each dock's worker; nothing piles up.
    assert threading.active_count() < before + 20
