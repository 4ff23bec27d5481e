"""Several cameras, one model: topics of their own, fair turns, and no camera that delays another."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from bench import PATIENCE_S, Bench
from fakes import FakeTracker, image_like
from ros_rig import FakeCamera, NodeProcess, click
from small_stream import small_model

import sam2
from sam2_ros.auto_prompt import AutoPrompt
from sam2_ros.counters import Counters
from sam2_ros.mailbox import Arrival, Mailbox
from sam2_ros.msg import TrackArray
from sam2_ros.node_client import NodeClient
from sam2_ros.params import Settings
from sam2_ros.pipeline import Pipeline
from sam2_ros.requests import Code
from sam2_ros.srv import AddObjects
from sam2_ros.worker import Worker


class Cameras:
    """A worker with several pipelines on its own thread; `order` notes (camera, image) as they come out."""

    def __init__(self, count, tracker):
        self.order, self.done = [], threading.Condition()
        bell = threading.Condition()
        self.mailboxes = [Mailbox(4, bell) for _ in range(count)]
        log = SimpleNamespace(info=print, warning=print, error=print)
        self.pipelines = [
            Pipeline(
                mailbox, Settings(), Counters(), self._outputs(index), AutoPrompt(Settings(), Counters(), print), log
            )
            for index, mailbox in enumerate(self.mailboxes)
        ]
        self.worker = Worker(lambda: tracker, self.pipelines, lambda: None, log)

    def _outputs(self, index):
        return SimpleNamespace(
            restored=frozenset(), drop=lambda object_ids: None, note_restored=lambda object_ids: None,
            begin=lambda stamp_ns: None, idle=lambda: None,
            publish=lambda header, frame, tracks: self._note(index, frame),
        )  # fmt: skip

    def _note(self, index, frame):
        with self.done:
            self.order.append((index, frame.stamp_ns))
            self.done.notify_all()

    def image(self, index, n):
        msg = image_like(np.full((48, 64, 3), n % 256, np.uint8), "rgb8")
        msg.header = f"header {n}"
        self.mailboxes[index].post_image(Arrival(msg, n, 0))

    def wait(self, count):
        with self.done:
            assert self.done.wait_for(lambda: len(self.order) >= count, PATIENCE_S)


class SteppedGate:
    """Lets one step through for each call of `let`."""

    def __init__(self):
        self.tickets = threading.Semaphore(0)

    def wait(self):
        self.tickets.acquire()


def test_every_camera_gets_its_turn_however_fast_one_of_them_is():
    gate = SteppedGate()
    cameras = Cameras(3, FakeTracker(gate=gate))
    for index in range(3):
        cameras.image(index, 1)
    cameras.worker.start()
    for n in range(2, 32):  # camera 0 has a new image for every step of any camera, the others one for every third
        cameras.image(0, n)
        if n % 3 == 0:
            cameras.image(1, n)
            cameras.image(2, n)
        gate.tickets.release()
        cameras.wait(n - 1)
    gate.tickets.release(10)
    assert cameras.worker.stop(PATIENCE_S)
    turns = [index for index, _ in cameras.order[:30]]
    assert [turns.count(index) for index in range(3)] == [10, 10, 10]
    assert all(len(set(turns[at : at + 3])) == 3 for at in range(0, 30, 3))
    # A camera's image is taken when its turn comes, not when the round begins.
    assert all(n >= at for at, (index, n) in enumerate(cameras.order[:30]) if index == 0)


def test_a_camera_whose_images_fail_costs_the_others_nothing():
    failing = FakeTracker(raise_on={"step": RuntimeError("boom")})
    failing.sibling = FakeTracker
    cameras = Cameras(2, failing)
    cameras.worker.start()
    for n in range(1, 6):
        cameras.image(0, n)
        cameras.image(1, n)
        cameras.wait(n)
    assert cameras.worker.stop(PATIENCE_S)
    assert cameras.order == [(1, n) for n in range(1, 6)]


def test_images_that_coincide_are_encoded_together():
    calls = []
    tracker = FakeTracker()
    tracker.batched = True
    tracker.encode_together = lambda pairs: calls.append([frame.stamp_ns for _, frame in pairs])
    cameras = Cameras(3, tracker)
    for index, n in ((0, 5), (2, 6)):
        cameras.image(index, n)
    cameras.worker.start()
    cameras.wait(2)
    cameras.image(1, 7)
    cameras.wait(3)
    assert cameras.worker.stop(PATIENCE_S)
    assert calls == [[5, 6]] and cameras.order == [(0, 5), (2, 6), (1, 7)]


def test_a_camera_whose_image_waits_for_the_turns_of_others_is_not_busy_with_it():
    cameras, tracker, seen = Cameras(2, FakeTracker()), FakeTracker(), []
    busy_since_ns = lambda: [pipeline._counters.busy_since_ns for pipeline in cameras.pipelines]  # noqa: E731
    tracker.encode_together = lambda pairs: seen.append(busy_since_ns())
    for index, pipeline in enumerate(cameras.pipelines):
        pipeline.tracker = tracker
        pipeline.outputs.publish = lambda *result: seen.append(busy_since_ns()) or True
        cameras.image(index, 1)
    cameras.worker._round_together()
    assert [[ns > 0 for ns in busy] for busy in seen] == [[True, True], [True, False], [False, True]]
    assert seen[2][1] > seen[1][0] and busy_since_ns() == [0, 0]


def test_an_encoder_that_cannot_take_all_takes_one_at_a_time():
    gate, tried = SteppedGate(), []
    tracker = FakeTracker(gate=gate)
    tracker.batched = True

    def refuse(pairs):
        tried.append(len(pairs))
        raise sam2.OutOfMemory("too many")

    tracker.encode_together = refuse
    cameras = Cameras(2, tracker)
    for index in range(2):
        cameras.image(index, 1)
    cameras.worker.start()
    assert tracker.stepping.wait(PATIENCE_S)
    for index in range(2):  # again a pair, for when the first has been stepped
        cameras.image(index, 2)
    gate.tickets.release(4)
    cameras.wait(4)
    assert cameras.worker.stop(PATIENCE_S)
    assert tried == [2], "what cannot be done is not tried, and told, with every image"


def test_encoded_together_is_what_each_would_encode():
    """Different sizes, one batch; the same masks as without, and the features are those of that very frame only."""
    random = np.random.default_rng(0)
    frames = [sam2.Frame(random.integers(0, 256, (*hw, 3), dtype=np.uint8), 5) for hw in ((48, 64), (64, 48))]
    first = sam2.Tracker(small_model())
    trackers = [first, first.sibling()]
    prompt = sam2.Prompt("a", points_xy=[(20, 20)], labels=[1])
    first.encode_together(list(zip(trackers, frames, strict=True)))
    for tracker, frame in zip(trackers, frames, strict=True):
        alone = sam2.Tracker(small_model())
        for shown in (frame, sam2.Frame(frames[0].rgb, 6)):
            prompts = [prompt] if shown is frame else []
            got, expected = (t.step(shown, prompts)[0].low_res_logits for t in (tracker, alone))
            assert np.allclose(got, expected, atol=1e-3) and np.ptp(expected) > 0.1
    with pytest.raises(sam2.BadInput):
        first.encode_together([(first, sam2.Frame(np.zeros((2, 2), np.uint8)))])
    with pytest.raises(sam2.BadInput, match="frames: expected one or more, got none"):
        first.encode_together([])


def test_one_lane_is_what_a_worker_always_was():
    with Bench() as bench:
        assert bench.step(1)[1].stamp_ns == 1


@pytest.mark.ros
def test_cameras_have_topics_objects_and_counters_of_their_own(rig):
    with NodeProcess(parameters={"cameras": ["front", "wrist"]}) as node:
        cameras = {name: FakeCamera(rig, True, f"{name}/image") for name in ("front", "wrist")}
        for camera in cameras.values():
            camera.wait_for_subscriber()
        got = {name: rig.collect(TrackArray, f"/sam2/{name}/tracks") for name in cameras}
        said = rig.diagnostics()
        cameras["front"].publish_until(lambda: got["front"])
        future = rig.start_call(AddObjects, "/sam2/front/add_objects", AddObjects.Request(prompts=[click("cup")]))
        cameras["front"].publish_until(future.done, first=100)
        assert future.result().code == Code.OK
        number = cameras["front"].publish_until(lambda: got["front"][-1].tracks, first=200)
        cameras["wrist"].publish_until(lambda: got["wrist"])  # its stamps are older: its own stream
        assert [t.object_id for t in got["front"][-1].tracks] == ["cup"] and not got["wrist"][-1].tracks
        sent = cameras["front"].message(number).header.frame_id
        assert got["front"][-1].header.frame_id == sent
        said.clear()
        rig.until(lambda: said)
        names = {status.name for message in said for status in message.status}
        assert {"/sam2: front: images", "/sam2: wrist: images", "/sam2: wrist: tracking"} <= names
        said = "/sam2/front, /sam2/wrist can be asked: give one of them as --node"
        rig.until(lambda: NodeClient(rig.node, "/sam2", timeout_s=1).where_else() == said)
        node.end()


@pytest.mark.ros
def test_the_log_says_which_camera_it_is_about_and_tells_each_ones_first_refusal(rig):
    with NodeProcess(parameters={"cameras": ["front", "wrist"]}) as node:
        said = rig.diagnostics()
        nowhere = AddObjects.Request(prompts=[click("cup", x=float("nan"))])

        def refuses(name):
            told = {(status.name, value.key) for m in said for status in m.status for value in status.values}
            return (f"/sam2: {name}: images", "refused: too_small") in told

        for name in ("front", "wrist"):
            FakeCamera(rig, True, f"{name}/image").publish_until(lambda name=name: refuses(name), size_hw=(4, 4))
            rig.until(lambda name=name: rig.call(AddObjects, f"/sam2/{name}/add_objects", nowhere).code != Code.LOADING)
        node.end()
    for name in ("front", "wrist"):
        assert f"[sam2.{name}]: prompt refused: BAD_INPUT" in node.output
        assert f"[sam2.{name}]: refused: image of 4x4" in node.output


@pytest.mark.ros
def test_a_camera_that_is_missing_is_not_looked_for_where_another_one_is(rig):
    with NodeProcess(parameters={"cameras": ["front", "wrist"]}) as node:
        FakeCamera(rig, True, "front/image")
        FakeCamera(rig, True, "hand/image")
        said = rig.diagnostics()
        sentence = "images are on /hand/image; remap it, for example -r wrist/image:=/hand/image"
        rig.until(lambda: any(s.message.endswith(sentence) for m in said for s in m.status if "wrist" in s.name))
        node.end()


@pytest.mark.ros
@pytest.mark.parametrize("wrong", [["a", "a"], ["9"], ["a/b"], ["", "a"]])
def test_names_that_make_no_topics_are_refused(wrong):
    from sam2_ros import params

    assert "cameras" in params.refusal("cameras", wrong)
    assert params.refusal("cameras", ["front", "wrist"]) == params.refusal("cameras", [""]) == ""
