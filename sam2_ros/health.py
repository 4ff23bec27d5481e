"""Counters -> diagnostics: a pure function from numbers to sentences, which explain why nothing comes out.

Knows no ROS. Times are nanoseconds of the steady clock, so a stopped /clock hides nothing.
"""

import itertools
import statistics
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

from sam2_ros.counters import Counters
from sam2_ros.image_source import ImageSource
from sam2_ros.lost_images import is_tight, size_hint
from sam2_ros.params import Settings

NAMED = 3  # topics listed at most
PERIODS, SLOWEST = 5, 2.5  # a camera is silent after SLOWEST times the median of its last PERIODS periods
RATE_OVER_S = 5.0
REFUSALS = 5  # more refused images in a row make a warning an error
PERSISTENT = 30  # late results in a row that make a warning an error
RESETS, WITHIN_S = 3, 10.0  # this many resets within this time are worth a warning
INTERNAL_S = 600.0  # how long an internal failure of a request is reported


class Level(IntEnum):
    """Values are those of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """One line of the diagnostics."""

    name: str  # "images", "tracking", "requests", "depth"
    level: Level
    sentence: str
    values: dict[str, str]


@dataclass(frozen=True)
class Situation:
    """The state of the node and of one of its cameras, as opposed to what was counted."""

    state: str  # of its lifecycle: "unconfigured", "inactive", "active", "finalized"
    phase: str  # of its worker; "" = there is none
    sentence: str = ""  # of the worker
    since_ns: int = 0  # when this state began
    closed: str = ""  # why nothing is tracked at the moment, and what to do
    loading_since_ns: int = 0  # when its worker, if there is one, began to load: maybe long before it was activated
    rivals: int = 0  # other nodes of the same name
    enabled: bool = True  # this and what follows are of the camera
    prefix: str = "~/"  # of its topics and services
    objects: int = 0  # tracked, or restored and waiting for an image


def report(
    counters: Counters, source: ImageSource, situation: Situation, settings: Settings, now_ns: int
) -> list[Finding]:
    """The findings about one camera. Pure: the same numbers give the same sentences."""
    with counters.lock:
        findings = [
            Finding(
                "images",
                *_images(counters, source, situation, settings, now_ns),
                _image_values(counters, source, now_ns),
            ),
            Finding(
                "tracking",
                *_tracking(counters, situation, settings, now_ns),
                _tracking_values(counters, situation, now_ns),
            ),
            Finding("requests", *_requests(counters, now_ns), _request_values(counters)),
        ]
        if settings.depth_enabled:
            findings.append(Finding("depth", *_depth(counters, situation), _depth_values(counters)))
        return findings


def silence(c: Counters, settings: Settings, active_since_ns: int, now_ns: int) -> tuple[bool, bool]:
    """Whether images have stopped, and whether the network is stuck although results were in time so far. A change of
    either must not wait for the next report. active_since_ns: 0 = the node is not active and may be silent."""
    if not active_since_ns:
        return False, False
    busy_ns = c.busy_since_ns  # read once: the worker may finish in between
    is_stuck = busy_ns > 0 and now_ns - busy_ns > settings.max_age_s * 1e9 and not c.late_in_a_row
    return now_ns - max(c.last_image_ns, active_since_ns) > _timeout_s(c, settings) * 1e9, is_stuck


def _timeout_s(c: Counters, settings: Settings) -> float:
    """`image_timeout_s`, or more for a camera whose period is longer."""
    times = list(c.arrivals_ns)[-PERIODS - 1 :]
    usual_ns = statistics.median(b - a for a, b in itertools.pairwise(times)) if len(times) > 1 else 0
    return max(settings.image_timeout_s, SLOWEST * usual_ns / 1e9)


def _images(
    c: Counters, source: ImageSource, situation: Situation, settings: Settings, now_ns: int
) -> tuple[Level, str]:
    if situation.state != "active":
        is_told = situation.phase in ("failed", "device lost")  # reported under "tracking", as an error
        return Level.OK, f"the node is {situation.state}" if is_told else situation.closed
    last_ns = max(c.last_image_ns, situation.since_ns)
    silent_s = (now_ns - last_ns) / 1e9
    if silent_s > _timeout_s(c, settings):
        before = f"; those before were refused: {c.said['refused']}" if c.refused_in_a_row else ""
        return Level.ERROR, f"no image for {silent_s:.1f} s: {_why_silent(c, source)}{before}"
    if not situation.enabled:  # images are not checked then, so earlier refusals do not matter
        return Level.WARN, f"disabled: images are ignored until {situation.prefix}enable is called with true"
    if source.publishers > 1 and c.refused_in_a_row <= REFUSALS:  # which may be why some are refused as late
        return Level.WARN, (
            f"{source.publishers} publishers of {source.topic}: their images alternate; stop or remap all but one (one "
            "that was killed still counts for some seconds)"
        )
    if c.refused_in_a_row:
        level = Level.ERROR if c.refused_in_a_row > REFUSALS else Level.WARN
        return level, f"the last {c.refused_in_a_row} images were refused: {c.said['refused']}"
    lost = c.ways.count(False)
    if lost > 0.1 * len(c.ways):
        return Level.WARN, f"{lost} of the last {len(c.ways)} images were lost on the way{size_hint(c, source)}"
    if c.unstamped_in_a_row:
        return Level.WARN, "images carry no stamp: prompts can only mean the next image"
    rate = _rate(c.arrivals_ns, now_ns)
    if not rate:
        return Level.OK, "waiting for images"
    return Level.OK, f"{rate:.1f} images/s{size_hint(c, source) if is_tight(c, source) else ''}"


def _why_silent(c: Counters, source: ImageSource) -> str:
    if source.publishers == 0 and source.other_type:
        return (
            f"{source.topic} carries {source.other_type}; image_transport raw takes sensor_msgs/msg/Image, compressed "
            "takes sensor_msgs/msg/CompressedImage"
        )
    if source.publishers == 0:
        return f"nobody publishes {source.topic} in ROS_DOMAIN_ID {source.domain}{_where_images_are(c, source)}"
    if source.incompatible_qos:
        return (
            f"a publisher of {source.topic} does not offer our {source.incompatible_qos}; set image_reliability to "
            "auto or best_effort"
        )
    publishers = f"{source.publishers} publisher(s) of {source.topic}"
    if source.is_remote and c.received:  # most likely the network is down; losses only if there were any before
        hint = "" if all(c.ways) else size_hint(c, source)
        return f"{publishers}, on another machine, but nothing arrives any more{hint}"
    return f"{publishers}, but nothing arrives{size_hint(c, source)}"


def _where_images_are(c: Counters, source: ImageSource) -> str:
    if c.received:  # it is the right topic, but its camera has stopped
        return " any more"
    if source.other_transport:
        transport = "raw" if source.remap_from.endswith("/compressed") else "compressed"
        whose = " (of all cameras)" if "/" in source.remap_from.removesuffix("/compressed") else ""
        return f"; {source.other_transport} is there: set image_transport{whose} to {transport}"
    there = f"; images are on {', '.join(source.elsewhere[:NAMED])}" if source.elsewhere else ""
    suffix = "/compressed" if source.remap_from.endswith("/compressed") else ""
    example = source.elsewhere[0] if source.elsewhere else f"/camera/image_raw{suffix}"
    return f"{there}; remap it, for example -r {source.remap_from}:={example}{'' if there else source.reach}"


def why_no_image(c: Counters, source: ImageSource) -> str:
    """Why no image comes, for the answer to a request that needs one; "" if that is not known."""
    if c.refused_in_a_row:
        return f"the last {c.refused_in_a_row} images were refused: {c.said['refused']}"
    if source.publishers == 0 or not c.received:
        return _why_silent(c, source)
    return ""


def _tracking(c: Counters, situation: Situation, settings: Settings, now_ns: int) -> tuple[Level, str]:
    if situation.phase in ("failed", "device lost"):
        return Level.ERROR, situation.sentence
    if situation.phase == "ending":
        return Level.WARN, situation.closed
    if situation.state != "active":
        return Level.OK, f"the node is {situation.state}"
    if situation.phase == "loading":
        return Level.WARN, f"loading the model for {(now_ns - situation.loading_since_ns) / 1e9:.0f} s"
    busy_ns = c.busy_since_ns  # read once: the worker may finish in between
    busy_s = (now_ns - busy_ns) / 1e9 if busy_ns else 0.0
    if busy_s > settings.hang_after_s:
        return Level.ERROR, f"the network has been busy with one image for {busy_s:.1f} s"
    if busy_s > settings.max_age_s and not c.late_in_a_row:
        return Level.WARN, f"the network has been busy with one image for {busy_s:.1f} s; use a smaller model"
    if c.failures_in_a_row:
        level = Level.ERROR if c.failures_in_a_row >= settings.max_failures else Level.WARN
        return level, f"the last {c.failures_in_a_row} images failed: {c.said['image']}"
    if c.unpublished_in_a_row:
        count = c.unpublished_in_a_row
        return Level.WARN, f"the last {count} results were not published completely: {c.said['publish']}"
    resets = sum(now_ns - at_ns < WITHIN_S * 1e9 for at_ns in c.resets_ns)
    if resets >= RESETS:
        causes = ", ".join(f"{cause}: {n}" for cause, n in sorted(c.resets.items()))
        return Level.WARN, f"all objects were dropped {resets} times within {WITHIN_S:.0f} s; in total: {causes}"
    if rivals := situation.rivals:
        return Level.ERROR, f"{rivals} more node(s) of this name answer requests, too; stop them or rename one"
    if c.late_in_a_row:
        level = Level.ERROR if c.late_in_a_row >= PERSISTENT else Level.WARN
        age_s = c.ages_ns[-1] / 1e9  # of the newest, which is late: the median may not be yet
        return level, f"results are late: {age_s:.2f} s old, max_age_s is {settings.max_age_s:g}; use a smaller model"
    age_s = _percentile(c.ages_ns, 50) / 1e9
    if situation.objects == 0:
        prompts, click, add_objects = (f"{situation.prefix}{name}" for name in ("prompts", "click", "add_objects"))
        return Level.OK, f"no object: prompt one on {prompts}, {click} or {add_objects}"
    return Level.OK, f"{situation.objects} object(s), {_rate(c.outputs_ns, now_ns):.1f} results/s, {age_s:.3f} s old"


def _requests(c: Counters, now_ns: int) -> tuple[Level, str]:
    total = sum(c.answers.values()) - c.answers["LOADING"]  # not LOADING, after which clients ask again
    internal = sum(code == "INTERNAL" and now_ns - at_ns < INTERNAL_S * 1e9 for at_ns, code in c.codes)
    if internal:
        sentence = f"{internal} of the last {len(c.codes)} requests failed inside the node: {c.said['INTERNAL']}"
        return Level.WARN, sentence
    refused = total - c.answers["OK"]
    return Level.OK, f"{total} answered, {refused} of them refused"


def _depth(c: Counters, situation: Situation) -> tuple[Level, str]:
    if situation.state != "active":
        return Level.OK, f"the node is {situation.state}"
    if c.depth_trouble:
        # One of several cameras may have no depth camera: no warning unless somebody subscribes or depth has come.
        level = Level.WARN if c.depth_wanted or c.depth_received or c.depth_refused else Level.OK
        return level, f"{c.depth_trouble}; 2-D results are not affected"
    if not c.depth_matched:
        return Level.OK, "nobody wants 3-D results yet"
    return Level.OK, f"{c.depth_matched} images with depth"


def _depth_values(c: Counters) -> dict[str, str]:
    values = {"received": str(c.depth_received), "images with": str(c.depth_matched)}
    values["images without"] = str(c.depth_missed)
    return values | {f"refused: {reason}": str(n) for reason, n in sorted(c.depth_refused.items())}


def _image_values(c: Counters, source: ImageSource, now_ns: int) -> dict[str, str]:
    values = {
        "topic": source.topic,
        "reliability": source.reliability,
        "publishers": str(source.publishers),
        "received": str(c.received),
        "received per second": f"{_rate(c.arrivals_ns, now_ns):.2f}",
        "dropped for a newer one": str(c.dropped),
        "ignored while disabled or inactive": str(c.ignored),
        "lost on the way": str(c.lost_on_the_way),
        "without stamp": str(c.unstamped),
    }
    return values | {f"refused: {reason}": str(n) for reason, n in sorted(c.refused.items())}


def _request_values(c: Counters) -> dict[str, str]:
    values = {code: str(n) for code, n in sorted(c.answers.items())}
    return values | {f"detections: {what}": str(n) for what, n in sorted(c.detections.items())}


def _tracking_values(c: Counters, situation: Situation, now_ns: int) -> dict[str, str]:
    values = {
        "state": situation.state,
        "objects": str(situation.objects),
        "processed": str(c.processed),
        "published": str(c.published),
        "withheld at deactivation": str(c.withheld),
        "published per second": f"{_rate(c.outputs_ns, now_ns):.2f}",
        "age p50 s": f"{_percentile(c.ages_ns, 50) / 1e9:.4f}",
        "age p95 s": f"{_percentile(c.ages_ns, 95) / 1e9:.4f}",
        "network p50 s": f"{_percentile(c.steps_ns, 50) / 1e9:.4f}",
        "network p95 s": f"{_percentile(c.steps_ns, 95) / 1e9:.4f}",
    }
    values |= {f"reset: {cause}": str(n) for cause, n in sorted(c.resets.items())}
    return values | {f"failed: {kind}": str(n) for kind, n in sorted(c.failures.items())}


def _rate(times_ns: deque, now_ns: int) -> float:
    """Events per second over the last RATE_OVER_S or, for rare events, over the last three; declines once they stop."""
    lately = [at_ns for at_ns in times_ns if now_ns - at_ns < RATE_OVER_S * 1e9]
    times = lately if len(lately) > 2 else list(times_ns)[-3:]
    if len(times) < 2 or times[-1] == times[0]:
        return 0.0
    period_ns = (times[-1] - times[0]) / (len(times) - 1)
    overdue_ns = max(now_ns - times[-1] - 2 * period_ns, 0)
    return (len(times) - 1) * 1e9 / (times[-1] - times[0] + overdue_ns)


def _percentile(values: deque, percent: int) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    ranked = sorted(values)
    return ranked[min(len(ranked) * percent // 100, len(ranked) - 1)] if ranked else 0.0
