"""Topics in front of a node that only takes notes: what each message asks for, and who is told when nothing is done."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import Point, PointStamped
from std_msgs.msg import Header

import sam2
from sam2_ros import requests_in, services
from sam2_ros.counters import Counters
from sam2_ros.mailbox import Mailbox
from sam2_ros.msg import Prompt, Track
from sam2_ros.newest_result import NewestResult
from sam2_ros.params import Settings
from sam2_ros.requests import Answer, Code, Remove
from sam2_ros.requests_in import RequestInputs
from sam2_ros.ros_time import stamp_ns, time_message

pytestmark = pytest.mark.ros
S = 10**9


class Desk:
    """Inputs whose channel is made of what they ask of it. hear: callbacks by topic; said: results; warned: the log."""

    def __init__(self, monkeypatch, **settings):
        monkeypatch.setattr(requests_in.vision, "INSTALLED", False)  # there is no middleware behind this node
        self.hear, self.said, self.warned, self.posted = {}, [], [], []
        self.depths, self.services, self.why = {}, {}, None
        self.node = SimpleNamespace(
            settings=Settings(**settings), context=SimpleNamespace(ok=lambda: True), is_hanging=False,
            create_publisher=lambda *_: SimpleNamespace(publish=self.said.append),
            create_subscription=self.subscribe, create_service=self.serve, executor=None,
        )  # fmt: skip
        self.counters, self.mailbox = Counters(), Mailbox(8)
        self.channel = SimpleNamespace(
            log=SimpleNamespace(warning=lambda text, **_: self.warned.append(text)),
            node=self.node, output_name=lambda topic: topic, why_closed=lambda needs_image: self.why,
            counters=self.counters, camera=SimpleNamespace(frame_id="camera_optical", newest_ns=5 * S),
            pipeline=SimpleNamespace(
                mailbox=self.mailbox, auto=SimpleNamespace(post=lambda *message: self.posted.append(message))
            ),
            newest=NewestResult(restored=frozenset({"cup", "mug"})),
            saved_path=lambda name: Path("/saved") / name, target="cup",
        )  # fmt: skip
        self.inputs = RequestInputs(self.channel)

    def subscribe(self, kind, topic, callback, qos, callback_group):
        self.hear[topic], self.depths[topic] = callback, qos.depth

    def serve(self, kind, name, answer, qos_profile, callback_group):
        self.services[name] = kind, answer

    def call(self, service, answer=None, **asked):
        """What was posted, and the response once that has been answered."""
        kind, serve = self.services[service]
        call, posted = serve(kind.Request(**asked), kind.Response()), None
        try:
            call.send(None)
            (posted,) = self.mailbox.take().requests
            posted.answer(Code.OK, **answer)
            call.send(None)
        except StopIteration as ended:
            return posted, ended.value

    def prompts(self):
        return [prompt for request in self.mailbox.take().requests for prompt in request.prompts]


@pytest.fixture
def desk(monkeypatch):
    return Desk(monkeypatch)


def header(frame_id="camera_optical", at_ns=5 * S):
    return Header(frame_id=frame_id, stamp=time_message(at_ns))


def test_a_click_is_on_the_image_of_its_stamp_and_a_bare_point_on_the_next(desk):
    """Or, if none comes, on the newest: whoever clicks sees one."""
    desk.hear["click"](PointStamped(header=header(), point=Point(x=3.0, y=4.0)))
    desk.hear["click_point"](Point(x=5.0, y=6.0))
    desk.hear["prompts"](Prompt(points_xy=[3.0, 4.0], point_labels=[1]))
    requests = desk.mailbox.take().requests
    assert [request.newest_will_do for request in requests] == [True, True, False]
    stamped, bare = (prompt for request in requests[:2] for prompt in request.prompts)
    assert (stamped.stamp_ns, stamped.points_xy.tolist()) == (5 * S, [[3, 4]])
    assert (bare.stamp_ns, bare.points_xy.tolist()) == (0, [[5, 6]])


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("click", PointStamped(header=header("map"), point=Point(x=3.0, y=4.0))),
        ("prompts", Prompt(header=header("map"), object_id="cup", points_xy=[3.0, 4.0], point_labels=[1])),
    ],
)
def test_pixels_of_another_frame_are_refused_with_the_header_they_came_with(desk, topic, message):
    desk.hear[topic](message)
    (result,) = desk.said
    assert result.code == Code.BAD_INPUT and "BAD_INPUT" in desk.warned[0]
    assert result.sentence.startswith("frame_id 'map'")  # not "prompt 0": it is alone
    assert stamp_ns(result.header.stamp) == 5 * S and not desk.prompts()
    assert result.object_id == ("cup" if topic == "prompts" else "")


def test_pixels_of_another_frame_are_refused_as_soon_as_the_images_frame_is_known(desk):
    camera = desk.channel.camera
    camera.frame_id = ""  # no image has come
    desk.hear["click"](PointStamped(header=header("map"), point=Point(x=3.0, y=4.0)))
    desk.hear["click_point"](Point(x=3.0, y=4.0))
    elsewhere, anywhere = desk.mailbox.take().requests
    elsewhere.check()
    camera.frame_id = "camera_optical"
    anywhere.check()
    with pytest.raises(sam2.BadInput, match="frame_id 'map': the images are in 'camera_optical'"):
        elsewhere.check()


def test_of_several_prompts_those_are_named_whose_id_comes_twice(desk):
    kind, serve = desk.services["add_objects"]
    twice = [Prompt(object_id=name, points_xy=[3.0, 4.0], point_labels=[1]) for name in ("cup", "", "mug", "cup", "")]
    with pytest.raises(StopIteration) as ended:  # it need not wait
        serve(kind.Request(prompts=twice), kind.Response()).send(None)
    assert ended.value.value.code == Code.BAD_INPUT and not desk.prompts()
    assert ended.value.value.sentence == "one id is prompted twice in one request: cup"


def test_a_request_without_prompts_is_refused_and_nobody_waits_for_its_image(desk):
    """A worker whose camera is silent would never have done with it."""
    _, response = desk.call("add_objects")
    assert (response.code, response.sentence) == (Code.BAD_INPUT, "prompts: expected one or more, got none")
    assert not desk.mailbox.has_work


EVIL = "a\n[FATAL] [1.0] [brakes]: forged \x1b[31m"


def test_an_id_writes_no_lines_of_its_own(desk):
    """Into the log, or the terminal of who asks."""
    said = []
    twice = [Prompt(header=header(), object_id=EVIL)] * 2
    desk.inputs.add_messages(twice, reply=lambda answer: said.append(answer.sentence))
    desk.channel.newest = NewestResult(restored=frozenset({EVIL}))
    said.append(desk.call("set_target", object_id="jar")[1].sentence)
    for sentence in (*said, *desk.warned):
        assert "a\\n[FATAL] [1.0] [brakes]: forged \\x1b[31m" in sentence and sentence.isprintable()
    assert len(said) == 2 and len(desk.warned) == 1


def test_detections_go_to_who_knows_the_tracks_unless_they_are_of_another_frame_or_nobody_can(desk, monkeypatch):
    box = np.array([1, 2, 3, 4], np.float32)
    monkeypatch.setattr(requests_in.vision, "read_detections", lambda msg: [(box, "cup", 0.5)] * len(msg.detections))
    for frame_id, why in (("camera_optical", None), ("map", None), ("camera_optical", (Code.LOADING, "loading"))):
        desk.why = why
        desk.inputs._on_detections(SimpleNamespace(header=header(frame_id), detections=[None] * 3))
    ((stamp, detections, _),) = desk.posted
    assert stamp == 5 * S and [(d.class_name, d.score) for d in detections] == [("cup", 0.5)] * 3
    assert desk.mailbox.has_work and desk.counters.detections == {"of another frame": 3, "while closed": 3}
    assert len(desk.warned) == 1 and "frame_id 'map'" in desk.warned[0]


def test_detections_of_another_clock_are_told(desk, monkeypatch):
    monkeypatch.setattr(requests_in.vision, "read_detections", lambda msg: [])
    for desk.channel.camera.newest_ns, at_ns in ((0, 6 * S), (5 * S, 6 * S - 1), (5 * S, 6 * S)):
        desk.inputs._on_detections(SimpleNamespace(header=header(at_ns=at_ns)))
    told = "detections: their stamp is 1.000 s later than the newest image's; is it of another clock?"
    assert (desk.warned, [message[-1] for message in desk.posted]) == ([told], [False, False, True])


def test_what_a_detector_asked_for_is_told_with_the_image_it_saw(desk):
    desk.inputs.answer_detector("", 7 * S, Answer(Code.STALE, "too late"))
    desk.inputs.answer_detector(None, 7 * S, Answer(Code.OK))  # objects were removed
    (result,) = desk.said
    assert (result.code, result.header.frame_id, stamp_ns(result.header.stamp)) == (Code.STALE, "camera_optical", 7 * S)
    assert desk.counters.answers == {"STALE": 1, "OK": 1}


def test_a_node_that_is_deactivated_answers_prompts_and_one_that_ends_everything(desk):
    answers = []
    desk.hear["click_point"](Point(x=5.0, y=6.0))
    desk.inputs.post_request(Remove(["cup"], answers.append))
    desk.inputs.close(for_good=False)
    assert [result.code for result in desk.said] == [Code.STOPPING] and not answers
    desk.inputs.close(for_good=True)
    assert [answer.code for answer in answers] == [Code.STOPPING] and len(desk.said) == 1


@pytest.mark.parametrize("closed", [None, (Code.NOT_ACTIVE, "no")])
def test_a_client_has_its_response_although_the_result_cannot_be_published(desk, closed):
    """Whoever answers counts the error, as the worker does. Without a response the client would wait for ever."""
    desk.inputs._results = SimpleNamespace(publish=lambda result: 1 / 0)
    answers, desk.why = [], closed
    with pytest.raises(ZeroDivisionError):
        desk.inputs.add_messages([Prompt(points_xy=[1, 2], point_labels=[1])], answers.append)
        desk.mailbox.take().requests[0].answer(Code.NOT_ACTIVE, "no")
    assert [answer.code for answer in answers] == [Code.NOT_ACTIVE]


@pytest.mark.parametrize("name", ["why_closed", "from_message"])
def test_a_prompt_that_cannot_be_read_for_whatever_reason_is_answered(desk, monkeypatch, name):
    """No memory for a mask, an error of rcl. The caller counts the error, as `main` does."""

    def broken(*_, **__):
        raise MemoryError

    monkeypatch.setattr(desk.channel if name == "why_closed" else requests_in.prompt_in, name, broken)
    with pytest.raises(MemoryError):
        desk.hear["prompts"](Prompt(object_id="cup", points_xy=[1, 2], point_labels=[1]))
    assert [(result.object_id, result.code, result.sentence) for result in desk.said] == [
        ("cup", Code.INTERNAL, "MemoryError")
    ]
    assert not desk.mailbox.take().requests


def test_a_hanging_network_has_answers_after_its_time_that_a_sleeping_process_does_not_use_up(desk, monkeypatch):
    clock = SimpleNamespace(ns=1000 * S)
    monkeypatch.setattr("time.monotonic_ns", lambda: clock.ns)
    patience_s = desk.node.settings.prompt_wait_s + desk.node.settings.hang_after_s

    def pass_s(seconds, tick_s=1.0):
        for _ in range(round(seconds / tick_s)):
            clock.ns += round(tick_s * S)
            desk.inputs.tick()

    desk.inputs.tick()
    desk.hear["click_point"](Point(x=5.0, y=6.0))
    pass_s(patience_s + 5)
    assert not desk.said, "it may be slow"
    desk.node.is_hanging = True
    pass_s(3600, tick_s=3600)
    assert not desk.said, "the process stood still, and so did the network"
    pass_s(patience_s)
    assert not desk.said
    pass_s(1)
    assert [result.code for result in desk.said] == [Code.INTERNAL] and "hangs" in desk.said[0].sentence
    assert desk.counters.failures == {"request": 1} and not desk.inputs._posted


def test_saved_and_restored_is_what_was_asked_for_where_the_camera_keeps_it(desk):
    save, saved = desk.call("save", dict(object_ids=("cup",)), name="desk", object_ids=["cup"])
    assert (save.path, save.chosen, list(saved.object_ids)) == (Path("/saved/desk"), ["cup"], ["cup"])
    assert saved.path == "/saved/desk"
    asked = dict(name="desk", object_ids=["cup"], max_age_s=30.0)
    restore, restored = desk.call("restore", dict(object_ids=("cup",)), **asked)
    assert (restore.path, restore.chosen, restore.max_age_s) == (Path("/saved/desk"), ["cup"], 30.0)
    assert list(restored.object_ids) == ["cup"] and desk.counters.answers == {"OK": 2}


@pytest.mark.parametrize(
    ("asked", "target", "code"), [("mug", "mug", Code.OK), ("", "", Code.OK), ("jar", "cup", Code.UNKNOWN_OBJECT)]
)
def test_a_target_is_a_tracked_object_or_the_lowest_label(desk, asked, target, code):
    _, response = desk.call("set_target", object_id=asked)
    assert (response.code, desk.channel.target) == (code, target)
    assert ("tracked: cup, mug" in response.sentence) == (code != Code.OK)


def test_a_burst_has_room_however_many_requests_may_wait(monkeypatch):
    few, many = Desk(monkeypatch), Desk(monkeypatch, prompt_queue=4000)
    assert (few.depths["prompts"], few.depths["click"]) == (100, 1000)
    assert set(many.depths.values()) == {4000}


def test_a_list_and_what_is_said_of_it_are_of_one_result(desk, monkeypatch):
    """Though the next result comes while the list is made."""
    channel = desk.channel
    channel.newest = NewestResult(header(at_ns=S), ["cup"], time.monotonic_ns() - 100 * S, frozenset({"mug"}))

    def listed(name, with_mask):
        channel.newest = channel.newest.followed_by(header(at_ns=2 * S), [])
        return Track(object_id=name)

    monkeypatch.setattr(services, "track_message", listed)
    kind, serve = desk.services["list_objects"]
    call, response = serve(kind.Request(), kind.Response()), None
    while response is None:
        try:
            call.send(None)
        except StopIteration as ended:
            response = ended.value
    assert stamp_ns(response.header.stamp) == S and [one.object_id for one in response.objects] == ["cup"]
    assert response.age >= 100.0 and response.sentence.endswith(": mug")
    assert stamp_ns(channel.newest.header.stamp) == 2 * S and not channel.newest.waiting


def test_an_error_inside_a_service_without_a_code_is_named_in_its_message(desk):
    """As a refusal is: `sam2_ros objects --reset` tells one from another by it."""
    desk.channel.log.error, desk.channel.enable = desk.warned.append, lambda enabled: 1 / 0
    _, response = desk.call("enable", data=True)
    error = "ZeroDivisionError('division by zero')"
    assert (response.success, response.message) == (False, f"INTERNAL: {error}")
    assert desk.warned == [f"inside a service: {error}"]
