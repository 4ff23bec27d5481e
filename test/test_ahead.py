"""A frame encoded before its step gives what it would have given, is encoded once, and is not kept for ever."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_stream import PERIOD_NS, images, small_model

import sam2
from sam2.ahead import Ahead
from sam2.frame_step import FrameStep

FRAMES = [sam2.Frame(rgb, (n + 1) * PERIOD_NS) for n, rgb in enumerate(images()[:6])]
PROMPT = sam2.Prompt("a", points_xy=[(20, 20)], labels=[1])


def play(ahead: bool) -> list[np.ndarray]:
    tracker = sam2.Tracker(small_model())
    logits = []
    for frame, following in zip(FRAMES, [*FRAMES[1:], None], strict=True):
        if ahead and following is not None:
            tracker.encode_ahead(following)
        logits.append(tracker.step(frame, [PROMPT] if frame is FRAMES[0] else [])[0].low_res_logits)
    return logits


@pytest.fixture
def encoded(monkeypatch) -> list:
    """The images that were encoded."""
    encode, calls = FrameStep.encode, []

    def count(self, batch):
        calls.extend(batch)
        return encode(self, batch)

    monkeypatch.setattr(FrameStep, "encode", count)
    return calls


def test_a_stream_encoded_ahead_is_bit_for_bit_the_stream(encoded):
    expected = play(ahead=False)
    assert len(encoded) == len(FRAMES)
    encoded.clear()
    got = play(ahead=True)
    assert all(np.array_equal(one, other) for one, other in zip(expected, got, strict=True))
    order = [next(n for n, frame in enumerate(FRAMES) if frame.rgb is rgb) for rgb in encoded]
    assert order == [1, 0, 2, 3, 4, 5], "each once, the next before the one in hand"


def test_the_features_of_another_frame_are_noticed(monkeypatch):
    expected = play(ahead=False)
    monkeypatch.setattr(Ahead, "_find", lambda self, frame: self._kept[-1] if self._kept else None)
    assert not all(np.array_equal(one, other) for one, other in zip(expected, play(ahead=True), strict=True))


def test_the_same_image_in_another_frame_is_another_frame(encoded):
    tracker = sam2.Tracker(small_model())
    tracker.encode_ahead(FRAMES[0])
    tracker.encode_ahead(FRAMES[0])
    assert len(encoded) == 1
    tracker.step(sam2.Frame(FRAMES[0].rgb, 5))
    assert len(encoded) == 2


def test_what_is_never_stepped_is_forgotten():
    tracker = sam2.Tracker(small_model())
    for frame in FRAMES:
        tracker.encode_ahead(frame)
    assert [one.frame for one in tracker._ahead._kept] == FRAMES[-2:]
    tracker.step(FRAMES[-1])
    assert tracker._ahead._kept == []
    tracker.encode_ahead(FRAMES[0])
    tracker.reset()
    assert tracker._ahead._kept == []


def test_a_step_that_failed_finds_its_frame_again(encoded, monkeypatch):
    tracker = sam2.Tracker(small_model())
    tracker.encode_ahead(FRAMES[0])
    with monkeypatch.context() as patch:
        patch.setattr(FrameStep, "apply_prompt", lambda *arguments: (_ for _ in ()).throw(RuntimeError("broken")))
        with pytest.raises(RuntimeError):
            tracker.step(FRAMES[0], [PROMPT])
    tracker.step(FRAMES[0], [PROMPT])
    assert len(encoded) == 1


def test_a_broken_frame_is_refused_and_nothing_is_kept():
    tracker = sam2.Tracker(small_model())
    with pytest.raises(sam2.BadInput):
        tracker.encode_ahead(sam2.Frame(np.zeros((4, 4), np.uint8)))
    assert tracker._ahead._kept == []


class Streams:
    """Stands for CUDA's streams: notes what is done on which, in the order in which it is asked for."""

    def __init__(self, monkeypatch):
        self.log, self.main, made = [], self.stream("main"), []
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(self.stream("side")) or made[-1])
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.main)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())

    def stream(self, name):
        return SimpleNamespace(
            wait_stream=lambda other: self.log.append((name, "waits for", "stream")),
            wait_event=lambda event: self.log.append((name, "waits for", event)),
            record_event=lambda: self.log.append((name, "is at", len(self.log))) or len(self.log) - 1,
        )


def test_every_frame_is_waited_for_before_it_is_used(monkeypatch):
    streams = Streams(monkeypatch)
    ahead = Ahead(torch.device("cuda"))

    def encode():
        streams.log.append("encodes")
        return [SimpleNamespace(record_stream=lambda stream: None)]

    def waits() -> list:
        return [what for *_, what in [entry for entry in streams.log if entry[:2] == ("main", "waits for")]]

    ahead.begin(FRAMES[1], encode)
    assert ahead.get(FRAMES[0]) is None and waits() == ["stream"], "the buffers of the encoder are in use"
    for frame, following in zip(FRAMES[1:], FRAMES[2:], strict=False):
        ready = max(index for index, entry in enumerate(streams.log) if entry[:2] == ("side", "is at"))
        assert streams.log[ready - 1] == "encodes"
        ahead.begin(following, encode)
        assert ahead.get(frame) is not None and waits()[-1] == ready, "this frame's, not the next one's"
        ahead.drop(frame)


def test_images_of_several_cameras_wait_for_the_one_that_is_being_encoded(monkeypatch):
    tracker = sam2.Tracker(small_model())
    streams = Streams(monkeypatch)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    tracker._ahead = Ahead(torch.device("cuda"))
    encode = tracker._network.encode
    tracker._network.encode = lambda batch: streams.log.append("encodes") or encode(batch)
    tracker.encode_ahead(FRAMES[1])
    streams.log.clear()
    tracker.encode_together([(tracker, FRAMES[0])])
    assert streams.log == [("main", "waits for", "stream"), "encodes"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_second_stream_changes_nothing():
    def play(ahead: bool) -> list[np.ndarray]:
        tracker = sam2.Tracker(sam2.load_model("nano", device="cuda"))
        frames = [sam2.Frame(FRAMES[n % 6].rgb, (n + 1) * PERIOD_NS) for n in range(36)]  # often enough for graphs
        logits = []
        for frame, following in zip(frames, [*frames[1:], None], strict=True):
            if ahead and following is not None:
                tracker.encode_ahead(following)
            logits.append(tracker.step(frame, [] if logits else [PROMPT])[0].low_res_logits)
        return logits

    assert all(np.array_equal(one, other) for one, other in zip(play(False), play(True), strict=True))
