"""From numbers to sentences: each way to be silent or slow has its own, with the remedy in it; the worst wins."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from bench import seen

from sam2_ros.announcer import LASTING, Announcer
from sam2_ros.health import PERSISTENT, REFUSALS, Counters, Level, Situation, report, silence
from sam2_ros.params import Settings

S = 1_000_000_000
NOW = 1000 * S
ACTIVE = Situation("active", "ready", since_ns=NOW - 100 * S, objects=2)
VGA_BYTES = 640 * 480 * 3


def healthy(**change):
    fields = dict(
        received=50, processed=50, published=50, publishers=1, topic="/image", reliability="reliable",
        last_image_ns=NOW - S // 10, largest_image_bytes=VGA_BYTES, middleware="rmw_fastrtps_cpp",
    )  # fmt: skip
    counters, source = seen(**fields | change)
    counters.arrivals_ns.extend(NOW - (50 - n) * S // 10 for n in range(50))
    counters.outputs_ns.extend(NOW - (50 - n) * S // 10 for n in range(50))
    counters.ages_ns.extend([S // 20] * 50)
    return counters, source


def find(name, facts, situation=ACTIVE, settings=None, now_ns=NOW):
    return next(f for f in report(*facts, situation, settings or Settings(), now_ns) if f.name == name)


def test_all_is_well():
    images, tracking, requests = report(*healthy(), ACTIVE, Settings(), NOW)
    assert {f.level for f in (images, tracking, requests)} == {Level.OK}
    assert images.sentence == "10.0 images/s"
    assert tracking.sentence == "2 object(s), 10.0 results/s, 0.050 s old"
    assert tracking.values["age p95 s"] == "0.0500" and images.values["received"] == "50"


def test_an_active_node_whose_worker_has_ended_is_an_error():
    found = find("tracking", healthy(), Situation("active", "failed", "the network has ended: KeyError('x')"))
    assert found.level is Level.ERROR and "has ended" in found.sentence


def test_the_same_numbers_give_the_same_sentences_and_are_not_changed():
    facts = healthy()
    before = repr(facts)
    assert report(*facts, ACTIVE, Settings(), NOW) == report(*facts, ACTIVE, Settings(), NOW)
    assert repr(facts) == before


@pytest.mark.parametrize(
    "change, words",
    [
        (
            dict(publishers=0, received=0),
            ["no image for 5.0 s", "nobody publishes /image in", "-r image:=/camera/image_r"],
        ),
        (dict(publishers=0, received=0, remap_from="front/image"), ["-r front/image:="]),
        (dict(publishers=0, received=0, elsewhere=("/a", "/b", "/c", "/d")), ["on /a, /b, /c; remap", "-r image:=/a"]),
        (
            dict(publishers=0, received=0, other_transport="/image/compressed", elsewhere=("/a",)),
            ["/image/compressed is there: set image_transport to compressed"],
        ),
        (
            dict(publishers=0, received=0, other_transport="/image", remap_from="image/compressed"),
            ["/image is there: set image_transport to raw"],
        ),
        (
            dict(publishers=0, received=0, other_transport="/r/image", remap_from="rear/image/compressed"),
            ["/r/image is there: set image_transport (of all cameras) to raw"],
        ),
        (dict(publishers=0, elsewhere=("/a",)), ["nobody publishes /image in ROS_DOMAIN_ID 0 any more"]),
        (dict(publishers=0, other_type="sensor_msgs/msg/CompressedImage"), ["carries sensor_msgs/msg/CompressedImage"]),
        (dict(incompatible_qos="RELIABILITY"), ["RELIABILITY", "image_reliability", "best_effort"]),
        (dict(), ["1 publisher(s) of /image, but nothing arrives"]),
        (dict(reliability="best_effort"), ["nothing arrives", "512 KB", "fastdds_shm.xml"]),
    ],
)
def test_silence_is_an_error_with_its_cause(change, words):
    found = find("images", healthy(last_image_ns=NOW - 5 * S, **change))
    assert found.level is Level.ERROR and all(word in found.sentence for word in words)


def test_a_topic_to_remap_to_has_the_suffix_of_the_one_that_is_missing():
    silent = find("images", healthy(last_image_ns=0, received=0, publishers=0, remap_from="image/compressed"))
    assert silent.sentence.endswith("-r image/compressed:=/camera/image_raw/compressed")


def test_a_second_node_of_the_name_is_an_error():
    found = find("tracking", healthy(), replace(ACTIVE, rivals=1))
    assert found.level is Level.ERROR and "1 more node(s) of this name" in found.sentence


def test_an_error_that_lasts_is_told_once_and_so_is_its_end():
    told = []
    announcer = Announcer(SimpleNamespace(info=lambda s: told.append(("info", s)), warning=lambda s: told.append(s)))
    short = [Level.ERROR] * (LASTING - 1)
    for level in [*short, Level.OK, Level.WARN, *short, Level.OK, *[Level.ERROR] * (2 * LASTING), *[Level.OK] * 3]:
        announcer.hear("images", level, level.name)
    assert told == ["images: ERROR", ("info", "images again: OK")]
    for level in [Level.ERROR] * LASTING + [Level.WARN] * 2 + [Level.OK]:
        announcer.hear("images", level, level.name)
    assert told[2:] == ["images: ERROR", "images, better: WARN", ("info", "images again: OK")]


def test_the_segment_is_not_blamed_for_small_or_reliable_images():
    for change in (dict(reliability="reliable"), dict(reliability="best_effort", largest_image_bytes=1000)):
        assert "512" not in find("images", healthy(last_image_ns=NOW - 5 * S, **change)).sentence


def test_silence_is_counted_from_the_activation_and_on_the_steady_clock():
    fresh = Situation("active", "ready", since_ns=NOW - S // 2)
    assert find("images", seen(publishers=1), fresh).level is Level.OK
    assert find("images", seen(publishers=1), fresh, now_ns=NOW + S).level is Level.ERROR


@pytest.mark.parametrize("state", ["unconfigured", "inactive", "finalized"])
def test_an_inactive_node_is_not_ill(state):
    found = report(*seen(), Situation(state, "", closed="activate it"), Settings(), NOW)
    assert {f.level for f in found} == {Level.OK} and state in found[1].sentence
    assert found[0].sentence == "activate it"


@pytest.mark.parametrize("in_a_row, level", [(1, Level.WARN), (5, Level.WARN), (6, Level.ERROR)])
def test_refused_images_are_named(in_a_row, level):
    found = find("images", healthy(refused_in_a_row=in_a_row, said={"refused": "encoding '16UC1' is not a picture"}))
    assert found.level is level and "'16UC1'" in found.sentence


def test_disabled_lost_and_unstamped_images_are_warnings():
    off = Situation("active", "ready", since_ns=0, enabled=False)
    for refused in (0, 6):  # before it was disabled; since then nobody has looked at an image
        found = find("images", healthy(refused_in_a_row=refused), off)
        assert found.level is Level.WARN and "~/enable" in found.sentence
    counters, _ = facts = healthy(reliability="best_effort")
    for _ in range(80):
        counters.receive_image(NOW, VGA_BYTES)
    counters.lose_on_the_way(8)
    assert find("images", facts).level is Level.OK
    counters.lose_on_the_way(12)
    lost = find("images", facts)
    assert lost.level is Level.WARN and "20 of the last 100 images were lost" in lost.sentence
    assert "fastdds_shm" in lost.sentence
    counters, _ = facts = healthy()
    counters.note_stamp(is_known=False)
    assert "no stamp" in find("images", facts).sentence


def test_what_is_over_is_no_warning_and_what_is_new_is_one():
    """However long the node has been running: only the newest hundred count."""
    counters, _ = facts = healthy()
    for _ in range(60):
        counters.lose_on_the_way(1)
    counters.note_stamp(is_known=False)
    counters.count_answer("INTERNAL", NOW)
    for _ in range(100):
        counters.receive_image(NOW, VGA_BYTES)
        counters.note_stamp(is_known=True)
        counters.count_answer("OK", NOW)
    assert find("images", facts).level is find("requests", facts).level is Level.OK
    assert (counters.lost_on_the_way, counters.unstamped, counters.answers["INTERNAL"]) == (60, 1, 1)
    counters.received = 100_000
    counters.lose_on_the_way(20)
    assert find("images", facts).level is Level.WARN


@pytest.mark.parametrize("phase", ["failed", "device lost"])
@pytest.mark.parametrize("state", ["active", "unconfigured"])
def test_a_worker_that_is_gone_is_an_error_in_every_state(phase, state):
    found = find("tracking", seen(), Situation(state, phase, "no weights; run sam2_ros weights tiny"))
    assert found.level is Level.ERROR and "sam2_ros weights" in found.sentence


@pytest.mark.parametrize("last_ns", [0, NOW - 50 * S])
def test_silence_is_news_whether_images_stopped_or_never_came(last_ns):
    """The node reports at once when this changes; both at once are told apart."""
    counters, since = Counters(last_image_ns=last_ns), NOW - 20 * S
    assert silence(counters, Settings(), NOW - S // 2, NOW) == (False, False)
    assert silence(counters, Settings(), since, NOW) == (True, False)
    assert silence(counters, Settings(), 0, NOW) == (False, False)  # not active
    counters.last_image_ns, counters.busy_since_ns = NOW - S // 2, NOW - S
    assert silence(counters, Settings(), since, NOW) == (False, False)
    counters.busy_since_ns -= 1
    assert silence(counters, Settings(), since, NOW) == (False, True)
    counters.late_in_a_row = 1  # a network that is always late is told so, steadily
    assert silence(counters, Settings(), since, NOW) == (False, False)
    found = find("tracking", healthy(busy_since_ns=NOW - 2 * S, late_in_a_row=PERSISTENT))
    assert found.level is Level.ERROR and "results are late" in found.sentence


def test_loading_says_for_how_long():
    found = find("tracking", seen(), Situation("active", "loading", loading_since_ns=NOW - 12 * S))
    assert found.level is Level.WARN and "12 s" in found.sentence


def test_a_hang_is_an_error_after_its_time():
    assert find("tracking", healthy(busy_since_ns=NOW - S // 2)).level is Level.OK
    found = find("tracking", healthy(busy_since_ns=NOW - 9 * S))
    assert found.level is Level.WARN and "9.0 s" in found.sentence
    found = find("tracking", healthy(busy_since_ns=NOW - 11 * S))
    assert found.level is Level.ERROR and "11.0 s" in found.sentence


@pytest.mark.parametrize("in_a_row, level", [(1, Level.WARN), (4, Level.WARN), (5, Level.ERROR)])
def test_failures_in_a_row(in_a_row, level):
    found = find("tracking", healthy(failures_in_a_row=in_a_row, said={"image": "step: OutOfMemory: 3 GB short"}))
    assert found.level is level and "3 GB short" in found.sentence


def test_late_results_warn_then_err_then_are_forgiven():
    counters, _ = facts = healthy()
    for level in [Level.WARN] * (PERSISTENT - 1) + [Level.ERROR]:
        counters.count_output(NOW - 2 * S, NOW, max_age_s=1.0)
        assert (found := find("tracking", facts)).level is level and "2.00 s old" in found.sentence
    counters.count_output(NOW - S // 2, NOW, max_age_s=1.0)
    assert find("tracking", facts).level is Level.OK


def test_no_object_says_how_to_get_one():
    found = find("tracking", healthy(), replace(ACTIVE, objects=0))
    assert found.level is Level.OK and "~/prompts" in found.sentence


def test_counting_a_refusal_and_a_success():
    counters = Counters()
    for _ in range(2):
        counters.refuse_image("stale", "late")
    assert counters.refused == {"stale": 2} and counters.refused_in_a_row == 2 and counters.said["refused"] == "late"
    counters.count_failed_image()
    assert (counters.refused_in_a_row, counters.failures_in_a_row) == (0, 1), "it was not refused"
    counters.refuse_image("stale", "late")
    counters.count_step(5)
    assert (counters.refused_in_a_row, counters.failures_in_a_row) == (0, 0)
    counters.count_reset("clock jump", 0)
    assert counters.resets == {"clock jump": 1}


def test_two_cameras_on_one_topic_are_a_warning():
    for late, level in ((0, Level.WARN), (REFUSALS, Level.WARN), (REFUSALS + 1, Level.ERROR)):
        found = find("images", healthy(publishers=2, refused_in_a_row=late))
        assert found.level is level and ("2 publishers of /image" in found.sentence) == (level is Level.WARN)


def test_results_that_are_not_published_whole_are_a_warning_until_one_is():
    counters, _ = facts = healthy()
    counters.count_failure("publish: OverflowError", "280")
    counters.count_unpublished()
    found = find("tracking", facts)
    assert (
        found.level is Level.WARN
        and "the last 1 results were not published completely: publish: Overflow" in found.sentence
    )
    counters.count_output(NOW, NOW, 1.0)
    assert find("tracking", facts).level is Level.OK


def test_objects_that_are_dropped_again_and_again_are_a_warning():
    counters, _ = facts = healthy()
    for n in range(3):
        counters.count_reset("clock jump", NOW - n * S)
        assert find("tracking", facts).level is (Level.WARN if n == 2 else Level.OK)
    assert "dropped 3 times within 10 s; in total: clock jump: 3" in find("tracking", facts).sentence
    assert find("tracking", facts, now_ns=NOW + 10 * S).level is Level.OK


def test_a_rate_without_events_falls():
    counters, _ = facts = healthy()
    rates = [float(find("tracking", facts, now_ns=NOW + n * S).values["published per second"]) for n in (0, 1, 5, 50)]
    assert rates[0] == 10.0 and rates == sorted(rates, reverse=True) and rates[2] < 6 and rates[3] < 1


def test_counts_from_two_threads_all_count():
    counters = Counters()

    def count():
        for _ in range(5000):
            counters.refuse_image("stale", "")
            counters.count_answer("OK", NOW)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.refused["stale"] == 20_000 and counters.answers["OK"] == 20_000


def test_windows_are_bounded():
    counters = Counters()
    for n in range(1000):
        counters.receive_image(n, 1)
        counters.count_output(n, n + 1, 1.0)
        counters.count_step(1)
    assert {len(w) for w in (counters.arrivals_ns, counters.outputs_ns, counters.ages_ns, counters.steps_ns)} == {100}
