"""`sam2_ros prompt`: what its words ask the node for. That a node hears it is in `test_cli`."""

from contextlib import nullcontext
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from sam2_ros import prompt
from sam2_ros.srv import AddObjects

pytestmark = pytest.mark.ros


def test_a_prompt_line_becomes_the_message():
    line = "--click 1 2 --click 3 4 --not 5 6 --box 0 1 8 9 --id cup --class mug --replace --stamp 12000000345"
    message = prompt.message(prompt.parse(line.split()))
    assert list(message.points_xy) == [1, 2, 3, 4, 5, 6] and list(message.point_labels) == [1, 1, 0]
    assert list(message.box_xyxy) == [0, 1, 8, 9] and (message.object_id, message.class_name) == ("cup", "mug")
    assert message.mode == message.REPLACE
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (12, 345)


def test_a_correction_of_an_object_may_be_what_is_not_on_it():
    message = prompt.message(prompt.parse(["--id", "cup", "--not", "5", "6"]))
    assert (message.object_id, list(message.points_xy), list(message.point_labels)) == ("cup", [5, 6], [0])


def test_a_mask_file_becomes_a_mask(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[3:5, 7:9] = 9
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    message = prompt.message(prompt.parse(["--mask", str(tmp_path / "mask.png")])).mask
    assert np.array_equal(np.frombuffer(message.data, np.uint8).reshape(20, 30), np.where(mask, 255, 0))


@pytest.mark.parametrize(
    "argv", [[], ["--id", "cup"], ["--click", "1"], ["--not", "1", "2"], ["--class", "mug", "--id", "cup"]]
)
def test_a_prompt_without_a_place_is_refused(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        prompt.parse(argv)
    assert caught.value.code == 2 and "usage" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["-1", "4294967296000000000", "1e22", "now"])
def test_a_stamp_that_no_message_can_have_is_refused(given, capsys):
    """In a message 4294967296 seconds would be 0, which means the next image."""
    with pytest.raises(SystemExit):
        prompt.parse(["--click", "1", "2", f"--stamp={given}"])
    assert f"expected nanoseconds, 0 to 2147483647999999999, got '{given}'" in capsys.readouterr().err


def test_a_mask_file_that_is_none_or_not_there(tmp_path):
    with pytest.raises(SystemExit, match="expected an image file, found none"):
        prompt.message(prompt.parse(["--mask", str(tmp_path / "none.png")]))
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(SystemExit, match="expected an image file, got another"):
        prompt.message(prompt.parse(["--mask", str(tmp_path / "text.png")]))


def node_with(monkeypatch, **newest):
    """A node that answers so about its newest image; returns what it is asked."""
    asked = []

    def ask(kind, service, request, waits_for=()):
        asked.append(request)
        return kind.Response(**newest) if len(asked) == 1 else kind.Response()

    monkeypatch.setattr(prompt, "connect", lambda name, timeout_s: nullcontext(SimpleNamespace(call=ask)))
    return asked


def test_the_newest_image_is_the_one_that_the_node_has_processed(monkeypatch, capsys):
    asked = node_with(monkeypatch, header=Header(stamp=Time(sec=7, nanosec=5)), age=3.0)
    assert prompt.main(["--click", "1", "2", "--newest"]) == 0
    assert asked[1].prompts[0].header.stamp == Time(sec=7, nanosec=5)
    with pytest.raises(SystemExit):
        prompt.parse(["--click", "1", "2", "--newest", "--stamp", "5"])
    assert "--stamp and --newest both say which image" in capsys.readouterr().err


def test_the_name_of_an_object_commands_no_terminal(monkeypatch, capsys):
    ask = lambda kind, *_: kind.Response(object_ids=["a\n\x1b[31m"]) if kind is AddObjects else kind.Response()  # noqa: E731
    monkeypatch.setattr(prompt, "connect", lambda name, timeout_s: nullcontext(SimpleNamespace(call=ask)))
    assert prompt.main(["--click", "1", "2"]) == 0
    assert capsys.readouterr().out == "tracking a\\n\\x1b[31m\n"


def test_where_no_image_came_yet_the_newest_will_be_the_next(monkeypatch):
    asked = node_with(monkeypatch, age=-1.0)
    assert prompt.main(["--click", "1", "2", "--newest"]) == 0 and asked[1].prompts[0].header.stamp == Time()


def test_the_newest_image_must_have_a_stamp_to_be_meant(monkeypatch):
    asked = node_with(monkeypatch, age=3.0)
    with pytest.raises(SystemExit, match="expected images with a stamp, got one without; click on ~/click_point"):
        prompt.main(["--click", "1", "2", "--newest"])
    assert len(asked) == 1
