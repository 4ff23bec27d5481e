"""Which image is meant, and when it was, where stamps are missing or objects have gone."""

import queue
import time

import numpy as np
import pytest
from bench import PATIENCE_S, Bench, names, point
from fakes import image_like

from sam2_ros.mailbox import Arrival
from sam2_ros.requests import Add, Code, Reset

S = 10**9


def test_after_a_reset_the_images_of_before_can_still_be_prompted():
    """They may still be on somebody's screen."""
    with Bench() as bench:
        bench.add(point("a"))
        bench.step(1)
        bench.ask(Reset)
        assert [bench.answer().code for _ in range(2)] == [Code.OK, Code.OK]
        bench.add(point("b", stamp=1))
        assert names(bench.step(2)) == ["b"]
        assert bench.answer().headers == ("header 1",)


@pytest.mark.parametrize("comes", [True, False])
def test_who_hears_of_an_object_finds_it_in_the_newest_result(comes):
    """And so can list it, or choose it as the target, at once."""
    with Bench() as bench:
        bench.step(1)
        found = queue.Queue()
        reply = lambda answer: found.put((answer.code, bench.pipeline.outputs.newest.object_ids))  # noqa: E731
        wait_ns = 3600 * S if comes else 0
        bench.mailbox.post_request(Add([point("cup")], time.monotonic_ns() + wait_ns, reply, newest_will_do=True))
        if comes:
            bench.image(2)
        assert found.get(timeout=PATIENCE_S) == (Code.OK, ["cup"])


def test_an_image_without_a_stamp_is_as_much_later_as_it_came_later():
    message = image_like(np.zeros((48, 64, 3), np.uint8), "rgb8")
    message.header = "header"
    times = []
    with Bench() as bench:
        for stamp_ns, arrived_s in ((0, 10), (0, 11), (500 * S, 12), (0, 14)):
            bench.mailbox.post_image(Arrival(message, stamp_ns, arrived_s * S))
            times.append(bench.outputs.get()[1].stamp_ns)
    assert abs(times[0] - time.time_ns()) < 600 * S and times[1] - times[0] == S
    assert times[2:] == [500 * S, 502 * S]
