"""Streams: a long clip learnt a few frames at a time is tracked as if it were one clip."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import SIDE, TINY_RUN, TwoSquares, small_model, squares

from sam2.config import find_config
from sam2.training import augment
from sam2.training.clips import Bank, ClipPlan, encode_frames, object_masks, track_clip
from sam2.training.config import Phase
from sam2.training.data import DirectSource
from sam2.training.lessons import Lessons
from sam2.training.streams import Stream, Streams, draw_length
from sam2.training.train import Trainer
from sam2.training.windows import WindowedSAM2

PHASE = Phase("streams", 1.0, batch=2, objects=2, frames=3, prompt_chances=(0.0, 0.0, 1.0), strength=0.0)


def stream_of(model, length: int = 7) -> Stream:
    rgb, labels = augment.split(squares(1))
    targets = object_masks(labels, torch.tensor([[1, 2]]))
    return Stream(rgb, targets, ClipPlan("box"), Bank(model), (SIDE, 0, 0), length)


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


def test_it_plays_to_the_end_and_back():
    stream = stream_of(small_model())
    shown = []
    while not stream.is_over:
        images, targets = stream.next_frames(3)
        assert images.shape[1] == targets.shape[1] <= 3
        shown += [next(i for i in range(4) if torch.equal(stream.images[0, i], image)) for image in images[0]]
        stream.advance(images.shape[1])
    assert shown == [0, 1, 2, 3, 2, 1, 0]
    lengths = {draw_length(np.random.default_rng(seed), 4, at_once=1) for seed in range(50)}
    assert lengths == {4, 5, 6, 7}, "no frame before the first"
    lengths = {draw_length(np.random.default_rng(seed), 10, at_once=4) for seed in range(50)}
    assert lengths == {10, 12, 16}, "whole steps where the clip is long enough"


def test_frames_at_a_time_are_tracked_as_all_at_once():
    model = small_model().eval()
    stream = stream_of(model)
    order = [0, 1, 2, 3, 2, 1, 0]
    with torch.no_grad():
        torch.manual_seed(1)  # boxes are drawn
        images, targets = stream.images[:, order], stream.targets[:, order]
        whole, _ = track_clip(model, encode_frames(model, images), targets, stream.plan)
        torch.manual_seed(1)
        parts = []
        while not stream.is_over:
            images, targets = stream.next_frames(3)
            features = encode_frames(model, images)
            parts += track_clip(model, features, targets, stream.plan, stream.bank, stream.time)[0]
            stream.advance(images.shape[1])
    assert len(parts) == len(whole) == 7
    for part, one in zip(parts, whole, strict=True):  # measured 4e-7; a bank that lost a frame: 3e-3
        noise = (part.decoded.masks - one.decoded.masks).abs().max() / one.decoded.masks.abs().max()
        assert noise <= 1e-4


def test_gradients_end_where_the_step_began():
    lessons = Lessons(small_model(), min_area=10, loss_stride=4).train()
    rng = np.random.default_rng(0)
    lessons(squares(2), PHASE, rng)["loss"].backward()
    stream = lessons.streams._open[0][-1]
    assert stream.time == 3 and all(not m.requires_grad for _, m, _ in stream.bank.prompted + stream.bank.tracked)
    for _ in range(3):  # three more are opened before this one goes on
        lessons(squares(2), PHASE, rng)
    assert not lessons.streams.is_due(0)
    lessons.zero_grad()
    lessons(None, PHASE, rng)["loss"].backward()
    assert stream.time > 3 and lessons.model.memory_attention.layers[0].linear1.weight.grad.abs().sum() > 0


def test_what_is_remembered_does_not_grow():
    bank = Bank(small_model())
    entry = torch.zeros(1, 32, 2, 2), torch.zeros(1, 128)
    bank.prompted = [(0, *entry)]
    bank.tracked = [(time, *entry) for time in range(1, 40)]
    before = bank.read(40)
    bank.detach()
    assert len(bank.tracked) == 15
    assert (
        all(torch.equal(a, b) for a, b in zip(before[:2], bank.read(40)[:2], strict=True))
        and before[2] == bank.read(40)[2]
    )


def test_streams_take_turns_and_those_that_are_over_make_room():
    streams, model = Streams(), small_model()
    made = [stream_of(model, length=4) for _ in range(5)]
    for stream in made[:4]:
        assert streams.is_due(16)
        streams.begin(16, stream)
        assert streams.take(16) is stream
        stream.advance(2)
    assert not streams.is_due(16) and streams.is_due(0), "windows of another side have their own"
    assert [streams.take(16) for _ in range(8)] == made[:4] * 2
    made[0].advance(2)
    assert streams.is_due(16)
    streams.begin(16, made[4])
    assert [streams.take(16) for _ in range(5)] == [made[4], *made[1:4], made[4]]


def test_windows_keep_their_place():
    model = WindowedSAM2(replace(find_config("nano"), image_size=4 * SIDE))
    lessons = Lessons(model, min_area=10, loss_stride=4).train()
    phase = replace(PHASE, window=SIDE)
    clips = torch.zeros(2, 4, 4 * SIDE, 4 * SIDE, 4, dtype=torch.uint8)
    clips[:, :, :SIDE, :SIDE] = squares(2)
    places = []
    for i in range(8):
        lessons(clips if lessons.streams.is_due(SIDE) else None, phase, np.random.default_rng(i))
        places.append((lessons.model.view.row, lessons.model.view.column))
    assert places[:4] == places[4:] and len(set(places)) > 1


def test_a_run_opens_streams_as_they_end(tmp_path, monkeypatch):
    begun, begin = [], Streams.begin
    monkeypatch.setattr(
        Streams, "begin", lambda self, window, stream: begun.append(stream) or begin(self, window, stream)
    )
    phase = Phase("clips", 1.0, batch=1, objects=2, frames=2, streams=1.0)
    trainer = Trainer(replace(TINY_RUN, steps=20, phases=(phase,)), TwoSquares(), tmp_path, torch.device("cpu"))
    trainer.run()
    assert trainer.progress.step == 20
    assert 5 <= len(begun) <= 10, "of 4 to 7 frames, two at a time: 2 to 4 steps each"
    assert sum(stream.time for stream in begun) <= 40 and all(stream.is_over for stream in begun[:-4])


def test_a_phase_draws_them_by_their_share():
    phase = Phase("clips", 1.0, batch=8, objects=2, frames=4, stills=0.25, streams=0.5)
    rng = np.random.default_rng(0)
    kinds = [phase.draw(rng, 256).kind for _ in range(400)]
    shares = {kind: kinds.count(kind) / 400 for kind in ("stills", "streams", "clips")}
    assert shares == pytest.approx({"stills": 0.25, "streams": 0.5, "clips": 0.25}, abs=0.07)


def test_none_outlives_a_step_that_failed_or_a_run_thrown_back(tmp_path, monkeypatch):
    phase = Phase("clips", 1.0, batch=2, objects=2, frames=2, streams=1.0)
    trainer = Trainer(replace(TINY_RUN, steps=20, phases=(phase,)), TwoSquares(), tmp_path, torch.device("cpu"))
    source = DirectSource(TwoSquares(), torch.device("cpu"), 6)
    trainer.save()
    trainer._step_that_fits(source)
    trainer._step_that_fits(source)
    forward, tries = trainer.wrapped.forward, []

    def no_room_at_first(clips, phase, rng):
        tries.append(clips if clips is None else len(clips))
        losses = forward(clips, phase, rng)  # what it remembers has advanced
        if len(tries) == 1:
            raise torch.OutOfMemoryError("no room")
        return losses

    monkeypatch.setattr(trainer.wrapped, "forward", no_room_at_first)
    trainer._step_that_fits(source)
    open_ = trainer.lessons.streams._open[0]
    assert tries == [2, 1] and [len(stream.images) for stream in open_] == [1]
    assert trainer.resume() and trainer.lessons.streams.is_due(0) and not trainer.lessons.streams._open
