"""Services are answered in every state of the node, every one of them, and while the model loads."""

import signal

import pytest

pytest.importorskip("rclpy")

from ros_rig import STOP_S, NodeProcess, click
from std_srvs.srv import SetBool, Trigger

from sam2_ros.msg import Prompt, PromptResult
from sam2_ros.requests import Code
from sam2_ros.srv import AddObjects, ListObjects, RemoveObjects, RestoreObjects, SaveObjects, SetTarget

pytestmark = pytest.mark.ros

REQUESTS = {  # each of them has something wrong once the node is open, so that nothing is changed by it
    "add_objects": (AddObjects, dict(prompts=[click()])),  # there is no image
    "remove_objects": (RemoveObjects, dict(object_ids=["x"])),
    "set_target": (SetTarget, dict(object_id="x")),
    "save": (SaveObjects, dict(name="no/name")),
    "restore": (RestoreObjects, dict(name="no/name")),
}
OPEN = {
    "add_objects": "NO_IMAGE", "remove_objects": "UNKNOWN_OBJECT", "set_target": "UNKNOWN_OBJECT", "save": "BAD_INPUT",
    "restore": "BAD_INPUT", "list_objects": "OK", "reset": "OK", "enable": "OK",
}  # fmt: skip


def all_answer(code: str) -> dict[str, str]:
    """That code from every service but ~/enable, which works in every state."""
    return {name: "OK" if name == "enable" else code for name in OPEN}


def every_service(rig) -> dict[str, str]:
    """The code each service answers with, by name."""
    answers = {
        name: rig.call(kind, f"/sam2/{name}", kind.Request(**fields)) for name, (kind, fields) in REQUESTS.items()
    }
    assert all(answer.sentence for answer in answers.values())
    listed = rig.call(ListObjects, "/sam2/list_objects")
    assert listed.age == (-1.0 if listed.code == Code.OK else 0.0), "there was no image"
    reset = rig.call(Trigger, "/sam2/reset")
    enabled = rig.call(SetBool, "/sam2/enable", SetBool.Request(data=True))
    assert (
        enabled.success and bool(reset.message) != reset.success and bool(listed.sentence) != (listed.code == Code.OK)
    )
    codes = {name: Code(answer.code).name for name, answer in (answers | {"list_objects": listed}).items()}
    return codes | {"reset": reset.message.split(":")[0] or "OK", "enable": "OK"}


def names_of_ours(rig) -> set[str]:
    """Of the node's services those that not every lifecycle node has. Not asked for by the node: the graph may know
    one of that name that an earlier test had."""
    there = rig.node.get_service_names_and_types()
    own = [name for name, kinds in there if kinds[0].startswith(("sam2_ros/", "std_srvs/"))]
    return {name.removeprefix("/sam2/") for name in own if name.startswith("/sam2/")}


def test_every_service_is_answered_in_every_state(rig):
    with NodeProcess(parameters={"autostart": False}) as node:
        closed = all_answer("NOT_ACTIVE")
        assert rig.state() == "unconfigured" and every_service(rig) == closed
        assert rig.change_state("configure") and rig.state() == "inactive"
        assert every_service(rig) == closed
        assert rig.change_state("activate") and rig.state() == "active"
        rig.until(lambda: every_service(rig) == OPEN)
        assert rig.change_state("deactivate") and every_service(rig) == closed
        assert rig.change_state("cleanup") and rig.state() == "unconfigured" and every_service(rig) == closed
        rig.until(lambda: names_of_ours(rig) >= set(OPEN))  # the graph learns of each a little later
        assert names_of_ours(rig) == set(OPEN)
        assert rig.change_state("shutdown") and rig.state() == "finalized"
        assert every_service(rig) == all_answer("STOPPING")
        node.end()


def test_what_is_asked_while_the_node_stops_is_answered_before_the_process_ends(rig):
    """For up to two seconds it waits for the network, and for nobody else."""
    with NodeProcess(tracker={"delay": 3600}, parameters={"max_age_s": 0.05, "image_reliability": "reliable"}) as node:
        camera, said = rig.camera(), rig.diagnostics()
        camera.wait_for_subscriber()
        rig.until(lambda: rig.call(ListObjects, "/sam2/list_objects").code == Code.OK)
        assert rig.call(Trigger, "/sam2/reset").success
        camera.publish_until(lambda: any("busy with one image" in s.message for m in said for s in m.status))
        node.signal(signal.SIGTERM)
        rig.until(lambda: camera.subscribers == 0)
        listed = [rig.start_call(ListObjects, "/sam2/list_objects") for _ in range(5)]
        reset = rig.start_call(Trigger, "/sam2/reset")
        rig.until(lambda: reset.done() and all(one.done() for one in listed), within_s=STOP_S)
        assert {one.result().code for one in listed} == {Code.STOPPING} and "STOPPING" in reset.result().message
        assert node.exit_code() == 0


def test_states_and_services_are_answered_while_the_model_loads(rig):
    with NodeProcess(tracker={"load": 3600}) as node:
        rig.wait_for_state("active")
        assert every_service(rig) == all_answer("LOADING")
        assert rig.change_state("deactivate")
        node.end()
        assert "prompt refused" not in node.output, "who calls a service hears it, and asks again"


def test_a_prompt_by_topic_that_comes_while_the_model_loads_is_refused_in_the_log_too(rig):
    with NodeProcess(tracker={"load": 3600}) as node:
        rig.wait_for_state("active")
        rig.camera().publish(0)
        results, prompts = (
            rig.collect(PromptResult, "/sam2/prompt_result"),
            rig.node.create_publisher(Prompt, "/sam2/prompts", 10),
        )
        rig.until(lambda: prompts.get_subscription_count())
        rig.until(lambda: rig.node.count_publishers("/sam2/prompt_result"))
        prompts.publish(click("cup"))
        rig.until(lambda: results)
        assert results[0].code == Code.LOADING
        node.end()
        assert "prompt refused: LOADING: the model is being loaded; ask again" in node.output
