"""Small holes in a stream: which masks have them filled, and which memories are made of masks with holes."""

import pytest
from golden_mutations import around
from test_stream_golden import Stream, caught, started

from sam2 import frame_step
from sam2.frame_step import FrameStep
from sam2.small_holes import fill_small_holes


def test_filled_holes_equal_official():
    assert not started("H", 0, 1, 2, fill_hole_area=8).differences(0, 1)


def prompted_memory_with_its_holes(monkeypatch):
    def apply_prompt(original, self, *args):
        monkeypatch.setattr(self, "_fill_hole_area", 0)
        answer = original(self, *args)
        monkeypatch.setattr(self, "_fill_hole_area", 8)
        return answer

    around(monkeypatch, FrameStep, "apply_prompt", apply_prompt)


def tracked_memory_without_holes(monkeypatch):
    def remember(original, model, store, features, writing, answer, from_prompt):
        filled = answer._replace(low_res_logits=fill_small_holes(answer.low_res_logits, 8))
        return original(model, store, features, writing, answer if from_prompt else filled, from_prompt)

    around(monkeypatch, frame_step, "_remember", remember)


@pytest.mark.parametrize("mistake", [prompted_memory_with_its_holes, tracked_memory_without_holes])
def test_holes_in_the_wrong_memory_are_caught(mistake, monkeypatch):
    mistake(monkeypatch)
    stream = Stream("H", fill_hole_area=8)
    stream.run(0, 1, 2, prompts={0: [stream.prompt(0)]})
    assert "s1_low64" in caught(stream, 1)
