"""The node's inputs as a user finds them: prompts, services, parameters, and what it says when nothing comes out."""

import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import Point, PointStamped
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from ros_rig import ON_FAST_DDS, PATIENCE_S, NodeProcess, click, start_tracking
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from test_node_stream import stamp, values

import sam2
from sam2_ros.mailbox import Arrival, Mailbox
from sam2_ros.msg import Prompt, PromptResult, Track, TrackArray
from sam2_ros.node import TrackNode
from sam2_ros.requests import Code
from sam2_ros.srv import AddObjects, ListObjects, RemoveObjects, RestoreObjects, SaveObjects

pytestmark = pytest.mark.ros


def test_every_door_takes_a_prompt_and_every_prompt_gets_its_result(rig):
    with NodeProcess() as node:
        camera, results = rig.camera(), rig.collect(PromptResult, "/sam2/prompt_result")
        number = start_tracking(rig, camera, "cup")
        prompts = rig.node.create_publisher(Prompt, "/sam2/prompts", 10)
        clicks = rig.node.create_publisher(PointStamped, "/sam2/click", 10)
        points = rig.node.create_publisher(Point, "/sam2/click_point", 10)
        rig.until(lambda: all(p.get_subscription_count() for p in (prompts, clicks, points)))
        stamped = PointStamped(point=Point(x=10.0, y=12.0))
        stamped.header.frame_id = "camera_optical"
        prompts.publish(click("mug", frame_id="camera_optical"))
        clicks.publish(stamped)
        points.publish(Point(x=5.0, y=6.0))
        prompts.publish(click("elsewhere", frame_id="map"))
        prompts.publish(click("outside", x=64.0))
        number = camera.publish_until(lambda: len(results) == 6, first=number)
        by_id = {result.object_id: result for result in results}
        assert {name: Code(r.code).name for name, r in by_id.items()} == {
            "cup": "OK", "mug": "OK", "object_1": "OK", "object_2": "OK", "elsewhere": "BAD_INPUT",
            "outside": "BAD_INPUT",
        }  # fmt: skip
        assert "'map'" in by_id["elsewhere"].sentence and "64x48" in by_id["outside"].sentence
        assert sorted(r.label for r in results if r.code == 0) == [1, 2, 3, 4]
        assert all(r.header.frame_id == "camera_optical" for r in results if r.code == 0)
        node.end()


def test_objects_are_listed_removed_and_reset(rig):
    with NodeProcess() as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "a", "b")
        got = rig.collect(TrackArray, "/sam2/tracks")

        def ids():
            return [t.object_id for t in got[-1].tracks] if got else None

        number = camera.publish_until(lambda: ids() == ["a", "b"], first=number)
        listed = rig.call(ListObjects, "/sam2/list_objects")
        assert [(t.object_id, t.label, len(t.mask.counts)) for t in listed.objects] == [("a", 1, 0), ("b", 2, 0)]
        assert listed.header.frame_id == "camera_optical" and 0 < listed.age < PATIENCE_S
        rig.until(lambda: rig.call(ListObjects, "/sam2/list_objects").age > listed.age + 0.2)  # the camera stands still
        gone = rig.call(RemoveObjects, "/sam2/remove_objects", RemoveObjects.Request(object_ids=["b", "ghost"]))
        assert (gone.code, gone.unknown_ids) == (Code.UNKNOWN_OBJECT, ["ghost"])
        assert [t.object_id for t in rig.call(ListObjects, "/sam2/list_objects").objects] == ["a"]  # without an image
        number = camera.publish_until(lambda: ids() == ["a"], first=number)
        assert rig.call(Trigger, "/sam2/reset").success
        assert rig.call(ListObjects, "/sam2/list_objects").objects == []
        camera.publish_until(lambda: ids() == [], first=number)
        node.end()


def test_an_add_of_several_is_all_or_nothing_and_names_the_culprit(rig):
    with NodeProcess() as node:
        camera = rig.camera()
        start_tracking(rig, camera, "a")
        bad = click("c")
        bad.point_labels = [5]
        for prompts, word in [([click("b"), bad], "prompt 1: point_labels[0]"), ([click("b"), click("b")], "twice")]:
            answer = rig.call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=prompts))
            assert answer.code == Code.BAD_INPUT and word in answer.sentence and answer.object_ids == []
        assert [t.object_id for t in rig.call(ListObjects, "/sam2/list_objects").objects] == ["a"]
        node.end()


def test_disabled_ignores_images_and_keeps_objects(rig):
    with NodeProcess() as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "a")
        got, said = rig.collect(TrackArray, "/sam2/tracks"), rig.diagnostics()

        def counted(key):
            return int(values(said, "images")[key]) if said else 0

        number = camera.publish_until(lambda: got, first=number)
        camera.publish(number)
        rig.until(lambda: stamp(got[-1]) == stamp(camera.message(number)))  # nothing is on its way any more
        assert rig.call(SetBool, "/sam2/enable", SetBool.Request(data=False)).success
        answer = rig.call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[click()]))
        assert answer.code == Code.NOT_ACTIVE and "~/enable" in answer.sentence
        said.clear()
        rig.until(lambda: said)
        before = counted("received")
        ignored = camera.publish(number + 1)
        rig.until(lambda: counted("received") == before + 1)
        assert counted("ignored while disabled or inactive") == 1
        assert rig.call(SetBool, "/sam2/enable", SetBool.Request(data=True)).success
        camera.publish_until(lambda: stamp(got[-1]) > stamp(ignored), first=number + 2)
        assert stamp(ignored) not in map(stamp, got)
        assert [t.object_id for t in got[-1].tracks] == ["a"]
        node.end()


def test_an_image_that_waits_when_images_are_disabled_is_not_processed(rig):
    node = TrackNode(context=rig.context)
    (channel,) = node.channels
    mailbox = channel.camera._mailbox = Mailbox(1)
    for enabled in (True, False):
        mailbox.post_image(Arrival(None, stamp_ns=1, arrived_ns=1))
        channel.enable(enabled)
        assert (channel.enabled, mailbox.has_work, channel.counters.ignored) == (enabled, enabled, not enabled)
    node.stop()
    node.destroy_node()


REFUSED = [  # parameter, value, what the reason says
    ("model", ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="tiny"), "read-only"),
    ("overlay_opacity", ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=1.5), "1.5"),
    ("overlay_opacity", ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=float("nan")), ""),
    ("overlay_opacity", ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="much"), "type"),
    ("jpeg_quality", ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=0), "0"),
]


def test_a_wrong_parameter_is_refused_and_the_old_value_stays(rig):
    with NodeProcess() as node:
        for name, value, word in REFUSED:
            old = rig.call(GetParameters, "/sam2/get_parameters", GetParameters.Request(names=[name])).values
            request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
            result = rig.call(SetParameters, "/sam2/set_parameters", request).results[0]
            assert not result.successful and word in result.reason, (name, value, result)
            assert rig.call(GetParameters, "/sam2/get_parameters", GetParameters.Request(names=[name])).values == old
        node.end()


def test_it_says_why_nothing_comes_out(rig):
    with NodeProcess(parameters={"image_reliability": "reliable", "image_timeout_s": 0.5}) as node:
        rig.wait_for_state("active")
        said = rig.diagnostics()

        def hears(*words, level=b"\x02"):
            return lambda: any(s.level == level and all(w in s.message for w in words) for m in said for s in m.status)

        rig.until(hears("nobody publishes /image", "remap it, for example -r image:=/camera/image_raw"))
        for topic in ("aligned_depth/image", "front/image"):
            rig.node.create_publisher(Image, topic, 1)
        rig.node.create_publisher(CompressedImage, "a/image/compressed", 1)
        rig.until(hears("; images are on /front/image; remap it, for example -r image:=/front/image"))
        rig.node.create_publisher(Image, "a/label_mask", 1)
        rig.until(hears("; images are on /front/image, /a/label_mask; remap it, for example -r image:=/front/image"))
        beside = rig.node.create_publisher(CompressedImage, "image/compressed", 1)
        rig.until(hears("/image/compressed is there: set image_transport to compressed"))
        refused = rig.call(AddObjects, "/sam2/add_objects", AddObjects.Request(prompts=[click("a")]))
        assert refused.code == Code.NO_IMAGE and "/image/compressed is there" in refused.sentence
        rig.node.destroy_publisher(beside)
        other = rig.node.create_publisher(CompressedImage, "image", 1)
        rig.until(hears("/image carries sensor_msgs/msg/CompressedImage", "image_transport"))
        rig.node.destroy_publisher(other)
        camera = rig.camera(reliable=False)
        rig.until(hears("RELIABILITY", "auto"))
        camera.close()
        camera = rig.camera()
        camera.wait_for_subscriber()
        camera.publish_until(hears("refused", "16x16"), size_hw=(2, 2))
        camera.publish_until(hears("no object", level=b"\x00"), first=1000)
        rig.until(hears("nothing arrives"))
        node.end()


def test_the_reliability_follows_the_publisher(rig):
    with NodeProcess() as node:
        rig.wait_for_state("active")
        got = rig.collect(TrackArray, "/sam2/tracks")

        def offered():
            infos = rig.node.get_subscriptions_info_by_topic("/image")
            return [info.qos_profile.reliability.name for info in infos]

        rig.until(lambda: offered() == ["BEST_EFFORT"])
        camera = rig.camera(reliable=True)
        rig.until(lambda: offered() == ["RELIABLE"])
        number = camera.publish_until(lambda: got)
        second = rig.camera(reliable=False)
        rig.until(lambda: offered() == ["BEST_EFFORT"])
        second.close()
        rig.until(lambda: offered() == ["RELIABLE"])
        got.clear()
        camera.publish_until(lambda: got, first=number)
        node.end()


def test_the_track_states_are_those_of_the_library():
    assert {s.name: int(s) for s in sam2.State} == {n: getattr(Track, n) for n in (s.name for s in sam2.State)}
    assert {c.name: int(c) for c in Code} == {c.name: getattr(PromptResult, c.name) for c in Code}


def test_sim_time_without_a_clock_stops_nothing(rig):
    with NodeProcess(parameters={"use_sim_time": True, "image_timeout_s": 0.5}) as node:
        camera, said = rig.camera(), rig.diagnostics()
        start_tracking(rig, camera, "a")
        said.clear()  # it was silent before the first image, too
        rig.until(lambda: any("no image for" in s.message for m in said for s in m.status))
        assert all(m.header.stamp.sec == 0 for m in said)  # the frozen clock, not the wall's
        node.end()


@pytest.mark.skipif(not ON_FAST_DDS, reason="CycloneDDS does not report them")
def test_large_images_that_get_lost_are_noticed_and_the_cure_is_named(rig):
    with NodeProcess() as node:
        camera, said = rig.camera(reliable=False), rig.diagnostics()
        camera.wait_for_subscriber()
        camera.publish_until(
            lambda: any(
                "lost on the way" in s.message and "fastdds_shm.xml" in s.message for m in said for s in m.status
            ),
            size_hw=(720, 1280),
        )
        node.end()


def test_a_name_that_leads_out_of_the_folder_saves_and_restores_nothing(rig):
    with NodeProcess() as node:
        camera = rig.camera()
        start_tracking(rig, camera, "a")
        for name in ("../x", "", "a/b", "x.y"):
            for kind, service in ((SaveObjects, "save"), (RestoreObjects, "restore")):
                answer = rig.call(kind, f"/sam2/{service}", kind.Request(name=name))
                assert answer.code == Code.BAD_INPUT and "letters" in answer.sentence
        node.end()
