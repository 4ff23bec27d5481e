"""The node with the real network, its weights drawn at random: everything between parameters and messages fits."""

import pytest

pytest.importorskip("rclpy")

import torch
from ros_rig import NodeProcess, start_tracking
from safetensors.torch import save_file

import sam2
from sam2.model import SAM2
from sam2_ros.msg import TrackArray
from sam2_ros.requests import Code
from sam2_ros.srv import ListObjects, RemoveObjects, RestoreObjects, SaveObjects

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A nano checkpoint that knows nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file({name: value.contiguous() for name, value in SAM2(sam2.find_config("nano")).state_dict().items()}, path)
    return path


def test_a_prompt_gives_tracks_with_the_real_network_and_survives_a_restart(rig, weights, tmp_path):
    parameters = {"checkpoint": weights, "device": "cpu", "prompt_wait_s": 30.0, "save_folder": tmp_path / "kept"}
    with NodeProcess(real=True, parameters=parameters) as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "a", "b")
        got = rig.collect(TrackArray, "/sam2/tracks")
        number = camera.publish_until(lambda: len(got) >= 3, first=number, period_s=0.2)
        for message in got:
            assert [(t.object_id, t.label) for t in message.tracks] == [("a", 1), ("b", 2)]
            assert all(t.mask.image_width == 64 and 0 <= t.presence <= 1 for t in message.tracks)
        saved = rig.call(SaveObjects, "/sam2/save", SaveObjects.Request(name="kitchen", object_ids=["b"]))
        assert (saved.code, saved.path) == (Code.OK, str(tmp_path / "kept" / "kitchen.safetensors")), saved.sentence
        gone = rig.call(RemoveObjects, "/sam2/remove_objects", RemoveObjects.Request(object_ids=["a"]))
        assert gone.code == Code.OK
        number = camera.publish_until(
            lambda: [t.object_id for t in got[-1].tracks] == ["b"], first=number, period_s=0.2
        )
        node.end()
    rig.clients.clear()
    with NodeProcess(real=True, parameters=parameters) as node:
        camera.wait_for_subscriber()
        rig.until(lambda: rig.call(ListObjects, "/sam2/list_objects").code == Code.OK)
        refused = rig.call(RestoreObjects, "/sam2/restore", RestoreObjects.Request(name="bathroom"))
        assert refused.code == Code.BAD_INPUT and "no such file; saved there: " in refused.sentence
        restored = rig.call(RestoreObjects, "/sam2/restore", RestoreObjects.Request(name="kitchen", max_age_s=3600.0))
        assert (restored.code, list(restored.object_ids)) == (Code.OK, ["b"]), restored.sentence
        listed = rig.call(ListObjects, "/sam2/list_objects")
        assert not listed.objects and listed.sentence.endswith("from the next image on: b")
        said = rig.diagnostics()
        rig.until(lambda: any(v.key == "objects" and v.value == "1" for m in said for s in m.status for v in s.values))
        got.clear()
        camera.publish_until(lambda: got, first=number, period_s=0.2)
        assert [t.object_id for t in got[-1].tracks] == ["b"]
        assert rig.call(ListObjects, "/sam2/list_objects").sentence == ""
        node.end()


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"checkpoint": "/nowhere.safetensors"}, ["/nowhere.safetensors", "sam2_ros weights"]),
        ({"device": "cuda:77"}, ["cuda:77"]),
    ],
)
def test_what_cannot_be_loaded_is_said_in_the_diagnostics(rig, parameters, words):
    with NodeProcess(real=True, parameters=parameters) as node:
        rig.wait_for_state("unconfigured")
        said = rig.diagnostics()
        rig.until(lambda: any(all(w in s.message for w in words) for m in said for s in m.status))
        node.end()
