"""How far a whole job has come: shares of its stages, and one fraction that only grows."""

from __future__ import annotations

import random

import pytest

from napari_mcm.core.runtime.jobs import Event, Job, Meter, Note, Progress, run
from napari_mcm.core.runtime.overall import OverallClock, Stages, portion, weighed


def stage(
    name: str, total: int | None, steps: int, rate: float | None = None
) -> Job[str]:
    for step in range(steps):
        yield Progress(name, step + 1, total, "units", rate)
    return name


def events_of(job: Job[object]) -> list[Event]:
    seen: list[Event] = []
    run(job, seen.append)
    return seen


def overalls(job: Job[object]) -> list[float | None]:
    return [e.overall for e in events_of(job) if isinstance(e, Progress)]


def test_stages_share_the_whole_by_their_weights() -> None:
    def job() -> Job[str]:
        stages = Stages(1, 3)
        first = yield from stages.next(stage("a", 2, 2))
        second = yield from stages.next(stage("b", 3, 3))
        return first + second

    assert overalls(job()) == pytest.approx([0.125, 0.25, 0.5, 0.75, 1.0])
    assert run(job()) == "ab"


def test_shares_nest() -> None:
    def inner() -> Job[None]:
        stages = Stages(1, 1)
        yield from stages.next(stage("a", 1, 1))
        yield from stages.next(stage("b", 2, 2))

    # The inner job is the second half: its own halves are quarters of the whole.
    assert overalls(portion(inner(), 0.5, 1.0)) == pytest.approx([0.75, 0.875, 1.0])


def test_a_rate_becomes_one_of_the_whole() -> None:
    (event,) = events_of(portion(stage("a", 10, 1, rate=2.0), 0.2, 0.7))
    assert isinstance(event, Progress)
    # 2 of 10 units per second are a fifth of this half of the job.
    assert event.overall == pytest.approx(0.25) and event.pace == pytest.approx(0.1)
    assert (event.done, event.total, event.rate) == (1, 10, 2.0)


def test_stages_are_known_by_how_their_names_begin() -> None:
    def job() -> Job[None]:
        yield from stage("Opening slides", None, 2)
        yield from stage("Something unforeseen", 4, 4)
        yield from stage("Extracting b", 2, 2)

    found = overalls(weighed(job(), {"Opening": 1.0, "Extracting": 4.0}))
    assert found == pytest.approx([0, 0, 0, 0, 0, 0, 0.6, 1.0])


def test_notes_pass_unchanged_and_a_closed_job_cleans_up() -> None:
    ended = []

    def job() -> Job[None]:
        try:
            yield Note("here")
            yield Progress("a", 1, 2)
        finally:
            ended.append(True)

    for wrap in (lambda j: portion(j, 0, 1), lambda j: weighed(j, {"a": 1.0})):
        wrapped = wrap(job())
        assert next(wrapped) == Note("here")
        wrapped.close()
    assert ended == [True, True]


def test_an_error_comes_through() -> None:
    def job() -> Job[None]:
        yield Note("soon")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run(portion(job(), 0.0, 1.0))


@pytest.mark.parametrize("seed", range(20))
def test_the_fraction_never_goes_backwards(seed: int) -> None:
    rng, clock = random.Random(seed), OverallClock(clock=iter(range(10_000)).__next__)
    seen = 0.0
    for _ in range(200):
        event = Progress("a", rng.randrange(12), rng.choice((None, 10)))
        fraction = clock.follow(event).fraction
        if fraction is not None:
            assert seen <= fraction <= 1.0
            seen = fraction
    assert seen == 1.0


def test_the_time_left_is_of_the_whole_job() -> None:
    now = [0.0]
    clock = OverallClock(clock=lambda: now[0])
    # The second of two equal halves is at its middle, with a tenth of it per second.
    now[0] = 30.0
    found = clock.follow(
        Progress("b", 5, 10, rate=1.0, overall=0.75, overall_rate=0.05)
    )
    assert found.fraction == 0.75 and found.elapsed_s == 30.0
    assert found.left_s == pytest.approx(0.25 / 0.05)


def test_without_a_stated_rate_it_is_measured() -> None:
    now = [0.0]
    clock = OverallClock(clock=lambda: now[0])
    for second in range(11):
        now[0] = float(second)
        found = clock.follow(Progress("a", second, None, overall=second / 40))
    # A fortieth per second; three quarters are left.
    assert found.left_s == pytest.approx(30.0)


def test_an_estimate_counts_until_a_rate_is_known() -> None:
    now = [0.0]
    clock = OverallClock(60.0, lambda: now[0])
    now[0] = 20.0
    assert clock.follow(Progress("Starting", 0, None)).left_s == pytest.approx(40.0)
    now[0] = 90.0
    assert clock.now().left_s == 0.0


def test_a_job_of_one_stage_is_its_stage() -> None:
    meter = Meter("a", 4)
    clock = OverallClock()
    assert clock.follow(Progress("a", 0, None)).fraction is None
    assert clock.follow(meter.advance(3)).fraction == 0.75
