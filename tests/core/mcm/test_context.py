"""Context in the target (neighbours) and context from elsewhere (foreign)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from napari_mcm.core.encoders import Encoder
from napari_mcm.core.errors import TileError, TrainingError
from napari_mcm.core.features import extract
from napari_mcm.core.grid import make_grid
from napari_mcm.core.mcm import ContextConfig, FinetuneConfig
from napari_mcm.core.mcm.finetune import finetune, resume_finetune
from napari_mcm.core.mcm.head_pretraining import HeadPretraining, KeptWindows
from napari_mcm.core.mcm.model import PatchModel
from napari_mcm.core.mcm.teacher import TeacherCache
from napari_mcm.core.mcm.trainer import McmTrainer
from napari_mcm.core.mcm.window_pixels import (
    assign_foreign,
    read_unmasked,
    read_window,
)
from napari_mcm.core.mcm.windows import Source, hold_out_blocks, plan_epoch
from napari_mcm.core.runtime.jobs import Metrics, Progress, run
from napari_mcm.core.slides import Slide, open_slide
from napari_mcm.core.tissue import find_tissue
from napari_mcm.core.training import Run

pytestmark = pytest.mark.usefixtures("in_float32")


@pytest.fixture
def source(tissue_slide, config):
    slide = open_slide(tissue_slide)
    return Source(slide, find_tissue(slide, config.tissue))


@pytest.fixture
def mode(config):
    """Give a function that makes the config of a context mode."""

    def make(name, out="run", validation=0.0, **options):
        context = config.context.model_copy(update={"context_mode": name})
        optimiser = config.optimiser.model_copy(update=options)
        held_out = config.held_out.model_copy(update={"validation": validation})
        return config.model_copy(
            update={
                "context": context,
                "optimiser": optimiser,
                "held_out": held_out,
                "out": config.out.parent / out,
            }
        )

    return make


SYMMETRIES = [
    lambda p, k=k, mirror=mirror: np.rot90(p, k)[:, ::-1] if mirror else np.rot90(p, k)
    for k in range(4)
    for mirror in (False, True)
]


def read(ref, row):
    return ref.source.slide.read(tuple(ref.grid.xy[row]), (32, 32), ref.grid.mpp)


def mean_around(ref, row, teacher, turn, allowed):
    """Average the teacher over the 3 × 3 patches around one, as plainly as can be."""
    there = {tuple(at): i for i, at in enumerate(ref.grid.lattice.tolist())}
    r, c = ref.grid.lattice[row]
    rows = [
        there[place]
        for place in ((r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1))
        if place in there and there[place] in allowed
    ]
    patches = np.stack([turn(read(ref, i)) for i in rows])
    return rows, teacher.encode(patches).mean(axis=0)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_the_target_is_the_mean_of_the_teacher_around_each_patch(
    source, mode, student, teacher, flips, held
):
    config = mode("neighbours", flips=flips, validation=0.25)
    held_out = hold_out_blocks([source], config, 1.0)
    refs = held_out.refs if held else plan_epoch([source], config, 1.0, 0, held_out)
    learner = McmTrainer(student, teacher, config)
    assert isinstance(learner.head, PatchModel)
    counts, turns, beyond = set(), set(), 0
    for ref in refs[:10]:
        window = read_window(ref, config)
        assert not window.masked.any() and len(window.masked_pixels) == 0
        allowed = set(range(len(ref.grid)))
        if held:
            # Neighbours of what is held out are of the same block, so held out, too.
            x0, y0, x1, y1 = held_out.boxes[0].T
            x, y = ref.grid.centres.T[..., None]
            inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)  # (patches, blocks)
            block = np.flatnonzero(inside[ref.index.max()])[0]
            allowed = set(np.flatnonzero(inside[:, block]).tolist())
        rows = window.patches[window.visible]
        expected = []
        for row, shown in zip(rows, window.visible_pixels, strict=True):
            fits = [np.array_equal(s(read(ref, row)), shown) for s in SYMMETRIES]
            turn = SYMMETRIES[fits.index(True)]
            near, mean = mean_around(ref, row, teacher, turn, allowed)
            expected.append(mean)
            counts.add(len(near))
            beyond += len(set(near) - set(ref.index.ravel().tolist()))
            turns.add(fits.index(True))
        raw = torch.from_numpy(np.stack(expected))
        assert_close(learner.teach([window]), raw, rtol=1e-4, atol=1e-4)
        scaled = torch.nn.functional.layer_norm(raw, raw.shape[-1:])
        assert_close(learner.targets_of([window]), scaled, rtol=1e-3, atol=1e-3)
    # Whole neighbourhoods and ones at borders, beyond the window where there is more.
    assert 9 in counts and min(counts) < 9 and beyond
    assert len(turns) > 3 if flips else turns == {0}


def test_several_windows_have_the_targets_of_each(source, mode, student, teacher):
    config = mode("neighbours")
    learner = McmTrainer(student, teacher, config)
    windows = [read_window(r, config) for r in plan_epoch([source], config, 1.0, 0)[:4]]
    together = learner.targets_of(windows)
    apart = torch.cat([learner.targets_of([w]) for w in windows])
    assert_close(together, apart, rtol=1e-4, atol=1e-4)
    _, predictions = learner.predict(windows)
    assert predictions.shape == together.shape
    seen = run(learner.step(windows, 0.0, False, 0))
    learner.head.eval()
    l2 = (predictions - together).square().mean()
    assert seen.loss == pytest.approx(float(l2.detach()), rel=1e-4)


def test_each_patch_is_encoded_once_and_what_cannot_be_read_is_no_neighbour(
    source, mode, student, teacher, monkeypatch
):
    config = mode("neighbours", flips=False)
    refs = plan_epoch([source], config, 1.0, 0)
    ref = next(r for r in refs if (r.index >= 0).all())
    whole = read_window(ref, config)
    encoded = []
    encode = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda e, p: encoded.append(len(p)) or encode(e, p)
    )
    McmTrainer(student, teacher, config).teach([whole])
    assert encoded == [9 + len(whole.ring.pixels)] and encoded[0] <= 25
    centre = int(ref.index[1, 1])
    bad, plain = tuple(ref.grid.xy[centre]), Slide.read

    def damaged(self, xy, size, mpp):
        if tuple(xy) == bad:
            raise TileError("cannot be decoded")
        return plain(self, xy, size, mpp)

    monkeypatch.setattr(Slide, "read", damaged)
    window = read_window(ref, config)
    assert window.damaged == 1 and window.visible.sum() == 8
    np.testing.assert_allclose(window.ring.weights.sum(axis=1), 1, rtol=1e-6)
    # The corner patch lost one of its neighbours.
    first, before = window.ring.weights[0], whole.ring.weights[0]
    assert (first > 0).sum() == (before > 0).sum() - 1


def test_a_damaged_patch_around_a_window_is_counted(source, mode, monkeypatch):
    config = mode("neighbours", flips=False)
    ref = next(
        r
        for r in plan_epoch([source], config, 1.0, 0)
        if len(read_window(r, config).ring.pixels)
    )
    whole = read_window(ref, config)
    places = ref.grid.lattice[ref.index[ref.index >= 0]]
    touching = np.abs(ref.grid.lattice[:, None] - places).max(axis=2).min(axis=1) == 1
    bad, plain = tuple(ref.grid.xy[touching.argmax()]), Slide.read

    def damaged(self, xy, size, mpp):
        if tuple(xy) == bad:
            raise TileError("cannot be decoded")
        return plain(self, xy, size, mpp)

    monkeypatch.setattr(Slide, "read", damaged)
    window = read_window(ref, config)
    assert whole.damaged == 0 and window.damaged == 1
    assert len(window.ring.pixels) == len(whole.ring.pixels) - 1
    np.testing.assert_array_equal(window.visible, whole.visible)


def test_aligned_neighbours_are_looked_up(
    source, mode, student, teacher, config, tmp_path, monkeypatch
):
    folder = tmp_path / "features"
    grid = make_grid(source.slide, source.tissue, config.grid)
    run(
        extract(
            source.slide, grid, teacher, folder / f"{source.slide.name}.features.zarr"
        )
    )
    asked = mode("neighbours", aligned=True, flips=False)
    plain = run(finetune(asked.model_copy(update={"out": tmp_path / "plain"})))
    seen, encode = [], Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda e, p: seen.append(e.fingerprint) or encode(e, p)
    )
    shared = run(finetune(asked.model_copy(update={"teacher_features": folder})))
    assert seen and teacher.fingerprint not in seen
    one, two = (Run.open(r.run_dir).metrics()["loss"] for r in (plain, shared))
    np.testing.assert_allclose(one, two, rtol=1e-4)


def test_a_cache_gives_the_same_targets(source, mode, student, teacher):
    config = mode("neighbours")
    cached = McmTrainer(student, teacher, config, cache=TeacherCache(64))
    plain = McmTrainer(student, teacher, config)
    window = read_window(plan_epoch([source], config, 1.0, 0)[0], config)
    first, again = (cached.teach([window]) for _ in range(2))
    assert cached.cache.found == cached.cache.asked / 2 > 0
    assert_close(first, plain.teach([window]), rtol=1e-5, atol=1e-5)
    assert torch.equal(first, again)


def patches_of(pixels):
    return [patch.tobytes() for patch in pixels]


@pytest.mark.parametrize("flips", [False, True])
def test_what_is_seen_is_of_another_place_and_all_else_is_the_same(source, mode, flips):
    foreign, plain = mode("foreign", flips=flips), mode("masked", flips=flips)
    refs = plan_epoch([source], foreign, 1.0, 0)
    ours = plan_epoch([source], plain, 1.0, 0)
    assert [r.key for r in refs] == [r.key for r in ours]
    used = []
    for ref, own in zip(refs, ours, strict=True):
        window, normal = read_window(ref, foreign), read_window(own, plain)
        np.testing.assert_array_equal(window.masked, normal.masked)
        np.testing.assert_array_equal(window.masked_pixels, normal.masked_pixels)
        # As many patches, at places that the method would see.
        assert window.visible.sum() == normal.visible.sum()
        np.testing.assert_array_equal(window.visible, normal.visible)
        other = ref.foreign
        shared = np.intersect1d(ref.index[ref.index >= 0], other.index)
        assert len(shared) == 0
        used.append(other.key)
        # Each visible patch is one of that place, as its own window shows it.
        whole = read_unmasked(next(r for r in ours if r.key == other.key), plain)
        theirs = patches_of(whole.visible_pixels)
        assert set(patches_of(window.visible_pixels)) <= set(theirs)
        assert len(set(patches_of(window.visible_pixels))) == window.visible.sum()
        at = dict(zip(np.flatnonzero(whole.visible), theirs, strict=True))
        slots = np.flatnonzero(window.visible)
        for slot, patch in zip(slots, patches_of(window.visible_pixels), strict=True):
            assert at.get(slot, patch) == patch, "the same place, where it has tissue"
    # Over an epoch each window is seen once: the student sees what it always sees.
    assert sorted(used) == sorted(r.key for r in refs)
    again = plan_epoch([source], foreign, 1.0, 0)
    assert [r.foreign.key for r in again] == [r.foreign.key for r in refs]
    later = plan_epoch([source], foreign, 1.0, 1)
    assert len(later) != len(refs) or [r.foreign.key[-1] for r in later] != [
        r.foreign.key[-1] for r in refs
    ]


def test_places_without_tissue_are_filled_with_what_the_other_window_has():
    visible = np.array([1, 0, 1, 1, 0, 1], bool)
    tissue = np.array([1, 1, 0, 0, 1, 1], bool)
    places, sources = assign_foreign(visible, tissue)
    assert places.tolist() == [0, 2, 3, 5]
    assert sources.tolist() == [0, 1, 4, 5]
    # Too few patches there: as many as there are, each once.
    places, sources = assign_foreign(visible, np.array([0, 0, 1, 0, 1, 0], bool))
    assert places.tolist() == [0, 2] and sources.tolist() == [4, 2]


def test_held_out_windows_see_other_held_out_places(source, mode):
    config = mode("foreign", validation=0.25)
    held_out = hold_out_blocks([source], config, 1.0)
    keys = {ref.key for ref in held_out.refs}
    for ref in held_out.refs:
        shared = np.intersect1d(ref.index[ref.index >= 0], ref.foreign.index)
        assert len(shared) == 0 and ref.foreign.key in keys
    for ref in plan_epoch([source], config, 1.0, 0, held_out):
        assert ref.foreign.key not in keys


def test_a_slide_s_only_window_sees_another_slide(source, mode):
    wide = {"s": 16, "window_tissue": 0.01}
    config = mode("foreign")
    config = config.model_copy(
        update={"context": config.context.model_copy(update=wide)}
    )
    second = Source(source.slide, source.tissue)
    alone = 0
    for epoch in range(12):
        refs = plan_epoch([source, second], config, 1.0, epoch)
        for which in (0, 1):
            own = [ref for ref in refs if ref.key[2] == which]
            assert all((ref.foreign.key[2] == which) == (len(own) > 1) for ref in own)
            alone += len(own) == 1
        if len([ref for ref in refs if ref.key[2] == 0]) == 1:
            with pytest.raises(TrainingError, match="another place"):
                plan_epoch([source], config, 1.0, epoch)
    assert alone


def test_the_head_warms_up_on_foreign_features(source, mode, student, teacher):
    """Features that name a window's place: what trains must be another's."""
    config = mode("foreign")
    learner = McmTrainer(student, teacher, config)
    warm_up = HeadPretraining(learner, [], config, config.out)
    count, n = 6, 9
    tissue = np.random.default_rng(0).random((count, n)) < 0.8
    shown = np.random.default_rng(1).random((count, n)) < 0.8
    seen = torch.zeros(count, n, student.dim)
    for row in range(count):
        for slot in np.flatnonzero(shown[row]):
            seen[row, slot] = 100 * row + slot + 1
    kept = KeptWindows(tissue, seen, torch.randn(count, n, teacher.dim), shown)
    calls = []
    learner.head_loss = lambda *given: (
        calls.append(given) or (sum(p.sum() for p in learner.head.parameters()) * 0)
    )
    optimiser = torch.optim.SGD(learner.head.parameters(), lr=0.0)
    rows = np.arange(count)
    warm_up._step(kept, rows, 0, optimiser)
    ((features, visible, masked, taught),) = calls
    values = features[:, 0].long().tolist()
    assert visible.sum() == len(values) and 0 not in values
    assert not (visible & masked).any() and (masked <= tissue).all()
    row_of, _ = np.nonzero(visible)
    for row in range(count):
        mine = [v for v, r in zip(values, row_of, strict=True) if r == row]
        assert {(v - 1) // 100 for v in mine} == {row}, "of its own foreign window"
        wanted = int(tissue[row].sum() - masked[row].sum())
        assert len(mine) == min(wanted, int(shown[row].sum())) == len(set(mine))
    assert_close(taught, kept.taught[masked])


def test_the_warm_up_encodes_the_other_place_for_the_student_only(
    source, mode, student, teacher
):
    config = mode("foreign", flips=False)
    refs = plan_epoch([source], config, 1.0, 0)[:3]
    learner = McmTrainer(student, teacher, config)
    kept = run(HeadPretraining(learner, refs, config, config.out / "kept").encode())
    for row, ref in enumerate(refs):
        index, theirs = ref.index.ravel(), ref.foreign.index.ravel()
        np.testing.assert_array_equal(kept.tissue[row], index >= 0)
        np.testing.assert_array_equal(kept.shown[row], theirs >= 0)
        own = np.stack([read(ref, i) for i in index[index >= 0]])
        other = np.stack([read(ref, i) for i in theirs[theirs >= 0]])
        assert_close(
            kept.taught[row][index >= 0],
            torch.from_numpy(teacher.encode(own)),
            rtol=1e-4,
            atol=1e-4,
        )
        assert_close(
            kept.seen[row][theirs >= 0],
            torch.from_numpy(student.encode(other)),
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize("name", ["foreign", "neighbours"])
@pytest.mark.parametrize("late", [False, True])
def test_a_resumed_run_ends_in_the_same_weights(mode, name, late):
    options = {"batch_windows": 2, "head_epochs": 2}
    whole = run(finetune(mode(name, "whole", 0.2, **options)))
    other = mode(name, "cancelled", 0.2, **options)
    job = finetune(other)
    for event in job:
        if late and isinstance(event, Metrics) and event.step == 1:
            break
        if isinstance(event, Progress) and event.stage == "Head warm-up" and not late:
            break
    job.close()
    run(resume_finetune(other.out))
    ours, theirs = (
        load_file(p / "encoder" / "model.safetensors")
        for p in (whole.run_dir, other.out)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    one, two = (Run.open(p).metrics() for p in (whole.run_dir, other.out))
    for column in ("loss", "held_out_loss", "feature_rank"):
        np.testing.assert_array_equal(one[column], two[column])


def test_nothing_need_be_masked_where_nothing_is_predicted_from_context(source, mode):
    plain = mode("none")
    context = ContextConfig(context_mode="none", s=3, mask_ratio=0)
    config = plain.model_copy(update={"context": context})
    ref = plan_epoch([source], config, 1.0, 0)[0]
    window = read_window(ref, config)
    assert window.visible.sum() == (ref.index >= 0).sum() == len(window.visible_pixels)
    assert not window.masked.any()
    result = run(finetune(config))
    assert np.isfinite(Run.open(result.run_dir).metrics()["loss"]).all()
    for wrong in ("masked", "shuffled", "foreign"):
        with pytest.raises(ValueError, match="leaves nothing to predict"):
            FinetuneConfig(context={"context_mode": wrong, "mask_ratio": 0})
