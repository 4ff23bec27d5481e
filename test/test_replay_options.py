"""What a replay does with what it is given and what it counts; what ends it early leaves nothing."""

import json
import os
import pickle
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

from bags import SIZE_HW, image_message, shots_of, write_bag
from fakes import FakeTracker
from test_replay import read_bag

import sam2
from sam2_ros import prompt_file, replay
from sam2_ros.film import Film
from sam2_ros.replay_davis import FRAMES
from sam2_ros.replay_report import Report
from sam2_ros.replay_source import Shot, Source

pytestmark = pytest.mark.ros
SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP

CUP = "- {object_id: cup, points: [[32, 24]]}\n"
NOT_CUP = "- {object_id: cup, points: [[6, 2]], labels: [0]}\n"


@pytest.fixture
def words(tmp_path):
    """A folder of images, prompts and a name for the bag."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), np.full((*SIZE_HW, 3), number, np.uint8))
    (tmp_path / "p.yaml").write_text(CUP)
    return [str(tmp_path / "in"), "--prompts", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "o.mcap")]


@pytest.fixture
def tracker(monkeypatch):
    made = FakeTracker()
    monkeypatch.setattr(replay, "make_tracker", lambda args, entries: made)
    return made


def test_the_network_is_loaded_as_told_and_there_is_room_for_every_object(words, tmp_path, monkeypatch):
    got = SimpleNamespace()
    monkeypatch.setattr(sam2, "set_cpu_threads", lambda *given: setattr(got, "threads", given))
    monkeypatch.setattr(sam2, "load_model", lambda *given, **more: setattr(got, "loaded", (given, more)) or "model")
    monkeypatch.setattr(sam2, "Tracker", lambda model, **more: (model, more))
    (tmp_path / "p.yaml").write_text("".join(CUP.replace("cup", f"cup{number % 20}") for number in range(40)))
    args = replay.parse([*words, "--model", "tiny", "--checkpoint", "w.pt", "--device", "cuda:1"])
    made = replay.make_tracker(args, prompt_file.read(args.prompts))
    limits = sam2.Limits(max_objects=20, history_frames=1)
    assert made == ("model", {"limits": limits, "sticky_corrections": True})
    assert got.threads == (0, "tiny") and got.loaded == (("tiny",), {"checkpoint": Path("w.pt"), "device": "cuda:1"})


def test_the_rate_of_a_folder_is_told_and_images_are_encoded_ahead(words, tmp_path, tracker):
    assert replay.main([*words, "--fps", "4", "--report", str(tmp_path / "r.json")]) == 0
    source = json.loads((tmp_path / "r.json").read_text())["source"]
    assert (source["first_stamp_ns"], source["last_stamp_ns"]) == (250_000_000, 750_000_000)
    assert [call for call in tracker.calls if call != "check"] == ["encode_ahead", "step"] * 2 + ["step"]


def test_a_replay_needs_no_terminal_and_no_error_output(words, tmp_path, tracker, monkeypatch):
    """As `2>&-` leaves none."""
    monkeypatch.setattr(sys, "stderr", None)
    assert replay.main(words) == 0


@pytest.mark.parametrize("option", ["--sheet", "--out"])
def test_an_output_in_the_place_of_a_prompts_mask_is_refused(option, words, tmp_path, tracker):
    mask = tmp_path / "mask.png"
    cv2.imwrite(str(mask), np.full(SIZE_HW, 255, np.uint8))
    before = mask.read_bytes()
    (tmp_path / "p.yaml").write_text("- {object_id: cup, mask: mask.png}\n")
    with pytest.raises(
        sam2.BadInput, match=f"^{option} .*: expected a file of its own, a mask of --prompts is the same"
    ):
        replay.main([*words, option, str(tmp_path / "in" / ".." / "mask.png")])
    assert mask.read_bytes() == before


def test_blamed_is_what_begins_an_object_and_not_what_corrects_it(words, tmp_path, tracker):
    (tmp_path / "p.yaml").write_text(NOT_CUP + CUP)
    tracker.raise_on = {"check": sam2.BadInput("no good")}
    with pytest.raises(sam2.BadInput, match=r"entry 2 \('cup'\), frame 0: no good"):
        replay.main(words)


def test_images_without_stamps_count_by_when_they_were_recorded_and_a_file_lends_its_name(words, tmp_path, tracker):
    messages = [image_message(number) for number in range(4)]
    for message in messages:
        message.header.stamp.sec = message.header.stamp.nanosec = 0
    (file,) = write_bag(tmp_path / "kitchen.1", {"/image": messages}).glob("*.mcap")
    tracker.absent_on = {1, 2}
    assert replay.main([str(file), *words[1:], "--davis", str(tmp_path / "data")]) == 0
    heard = read_bag(tmp_path / "o.mcap")["/sam2/visibility"]
    assert [round(message.objects[0].seconds_since_seen, 3) for _, message in heard] == [0.0, 0.1, 0.2, 0.0]
    assert [path.name for path in (tmp_path / "data" / FRAMES).iterdir()] == [file.stem]


def test_an_image_without_a_stamp_is_not_one_whose_stamp_went_back(words, tmp_path, tracker, capsys):
    messages = [image_message(number) for number in range(3)]
    messages[1].header.stamp.sec = messages[1].header.stamp.nanosec = 0
    bag = write_bag(tmp_path / "kitchen", {"/image": messages})
    assert replay.main([str(bag), *words[1:]]) == 0
    assert "stamps went back" not in capsys.readouterr().out


@pytest.mark.parametrize("place", ["o.mcap", "o", f"data/{FRAMES}/in"])
def test_a_link_to_nowhere_in_the_place_of_an_output_is_told_before_the_first_image(words, tmp_path, tracker, place):
    link = tmp_path / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("nowhere")
    out = place if place.startswith("o") else "other.mcap"
    with pytest.raises(sam2.BadInput, match=r"already exists|there already"):
        replay.main([*words[:-1], str(tmp_path / out), "--davis", str(tmp_path / "data")])
    assert link.is_symlink() and not tracker.steps


@pytest.mark.parametrize("place", ["box: [1, 2, 30, 40]", "mask: m.png"])
def test_what_a_box_or_a_mask_begins_may_be_corrected_later(words, tmp_path, tracker, place):
    cv2.imwrite(str(tmp_path / "m.png"), np.full(SIZE_HW, 255, np.uint8))
    (tmp_path / "p.yaml").write_text(f"- {{object_id: cup, {place}}}\n{NOT_CUP.replace('}', ', frame: 2}')}")
    assert replay.main(words) == 0 and len(tracker.prompted) == 2


def test_a_prompt_for_an_image_that_is_none_is_for_the_next(words, tmp_path, tracker):
    messages = [image_message(number, encoding="32FC1" if number == 1 else "rgb8") for number in range(4)]
    bag = write_bag(tmp_path / "bag", {"/image": messages})
    (tmp_path / "p.yaml").write_text("- {object_id: cup, frame: 1, points: [[32, 24]]}")
    assert replay.main([str(bag), *words[1:], "--report", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["objects"]["cup"]["prompted_frames"] == [2]


def test_a_film_of_no_image_is_no_file(tmp_path):
    with Film.open(tmp_path / "f.mp4", 10.0) as film:
        pass
    assert not film.is_written and not list(tmp_path.iterdir())


def test_a_folder_with_a_colon_in_its_name_is_no_protocol_of_a_film(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (out := Path("12:30")).mkdir()
    with Film.open(out / "f.mp4", 10.0) as film:
        film.write_picture(np.zeros((48, 64, 3), np.uint8))
    assert film.is_written and [path.name for path in out.iterdir()] == ["f.mp4"]


def test_a_film_of_images_of_two_sizes_has_both(tmp_path):
    with Film.open(tmp_path / "f.mp4", 10.0) as film:
        for scale in (1, 2):
            film.write_picture(np.full((48 * scale, 64 * scale, 3), 100 * scale, np.uint8))
    levels = [shot.rgb.mean() for shot in shots_of(tmp_path / "f.mp4")[1]]
    assert levels == pytest.approx([100, 200], abs=4)


@pytest.mark.parametrize("rate", [29.97, 59.9456, 89.98765, 103.233, 119.683, 999.123])
def test_a_film_has_whatever_rate_a_camera_had(rate, tmp_path):
    with Film.open(tmp_path / "f.mp4", rate) as film:
        film.write_picture(np.zeros((48, 64, 3), np.uint8))
    assert shots_of(tmp_path / "f.mp4")[0].fps == pytest.approx(rate, rel=1e-4)


def test_a_rate_that_no_video_can_have_is_named(words, tmp_path, tracker):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(sam2.BadInput, match=r"f.mp4: OpenCV cannot begin a video of 64x48 pixels and 0.001 images per"):
        replay.main([*words, "--fps", "0.001", "--overlay", str(tmp_path / "f.mp4")])
    assert sorted(tmp_path.rglob("*")) == before


def test_the_report_counts_every_way_of_being_away_and_rates_what_is_seen_alone():
    states = [sam2.State[name] for name in ("VISIBLE", "INVALID", "VISIBLE", "LOST", "OCCLUDED")]
    report = Report(Source("v.mp4", "", 0, 20.0, iter(())), "nano")
    for index, state in enumerate(states):
        iou = 0.5 + index / 10 if state is sam2.State.VISIBLE else 0.0
        seen = SimpleNamespace(object_id="cup", class_name=f"mug{index}", label=7, state=state, predicted_iou=iou)
        report.note(Shot(index, np.zeros((*SIZE_HW, 3), np.uint8), index // 2, 9, ""), [seen], set())
    cup = report.as_dict()["objects"]["cup"]
    assert [(away["gone_frame"], away["back_frame"]) for away in cup["absences"]] == [(1, 2), (3, None)]
    assert (cup["label"], cup["first_frame"], cup["class_name"]) == (7, 0, "mug4")
    assert cup["mean_predicted_iou"] == 0.6 and "stamps went back" not in report.summary(1.0)
    assert "cup: visible in 40% of the images, away 2 times, back 1 times" in report.summary(1.0)


def test_the_report_does_not_grow_with_the_recording():
    report, rgb, sizes = Report(Source("v.mp4", "", 0, 20.0, []), "nano"), np.zeros((*SIZE_HW, 3), np.uint8), []
    cup = SimpleNamespace(object_id="cup", class_name="", label=7, state=sam2.State.VISIBLE, predicted_iou=0.5)
    for index in range(2000):
        report.note(Shot(index, rgb, index + 1, 9, ""), [cup], set())
        sizes.append(len(pickle.dumps(report)))
    assert sizes[-1] < sizes[1] + 64  # longer numbers


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_the_midst_leaves_nothing(words, tmp_path, tracker, number, capsys):
    before, handlers = sorted(tmp_path.rglob("*")), {each: signal.getsignal(each) for each in SIGNALS}
    step, tracker.step = tracker.step, lambda *given: step(*given) and os.kill(os.getpid(), number)
    for each in SIGNALS:  # what is not caught by the replay must not end the tests
        signal.signal(each, signal.default_int_handler)
    try:
        code = replay.main([*words, "--overlay", str(tmp_path / "o.mp4"), "--davis", str(tmp_path / "data")])
    except SystemExit as ended:
        code = ended.code
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert code == 128 + number and sorted(tmp_path.rglob("*")) == before
    assert ("interrupted, nothing was written" in capsys.readouterr().err) == (number == signal.SIGINT)


@pytest.mark.parametrize("out", ["o.mcap", "a_folder"])
def test_what_another_replay_has_written_meanwhile_is_not_overwritten(words, tmp_path, tracker, out):
    other = tmp_path / out if out.endswith(".mcap") else tmp_path / out / "metadata.yaml"
    step = tracker.step

    def while_another_writes(*given):
        other.parent.mkdir(exist_ok=True)
        other.write_text("theirs")
        return step(*given)

    tracker.step = while_another_writes
    with pytest.raises(sam2.BadInput, match="already exists"):
        replay.main([*words[:-1], str(tmp_path / out), "--overlay", str(tmp_path / "o.mp4")])
    assert other.read_text() == "theirs" and not (tmp_path / "o.mp4").exists()
