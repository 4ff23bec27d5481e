"""What the diagnostics make of a camera's own pace: slow is not silent, and rates are those of now."""

import pytest

from sam2_ros.health import Counters, Level, Situation, report, silence
from sam2_ros.image_source import ImageSource
from sam2_ros.params import Settings

S = 1_000_000_000
BEGIN = 1000 * S
ACTIVE = Situation("active", "ready", since_ns=BEGIN)
SOURCE = ImageSource(publishers=1, topic="/image", reliability="reliable")


def camera(*paces, **change):
    """paces: (images per second, for how many seconds), one after the other; returns the counters and the end."""
    counters = Counters(**change)
    now_ns = BEGIN
    for rate, seconds in paces:
        for _ in range(round(rate * seconds)):
            now_ns += round(S / rate)
            counters.receive_image(now_ns, 100)
    return counters, now_ns


def images(counters, now_ns):
    return next(f for f in report(counters, SOURCE, ACTIVE, Settings(), now_ns) if f.name == "images")


@pytest.mark.parametrize("rate", [0.5, 1.0, 30.0])
def test_a_slow_camera_is_not_silent_until_it_misses_its_own_pace(rate):
    counters, now_ns = camera((rate, 20))
    patience_s = max(0.8, 2.5 / rate)
    for after_s, is_silent in ((0.95 * patience_s, False), (1.05 * patience_s, True)):
        at_ns = now_ns + round(after_s * S)
        assert silence(counters, Settings(), BEGIN, at_ns)[0] == is_silent
        assert (images(counters, at_ns).level is Level.ERROR) == is_silent


def test_one_long_pause_does_not_make_it_patient():
    counters, now_ns = camera((10, 3), (0.1, 10), (10, 0.2))
    assert "no image for 1.0 s" in images(counters, now_ns + S).sentence


@pytest.mark.parametrize(
    ("paces", "rate"),
    [
        (((20, 30), (2, 6)), 2.0),
        (((8, 30), (1, 12)), 1.0),
        (((200, 9),), 200.0),
        (((10, 30), (50, 0.06)), 10.5),  # three that come at once are no pace
    ],
)
def test_the_rate_is_that_of_now(paces, rate):
    counters, now_ns = camera(*paces)
    assert float(images(counters, now_ns).values["received per second"]) == pytest.approx(rate, rel=0.02)


def test_the_rate_falls_once_nothing_comes():
    counters, now_ns = camera((10, 3))
    after = (0.1, 0.2, 1.2, 4.0)
    rates = [float(images(counters, now_ns + round(s * S)).values["received per second"]) for s in after]
    # 29 periods; of what has passed since, two periods are no delay. After 4 s, 9 are in the last five.
    assert rates == pytest.approx([10.0, 10.0, 29 / 3.9, 9 / 4.7], abs=0.006)


@pytest.mark.parametrize(("count", "p50", "p95"), [(1, 1, 1), (3, 2, 3), (100, 51, 96)])
def test_what_half_of_all_and_what_nearly_all_images_take(count, p50, p95):
    counters = Counters()
    for seconds in range(count, 0, -1):
        counters.count_step(seconds * S)
    (tracking,) = (f for f in report(counters, SOURCE, ACTIVE, Settings(), BEGIN) if f.name == "tracking")
    assert [float(tracking.values[f"network p{percent} s"]) for percent in (50, 95)] == [p50, p95]


def test_what_was_refused_before_the_silence_is_told():
    counters, now_ns = camera((10, 1))
    counters.refuse_image("encoding", "encoding '8UC3' does not say which channel is which")
    assert "nothing arrives; those before were refused: encoding '8UC3'" in images(counters, now_ns + 5 * S).sentence
