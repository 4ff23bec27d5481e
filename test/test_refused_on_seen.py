"""What is refused of prompts on images that came, while no other comes."""

import pytest
from bench import names, point
from fakes import FakeTracker
from test_prompts_on_seen import WAIT_S, S, Still, clock

import sam2
from sam2_ros.requests import Add, Code

__all__ = ["clock"]  # a fixture


def test_only_what_is_too_much_is_refused(clock):
    line = Still(clock, FakeTracker(max_objects=1))
    line.step(5)
    line.add(point("cup", stamp=5))
    line.add(point("mug", stamp=5))
    line.wait()
    assert line.codes() == [Code.LIMIT_REACHED, Code.OK] and names(line.results[-1]) == ["cup"]


class Choosy(FakeTracker):
    """Refuses prompts for these objects, if all come at once, on an image that was seen."""

    def __init__(self, *names):
        super().__init__()
        self.names = set(names)

    def check(self, prompts, frame=None, seen=False):
        assert seen == (frame is None), "no next image is waited for"
        self._choose(prompts if seen else ())
        return super().check(prompts, frame, seen)

    def prompt(self, prompts, accept, progress):
        self._choose(prompts)
        return super().prompt(prompts, accept)

    def _choose(self, prompts):
        prompts = [prompts] if isinstance(prompts, sam2.Prompt) else prompts
        if self.names <= {prompt.object_id for prompt in prompts}:
            raise sam2.LimitReached("too many points on the newest image")


@pytest.mark.parametrize(
    ("refused", "codes"),
    [(["cup"], {"cup": Code.LIMIT_REACHED}), (["cup", "mug"], {"mug": Code.LIMIT_REACHED})],
    ids=["alone", "together"],
)
def test_what_cannot_be_done_on_an_image_that_was_seen_is_refused_and_nothing_else(clock, refused, codes):
    line, answers = Still(clock, Choosy(*refused)), {}
    line.step(5)
    for name in ("cup", "mug", "pan"):
        reply = lambda answer, name=name: answers.update({name: answer.code})  # noqa: E731
        line.mailbox.post_request(Add([point(name, stamp=5)], clock.ns + int(WAIT_S * S), reply))
    line.wait()
    assert answers == dict.fromkeys(("cup", "mug", "pan"), Code.OK) | codes


def test_when_all_are_refused_nothing_is_published_again(clock):
    line = Still(clock, FakeTracker(raise_on={"prompt": [sam2.BadInput("odd")]}))
    line.step(5)
    line.add(point("cup", stamp=5))
    line.wait()
    assert line.codes() == [Code.BAD_INPUT] and len(line.results) == 1


def test_what_is_tracked_already_is_refused_here_as_well(clock):
    line = Still(clock, detector_unattended=True)
    line.add(point("a"))
    line.step(5)
    line.answers.get_nowait()
    line.add(point("cup", stamp=5))
    line.wait()
    answer = line.answers.get_nowait()
    assert answer.code is Code.BAD_INPUT and "shows 'a', which is tracked already" in answer.sentence
    assert line.pipeline.tracker.object_ids == ["a"] and len(line.results) == 1
