"""The evaluation's command line."""

import errno
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import save_file
from small_video_folder import write_davis, write_video

from sam2 import evaluate, files
from sam2.config import CONFIGS
from sam2.evaluation_report import plot, table, write_into_card
from sam2.evaluation_video import ObjectResult, VideoResult
from sam2.model import SAM2
from sam2.training.datasets import LAYOUTS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def nano_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    save_file(SAM2(CONFIGS["sam2.1_hiera_nano"]).state_dict(), path)
    return path


@pytest.mark.filterwarnings("ignore")  # whatever loading unknown weights says
def test_command_writes_figures_and_plot(tmp_path, nano_weights, capsys):
    arguments = ["--checkpoint", str(nano_weights), "--clips", "1", "--frames", "3", "--size", "64", "--workers", "1"]
    arguments += ["--device", "cpu", "--out", str(tmp_path / "runs")]
    files = [tmp_path / "figures" / "out.json", tmp_path / "figures" / "out.png"]
    card = tmp_path / "card.md"
    card.write_text("# Card\n\n<!-- box -->\nold\n<!-- end -->\n\n<!-- click -->\nold\n<!-- end -->\nlast\n")
    words = ["--json", str(files[0]), "--plot", str(files[1]), "--card", str(card)]
    assert evaluate.main([*arguments, *words]) == 0
    content = json.loads(files[0].read_text())
    kept, written = card.read_text().split("<!-- click -->\n")
    assert kept == "# Card\n\n<!-- box -->\nold\n<!-- end -->\n\n"
    assert table(content) in written and "old" not in written and written.endswith("\n<!-- end -->\nlast\n")
    assert {"j_and_f", "visibility_accuracy", "reacquisition", "by_group"} <= content.keys()
    assert content["settings"]["model"] == "sam2.1_hiera_nano"
    assert files[1].is_file()
    assert "| all" in capsys.readouterr().out
    assert evaluate.main([*arguments, "--memory", "off"]) == 1, "the folder holds results with memory"
    assert "another --out" in capsys.readouterr().err
    assert evaluate.main([*arguments, "--image-size", "320"]) == 1, "nor are they of a network with another input"
    assert "image_size" in capsys.readouterr().err
    assert evaluate.main([*arguments, *words, "--image-size", "256"]) == 0, "its own size is not another one"


@pytest.mark.parametrize(
    ("text", "words", "wanted"),
    [
        ("<!-- click --> without an end", [], "<!-- click -->"),
        ("<!-- box -->\n<!-- end -->\n", [], "<!-- click -->"),
        ("<!-- click -->\n<!-- end -->\n", ["--image-size", "320"], "<!-- click at 320 -->"),
        ("<!-- click -->\n<!-- end -->\n", ["--memory", "off"], "<!-- click without memory -->"),
    ],
)
def test_a_card_without_a_place_is_said_before_any_work(text, words, wanted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    card = tmp_path / "card.md"
    card.write_text(text)
    assert evaluate.main(["--card", str(card), *words]) == 1
    assert wanted in capsys.readouterr().err and card.read_text() == text
    assert list(tmp_path.iterdir()) == [card]


@pytest.mark.filterwarnings("ignore")
def test_the_tracker_has_the_input_asked_for(nano_weights):
    tracker = evaluate.TrackerMaker("nano", nano_weights, "cpu", "fp32", image_size=320, has_memory=True)()
    assert tracker.model.image_size == 320


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "5"], "trained on"),
        (["--frames", "2"], "at least 3"),
        (["--dataset", "davis"], "holds JPEGImages/480p and Annotations/480p, from https://davischallenge.org"),
        (
            ["--dataset", "davis", "--root", ".", "--clips", "3"],
            "--clips: is for synthetic clips, not for davis; leave",
        ),
        (["--dataset", "sav", "--root", ".", "--size", "64"], "--size: is for synthetic clips, not for sav; leave"),
        (["--root", "."], "--root: is for a dataset on disk; name it as --dataset"),
        (["--split", "val"], "--split: is for a dataset on disk; name it as --dataset"),
        (["--model", "enormous"], "expected one of"),
        (["--image-size", "100"], "multiple of 32"),
        (["--size", "-5"], "--size: expected 32 to 4096, got -5"),
        (["--size", "4097"], "--size: expected 32 to 4096, got 4097"),
        (["--workers", "0"], "expected 1 or more, got 0"),
        (["--checkpoint", "missing.pt"], "missing.pt"),
        (["--device", "cuda:99"], "CUDA device"),
        (["--card", "missing.md"], "missing.md"),
        (["--json", "/proc/foo/x.json"], "--json: the folder /proc cannot be written"),
        (["--plot", "."], "--plot: expected the name of a file, got the folder ."),
        (["--out", "/dev/null"], "--out: expected a folder, got the file /dev/null"),
    ],
)
def test_command_says_what_is_wrong(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(arguments) == 1
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir()), "before any work"


@pytest.mark.parametrize("option", ["--root", "--checkpoint", "--out", "--json", "--plot", "--card"])
def test_a_path_from_a_variable_that_is_not_set_is_refused(option, capsys):
    """`Path` would take it for the current folder."""
    with pytest.raises(SystemExit):
        evaluate.main([option, ""])
    assert f"argument {option}: expected a path, got an empty text; is a variable not set?" in capsys.readouterr().err


@pytest.mark.parametrize(("dataset", "split"), [("youtube_vos", "valid"), ("mose", "valid"), ("lvos", "valid")])
def test_videos_with_first_masks_only_are_refused_before_any_work(dataset, split, tmp_path, monkeypatch, capsys):
    """As the official validation splits of the first two are; each dataset has its own name for that split."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        write_video(tmp_path / split / "JPEGImages", tmp_path / split / "Annotations", name)
    for name in ("a", "b"):
        for number in (1, 2):
            (tmp_path / split / "Annotations" / name / f"0000{number}.png").unlink()
    assert evaluate.main(["--dataset", dataset, "--root", "."]) == 1
    wanted = f"{dataset} ({split}): expected masks of 3 frames or more in each video, found them in 1 of 3; where only "
    assert capsys.readouterr().err.startswith(wanted + "first frames are annotated, the benchmark's server scores")
    assert [path.name for path in tmp_path.iterdir()] == [split]


def test_objects_without_a_frame_that_counts_are_no_result(tmp_path, monkeypatch, nano_weights, capsys):
    write_davis(tmp_path)
    result = VideoResult("bear", 3, 1.0, [ObjectResult(1, [], [1, 2], [1.0, 1.0], [1.0, 1.0], [True] * 2, [True] * 2)])
    monkeypatch.setattr(evaluate, "evaluate_all", lambda *_: [result])
    words = ["--dataset", "davis", "--root", str(tmp_path), "--split", "train", "--checkpoint", str(nano_weights)]
    assert evaluate.main([*words, "--device", "cpu", "--out", str(tmp_path / "out")]) == 1
    assert "davis (train): expected an object with masks in 3 frames or more" in capsys.readouterr().err
    assert {name: evaluate.parse(["--dataset", name]).split for name in LAYOUTS} == {
        "davis": "val", "youtube_vos": "valid", "mose": "valid", "lvos": "valid", "sav": "val",
    }  # fmt: skip


@pytest.mark.parametrize(("cores", "workers"), [(3, 3), (None, 1)])
def test_one_process_per_core_or_one_if_nobody_counts_them(cores, workers, tmp_path, nano_weights, monkeypatch):
    result, used = VideoResult("v", 3, 1.0, []), []
    monkeypatch.setattr(evaluate.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(evaluate, "evaluate_all", lambda *given: used.append(given[-1]) or [result])
    words = ["--checkpoint", str(nano_weights), "--device", "cpu", "--out", str(tmp_path)]
    assert evaluate.main(words) == 0 and used == [workers]


@pytest.mark.filterwarnings("ignore")
def test_figures_say_which_videos_are_missing(tmp_path, nano_weights, capsys):
    write_davis(tmp_path)
    words = ["--dataset", "davis", "--root", str(tmp_path), "--split", "train", "--checkpoint", str(nano_weights)]
    words += ["--device", "cpu", "--workers", "1", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "it.json")]
    card = tmp_path / "card.md"
    card.write_text("<!-- click -->\nof all\n<!-- end -->\n")
    (tmp_path / "JPEGImages/480p/dog/00001.jpg").write_bytes(b"no picture")
    assert evaluate.main([*words, "--card", str(card)]) == 1
    said = capsys.readouterr()
    assert "| all" in said.out and "video dog failed: " in said.err and "dog/00001.jpg: expected" in said.err
    assert "this is without 1 of 2 videos, which failed: dog; a --card is left as it was" in said.err
    summary = json.loads((tmp_path / "it.json").read_text())
    assert (summary["failed"], summary["videos"]) == (["dog"], 1)
    assert "of all" in card.read_text()
    (tmp_path / "JPEGImages/480p/bear/00001.jpg").write_bytes(b"no picture")
    words[words.index("--out") + 1] = str(tmp_path / "other")
    assert evaluate.main(words) == 1
    assert "all 2 videos failed, the first with: " in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")  # whatever loading unknown weights says
def test_a_folder_in_which_a_run_is_at_work_is_not_taken_by_another(tmp_path, nano_weights, capsys):
    words = ["--checkpoint", str(nano_weights), "--clips", "1", "--frames", "3", "--size", "64", "--workers", "1"]
    with files.alone_in(tmp_path):
        assert evaluate.main([*words, "--device", "cpu", "--out", str(tmp_path)]) == 1
    assert f"{tmp_path}: expected no other run in this folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_card_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    before, after = "# Mine\n<!-- click -->\n", "<!-- end -->\nkept\n<!-- box -->\nkept, too\n<!-- end -->\n"
    (tmp_path / "card.md").write_text(f"{before}old\n{after}")
    (tmp_path / "link.md").symlink_to("card.md")
    write_into_card(tmp_path / "link.md", "click", "new")
    assert (tmp_path / "link.md").is_symlink() and (tmp_path / "card.md").read_text() == f"{before}new\n{after}"

    def is_full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", is_full)
    with pytest.raises(OSError, match="card.md: cannot be written"):
        write_into_card(tmp_path / "card.md", "click", "newer")
    assert "\nnew\n" in (tmp_path / "card.md").read_text()


def test_a_card_that_is_no_utf8_is_refused_before_the_work(tmp_path, nano_weights, capsys):
    (tmp_path / "card.md").write_bytes(b"# K\xfcche\n<!-- click -->\n<!-- end -->\n")
    words = ["--checkpoint", str(nano_weights), "--device", "cpu", "--card", str(tmp_path / "card.md")]
    assert evaluate.main([*words, "--out", str(tmp_path / "out")]) == 1
    assert "card.md: expected Markdown in UTF-8" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_plot_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    result = ObjectResult(1, [], [0, 1, 2], j=[1.0] * 3, f=[1.0] * 3, there=[True] * 3, seen=[True] * 3)
    figures, path = [VideoResult("v", 3, 1.0, [result])], tmp_path / "plot.png"
    plot(figures, "", path)
    before = path.read_bytes()

    def is_full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", is_full)
    with pytest.raises(OSError, match="plot.png: cannot be written"):
        plot(figures, "newer", path)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_it_in_a_sentence_with_all_its_processes(number, tmp_path):
    command = [sys.executable, "-m", "sam2.evaluate", "--clips", "50", "--workers", "2", "--out", str(tmp_path)]
    # A shell without job control starts what is in the background with SIGINT ignored, and that is inherited.
    heard = partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        assert any("video/s" in line for line in process.stderr)  # the bar: it has begun
        process.send_signal(number)
        said = process.stderr.read()  # until the last of them has closed it
    assert process.returncode == 128 + number
    assert "stopped; videos that are done are kept" in said and "resource_tracker" not in said


def test_ctrl_c_says_what_is_kept(monkeypatch, capsys):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "run", stop)
    assert evaluate.main([]) == 130 and "the same command goes on" in capsys.readouterr().err
