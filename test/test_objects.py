"""`sam2_ros objects`: the table, what changes while it watches, and everything it can have a node do."""

import re
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")

from ros_rig import PATIENCE_S, NodeProcess, start_tracking
from std_msgs.msg import Header

from sam2_ros import objects
from sam2_ros.msg import Track, Visibility, VisibilityArray
from sam2_ros.requests import Code
from sam2_ros.ros_time import time_message
from sam2_ros.srv import ListObjects, RemoveObjects, RestoreObjects, SaveObjects

pytestmark = pytest.mark.ros


def seen(at_s, **states):
    header = Header(stamp=time_message(at_s * 10**9))
    found = [Visibility(object_id=name, state=state, presence=0.5) for name, state in states.items()]
    return VisibilityArray(header=header, objects=found)


def test_what_comes_goes_and_changes_is_a_line_each_and_the_rest_is_silence():
    known = {}
    assert objects.changes(known, seen(1, cup=0, ball=1), set()) == [
        "1.000  cup: visible, presence 0.50",
        "1.000  ball: occluded, presence 0.50",
    ]
    assert objects.changes(known, seen(2, cup=0, ball=1), set()) == []
    assert objects.changes(known, seen(3, cup=2), set()) == ["3.000  ball: removed", "3.000  cup: lost, presence 0.50"]
    assert objects.changes(known, seen(3, cup=2), set()) == [], "gone once"
    assert objects.changes({}, seen(4, cup=0, ball=0), {"ball"}) == ["4.000  ball: visible, presence 0.50"]


def test_the_table_has_a_line_for_each_and_no_place_for_what_is_not_seen():
    cup = Track(object_id="cup", class_name="mug", label=3, area=7, presence=0.9)
    cup.box.x_offset, cup.box.y_offset, cup.box.width, cup.box.height = 1, 2, 30, 40
    hidden = Track(object_id="ball", label=12, state=Track.OCCLUDED, presence=0.1)
    head, first, second = objects.table([cup, hidden]).split("\n")
    assert head.split()[:4] == ["label", "object", "class", "state"]
    assert first.split() == ["3", "cup", "mug", "visible", "0.90", "1,", "2,", "30", "x", "40", "7"]
    assert second.split() == ["12", "ball", "occluded", "0.10", "-", "0"]
    assert objects.table([]) == "nothing is tracked"


def test_names_command_no_terminal():
    name, shown, known = "a\n\x1b[31m", "a\\n\\x1b[31m", {}
    _, line = objects.table([Track(object_id=name, class_name=name)]).split("\n")
    assert line.split()[1:3] == [shown, shown]
    assert objects.changes(known, seen(1, **{name: 0}), set()) == [f"1.000  {shown}: visible, presence 0.50"]
    assert objects.changes(known, seen(2), set()) == [f"2.000  {shown}: removed"]
    client = SimpleNamespace(call=lambda kind, *_: kind.Response(object_ids=[name]))
    assert objects.do(client, objects.parse(["--save", "x"])) == f"saved {shown} in "
    assert objects.do(client, objects.parse(["--restore", "x"])) == f"tracking {shown} again, from the next image on"
    client = SimpleNamespace(call=lambda kind, *_: kind.Response())
    assert objects.do(client, objects.parse(["--remove", name])) == f"removed {shown}"
    assert objects.do(client, objects.parse(["--target", name])) == f"the target is {shown}"
    with pytest.raises(objects.NodeRefused) as caught:
        objects.do(client, objects.parse([name]))
    assert str(caught.value) == f"UNKNOWN_OBJECT: not tracked: {shown}"


@pytest.mark.parametrize(
    "line, why",
    [("--remove", "--reset forgets all"), ("--reset cup", "takes no ids"), ("--target a b", "expected one id, got 2")],
)
def test_a_line_that_says_too_little_or_too_much_is_refused(line, why, capsys):
    with pytest.raises(SystemExit):
        objects.parse(line.split())
    assert why in capsys.readouterr().err


def test_a_node_lists_removes_resets_and_chooses(rig, capsys):
    def says(line, code=0):
        assert objects.main(line.split()) == code, capsys.readouterr()
        said = capsys.readouterr()
        return re.sub(".*; waiting\n", "", said.err) if code else said.out  # on a busy machine it says that it waits

    with NodeProcess() as node:
        start_tracking(rig, rig.camera(), "cup", "ball")
        assert [line.split()[1] for line in says("").splitlines()[:3]] == ["object", "cup", "ball"]
        assert "cup" not in says("ball") and says("hat", 1) == "UNKNOWN_OBJECT: not tracked: hat\n"
        assert says("--target ball") == "the target is ball\n" and says("--target hat", 1).startswith("UNKNOWN_OBJECT")
        assert says("--remove cup hat", 1) == "removed cup; not tracked: hat; tracked: ball\n"
        assert "not tracked: cup" in says("--remove cup", 1) and says("--remove ball ball") == "removed ball\n"
        assert says("--reset") == "all objects are forgotten\n" and says("") == "nothing is tracked\n"
        node.end()


@pytest.mark.parametrize(("age", "is_told"), [(-1.0, False), (0.3, False), (5.26, True)])
def test_what_is_not_new_any_more_is_told(age, is_told):
    found = ListObjects.Response(objects=[Track(object_id="cup")], age=age)
    said = objects.do(SimpleNamespace(call=lambda *_: found), objects.parse([]))
    assert ("5.3 s old, and no newer result came: `sam2_ros status` says why" in said) == is_told
    found.objects = []
    assert objects.do(SimpleNamespace(call=lambda *_: found), objects.parse([])) == "nothing is tracked"


def test_what_was_restored_and_waits_for_an_image_is_told(capsys):
    waits = "restored, and tracked from the next image on: hat"

    def says(*words, **answer):
        found = ListObjects.Response(sentence=waits, **answer)
        return objects.do(SimpleNamespace(call=lambda *_: found), objects.parse(words))

    assert says() == waits
    assert says(objects=[Track(object_id="cup")]).split("\n")[2:] == [waits]
    with pytest.raises(objects.NodeRefused, match=f"not tracked: hat; {waits}"):
        says("hat")

    answer = ListObjects.Response(sentence=waits)
    watched = SimpleNamespace(call=lambda *_: answer, watch=lambda *_: None, name="/sam2")
    assert objects.watch(watched, {"hat"}) == 0
    assert capsys.readouterr().out == f"not tracked yet: hat; waiting; {waits}\n"
    watched.call = lambda *_: ListObjects.Response(objects=[Track(object_id="cup")])
    for ids, said in (({"hat"}, "not tracked yet: hat; waiting\n"), ({"hat", "cup"}, ""), (set(), "")):
        assert objects.watch(watched, ids) == 0 and capsys.readouterr().out == said


def test_saving_and_restoring_say_what_and_where():
    """Against answers as the node gives them; `test_node_real.py` has the services themselves."""
    asked = []

    def answer(kind, service, request):
        asked.append((service, request.name, list(request.object_ids)))
        found = kind.Response(object_ids=["cup", "ball"])
        if kind is SaveObjects:
            found.path = "/there/kitchen.safetensors"
        return found

    client = SimpleNamespace(call=answer)
    assert objects.do(client, objects.parse(["ball", "--save", "b"])) == "saved cup, ball in /there/kitchen.safetensors"
    assert asked.pop() == ("save", "b", ["ball"])
    assert objects.do(client, objects.parse(["--save", "kitchen"])) == "saved cup, ball in /there/kitchen.safetensors"
    assert objects.do(client, objects.parse(["--restore", "kitchen", "cup"])) == (
        "tracking cup, ball again, from the next image on"
    )
    assert asked == [("save", "kitchen", []), ("restore", "kitchen", ["cup"])]
    client.call = lambda *_: RestoreObjects.Response(code=int(Code.STALE), sentence="too old")
    with pytest.raises(objects.NodeRefused, match="STALE: too old"):
        objects.do(client, objects.parse(["--restore", "kitchen"]))


def test_it_watches_until_it_is_interrupted(rig):
    with NodeProcess() as node:
        camera = rig.camera()
        number = start_tracking(rig, camera, "cup", "ball")
        command = [sys.executable, "-m", "sam2_ros.cli", "objects", "--watch", "cup"]
        watching, lines = subprocess.Popen(command, stdout=subprocess.PIPE, text=True), []
        reader = threading.Thread(target=lambda: lines.extend(watching.stdout), daemon=True)
        reader.start()
        number = camera.publish_until(lambda: lines, first=number)
        assert lines[0].endswith("cup: visible, presence 1.00\n")
        rig.until(lambda: lines[1:])  # no camera, no results
        assert lines[1].startswith("no result of /sam2 for 3 s")
        number = camera.publish_until(lambda: lines[2:], first=number)
        gone = rig.start_call(RemoveObjects, "/sam2/remove_objects", RemoveObjects.Request(object_ids=["cup", "ball"]))
        camera.publish_until(lambda: gone.done() and lines[3:], first=number)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=PATIENCE_S) == 0
        reader.join(PATIENCE_S)
        watching.stdout.close()
        assert len(lines) == 4 and lines[2].endswith("cup: visible, presence 1.00\n")
        assert lines[3].endswith("cup: removed\n")
        node.end()


def test_nobody_there_is_a_sentence(capsys):
    assert objects.main(["--node", "nobody", "--timeout", "0.1"]) == 2
    assert "/nobody/list_objects is not there" in capsys.readouterr().err
