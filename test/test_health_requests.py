"""What the diagnostics say to who wants something of the node: answers, names to call, and why nothing can be done."""

import pytest
from bench import seen

from sam2_ros.health import INTERNAL_S, Counters, Level, Situation, report, why_no_image
from sam2_ros.image_source import ImageSource
from sam2_ros.params import Settings

S = 1_000_000_000
NOW = 10_000 * S
SOURCE = ImageSource(publishers=1)
WRIST = Situation("active", "ready", since_ns=NOW, prefix="~/wrist/")


def find(name, counters, situation=WRIST, now_ns=NOW, **settings):
    return next(f for f in report(counters, SOURCE, situation, Settings(**settings), now_ns) if f.name == name)


def test_requests_that_failed_inside_are_a_warning_for_ten_minutes():
    counters = Counters()
    for code in ("LOADING", "OK", "OK", "BAD_INPUT"):  # who heard the first asked again
        counters.count_answer(code, NOW)
    assert find("requests", counters).sentence == "3 answered, 1 of them refused"
    counters.count_answer("INTERNAL", NOW, "the image was lost: 3 GB short")
    counters.count_failure("depth: ValueError", "of no request")
    found = find("requests", counters)
    assert found.level is Level.WARN and found.sentence.endswith(": the image was lost: 3 GB short")
    assert find("requests", counters).values == {"BAD_INPUT": "1", "INTERNAL": "1", "LOADING": "1", "OK": "2"}
    over_ns = NOW + round(INTERNAL_S * S)
    assert find("requests", counters, now_ns=over_ns - 1).level is Level.WARN
    over = find("requests", counters, now_ns=over_ns)
    assert (over.level, over.sentence) == (Level.OK, "4 answered, 2 of them refused")


def test_names_are_those_of_the_camera():
    counters = Counters(last_image_ns=NOW)
    prompt = "no object: prompt one on ~/wrist/prompts, ~/wrist/click or ~/wrist/add_objects"
    assert find("tracking", counters).sentence == prompt
    off = Situation("active", "ready", since_ns=NOW, enabled=False, prefix="~/wrist/")
    assert "until ~/wrist/enable is called" in find("images", counters, off).sentence


@pytest.mark.parametrize(("phase", "level"), [("ending", Level.WARN), ("ready", Level.OK)])
def test_a_network_that_ends_and_has_not_ended_is_a_warning_with_what_to_do(phase, level):
    found = find("tracking", Counters(), Situation("inactive", phase, closed="the network is ending; call cleanup"))
    assert found.level is level and found.sentence == (
        "the node is inactive" if level is Level.OK else "the network is ending; call cleanup"
    )


@pytest.mark.parametrize(("phase", "sentence"), [("failed", "the node is inactive"), ("", "configure it")])
def test_what_failed_is_told_once_and_as_an_error(phase, sentence):
    found = find("images", Counters(), Situation("inactive", phase, closed="configure it"))
    assert (found.level, found.sentence) == (Level.OK, sentence)


@pytest.mark.parametrize(
    "change", [dict(depth_wanted=True), dict(depth_received=1), dict(depth_refused={"encoding": 1}), {}]
)
def test_a_camera_without_depth_is_a_warning_only_where_somebody_misses_it(change):
    found = find("depth", Counters(depth_trouble="no depth image on /wrist/depth", **change), depth_enabled=True)
    assert found.level is (Level.WARN if change else Level.OK) and "no depth image on" in found.sentence


def test_depth_that_nobody_wants_is_well_and_what_became_of_it_is_told_in_numbers():
    assert find("depth", Counters(), depth_enabled=True).sentence == "nobody wants 3-D results yet"
    counters = Counters(depth_matched=2, depth_missed=1, depth_received=4, depth_refused={"encoding": 5})
    found = find("depth", counters, depth_enabled=True)
    assert (found.level, found.sentence) == (Level.OK, "2 images with depth")
    assert found.values == {"received": "4", "images with": "2", "images without": "1", "refused: encoding": "5"}


def test_resets_and_failures_are_told_by_cause():
    counters = Counters()
    counters.count_reset("clock jump", NOW)
    counters.count_failure("step: OutOfMemory", "3 GB short")
    values = find("tracking", counters).values
    assert (values["reset: clock jump"], values["failed: step: OutOfMemory"]) == ("1", "1")


@pytest.mark.parametrize("where", ["image", "step", "turn"])
def test_a_failed_image_and_a_result_that_was_not_published_each_have_their_own_cause(where):
    counters = Counters()
    counters.count_failure(f"{where}: OutOfMemory", "3 GB short")
    counters.count_failed_image()
    counters.count_failure("publish: OverflowError", "280")
    counters.count_unpublished()
    counters.count_failure("request: ValueError", "of no image")
    assert find("tracking", counters).sentence == f"the last 1 images failed: {where}: OutOfMemory: 3 GB short"
    counters.count_step(5)
    assert find("tracking", counters).sentence.endswith("completely: publish: OverflowError: 280")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(received=5, publishers=1), ""),
        (dict(received=5, publishers=0), "nobody publishes /image in ROS_DOMAIN_ID 0 any more"),
        (dict(received=0, publishers=1), "nothing arrives"),
        (dict(received=5, publishers=1, refused_in_a_row=2, said={"refused": "stale"}), "the last 2 images were"),
        (dict(received=0, publishers=1, other_type="std_msgs/msg/String"), "nothing arrives"),  # that one is no camera
    ],
)
def test_who_waits_for_an_image_hears_what_is_known(change, said):
    found = why_no_image(*seen(topic="/image", reliability="reliable", **change))
    assert said in found and bool(said) == bool(found)
