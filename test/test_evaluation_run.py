"""The evaluation's files and processes: what was done is kept, and what fails says so."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from oracle import Oracle, TwoSquares, perfect
from small_video_folder import write_davis

from sam2 import evaluation_run
from sam2.errors import BadCheckpoint, BadInput, DeviceLost, Sam2Error
from sam2.evaluation_files import Results, Settings, data_digest, default_folder
from sam2.evaluation_video import RecordedVideo, SyntheticVideo, VideoResult, evaluate_video
from sam2.training.datasets import open_dataset
from sam2.training.synthetic import HELD_OUT_SEED, World


class Counting:
    """A tracker factory that counts the videos played to its tracker."""

    def __init__(self):
        self.oracle = Oracle(perfect)

    def __call__(self):
        return self.oracle


def settings(**changes) -> Settings:
    plain = {
        "dataset": "synthetic", "split": "val", "model": "nano", "image_size": 256, "weights_sha256": "0",
        "prompt": "click", "memory": True, "precision": "fp32", "side": 64,
    }  # fmt: skip
    return Settings(**plain | changes)


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    videos = [TwoSquares(f"video_{i}") for i in range(3)]
    first = Counting()
    done = evaluation_run.evaluate_all(videos[:2], "click", first, Results(tmp_path, settings()), workers=1)
    second = Counting()
    again = evaluation_run.evaluate_all(videos, "click", second, Results(tmp_path, settings()), workers=1)
    assert (first.oracle.resets, second.oracle.resets) == (2, 1)
    assert again[:2] == done
    assert [video.name for video in again] == ["video_0", "video_1", "video_2"]


def test_results_of_other_settings_are_refused(tmp_path):
    Results(tmp_path, settings())
    Results(tmp_path, settings())
    with pytest.raises(BadInput, match="name another --out"):
        Results(tmp_path, settings(prompt="box"))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{"), lambda path: path.write_text("[]")])
def test_results_of_nobody_knows_which_settings_are_refused(damage, tmp_path):
    """Taken for this run's they would be told with its figures."""
    results = Results(tmp_path, settings())
    results.keep(evaluate_video(TwoSquares(), Oracle(perfect), "click"))
    damage(tmp_path / "settings.json")
    with pytest.raises(BadInput, match="settings.json: expected .*; delete its folder, or name another --out"):
        Results(tmp_path, settings())


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"objects": 1}', '{"objects": [1]}', '{"objects": [{"where": 1}]}', '{"objects": []}']
)
def test_a_damaged_result_is_named_with_its_cure(content, tmp_path):
    results = Results(tmp_path, settings())
    results.keep(evaluate_video(TwoSquares(), Oracle(perfect), "click"))
    path = tmp_path / "videos" / "two_squares.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=f"{path}: expected .*; delete the file"):
        results.find(TwoSquares())


def test_every_run_has_a_default_folder_of_its_own():
    """With one folder for two, the second would be refused."""
    changes = [
        {"dataset": "davis"}, {"split": "train"}, {"model": "tiny"}, {"image_size": 512}, {"weights_sha256": "1"},
        {"prompt": "box"}, {"memory": False}, {"precision": "bf16"}, {"side": 96}, {"data": "f"},
    ]  # fmt: skip
    folders = {default_folder(settings(**change)) for change in [{}, *changes]}
    assert len(folders) == 1 + len(changes)


def test_results_are_of_the_worlds_they_were_made_from(monkeypatch):
    """Those of a version that drew others would be told as this one's."""
    digest = data_digest(None)
    assert data_digest(None) == digest
    drawn = World.frame
    monkeypatch.setattr(World, "frame", lambda self, t: drawn(self, t + 1))
    assert data_digest(None) != digest


def test_two_videos_of_one_name_are_refused(tmp_path):
    """The result of one would count for both."""
    videos = [TwoSquares("a", every=2), TwoSquares("b"), TwoSquares("a")]
    with pytest.raises(BadInput, match="different names, since results are kept by name, got a twice"):
        evaluation_run.evaluate_all(videos, "click", PerfectFactory(), Results(tmp_path, settings()), workers=1)


def test_a_kept_clip_of_another_length_is_not_used(tmp_path):
    results = Results(tmp_path, settings())
    video = SyntheticVideo(HELD_OUT_SEED, 4, 64)
    results.keep(evaluate_video(video, Oracle(lambda t, k: np.zeros((64, 64), bool)), "click"))
    assert results.find(video) is not None
    assert results.find(SyntheticVideo(HELD_OUT_SEED, 5, 64)) is None


@dataclass(frozen=True)
class PerfectFactory:
    def __call__(self):
        return Oracle(perfect)


@pytest.mark.slow
def test_several_processes_give_what_one_gives(tmp_path):
    videos = [TwoSquares(f"video_{i}") for i in range(3)]
    runs = [
        evaluation_run.evaluate_all(videos, "click", PerfectFactory(), Results(tmp_path / str(n), settings()), n)
        for n in (1, 2)
    ]
    for run in runs:
        for result in run:
            result.seconds = 0.0
    assert runs[0] == runs[1]


@dataclass(frozen=True)
class Damaged(TwoSquares):
    error: Exception | None = None

    def frames(self):
        yield from list(super().frames())[:4]
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BadInput("x.jpg: expected a JPEG"), "x.jpg: expected a JPEG"),
        (OSError("the disk is gone"), "the disk is gone"),
        (OSError(), "OSError()"),
        (IndexError("list index"), "Traceback"),
    ],
)
def test_one_damaged_video_is_named_and_costs_the_others_nothing(error, words, tmp_path, capsys):
    videos = [TwoSquares("a"), Damaged("b", error=error), TwoSquares("c")]
    kept = Results(tmp_path, settings())
    results = evaluation_run.evaluate_all(videos, "click", PerfectFactory(), kept, workers=1)
    assert [(result.name, len(result.objects)) for result in results] == [("a", 2), ("b", 0), ("c", 2)]
    assert results[1].failure.startswith(words) and str(error) in results[1].failure
    assert not results[0].failure and f"video b failed: {words}" in capsys.readouterr().err
    assert kept.find(videos[0]) and kept.find(videos[2]) and kept.find(videos[1]) is None


def test_a_lost_device_is_no_damaged_video(tmp_path):
    videos = [Damaged("a", error=DeviceLost("cuda:0: only a new process can recover it")), TwoSquares("b")]
    with pytest.raises(DeviceLost):
        evaluation_run.evaluate_all(videos, "click", PerfectFactory(), Results(tmp_path, settings()), workers=1)


def refuse():
    raise BadCheckpoint("weights of tiny; choose the matching model")


def no_file():
    raise FileNotFoundError("weights: no such file")


@pytest.mark.parametrize(
    ("factory", "error", "words"),
    [(refuse, BadCheckpoint, "choose the matching model"), (no_file, FileNotFoundError, "weights: no such file")],
)
def test_a_worker_that_cannot_begin_says_why_with_its_first_video(factory, error, words, monkeypatch):
    monkeypatch.setattr(evaluation_run.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(evaluation_run, "_tracker", None, raising=False)
    evaluation_run._start_worker(factory)
    with pytest.raises(error, match=words):
        evaluation_run._work(TwoSquares(), "click")


def kill_oneself():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(("factory", "message"), [(refuse, "matching model"), (kill_oneself, "fewer --workers")])
def test_a_failing_process_ends_the_run_with_a_sentence(factory, message, tmp_path):
    videos = [TwoSquares(f"video_{i}") for i in range(2)]
    with pytest.raises(Sam2Error, match=message):
        evaluation_run.evaluate_all(videos, "click", factory, Results(tmp_path, settings()), workers=2)


def never():
    threading.Event().wait()


def test_ctrl_c_does_not_wait_for_the_videos_in_hand(monkeypatch, tmp_path):
    """Without an end to its processes this would wait for ever."""
    monkeypatch.setattr(evaluation_run, "as_completed", lambda jobs: (_ for _ in ()).throw(KeyboardInterrupt))
    before = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        evaluation_run.evaluate_all(
            [TwoSquares("a"), TwoSquares("b")], "click", never, Results(tmp_path, settings()), 2
        )
    assert set(multiprocessing.active_children()) <= before


@dataclass(frozen=True)
class Endless(TwoSquares):
    def frames(self):
        print("playing", file=sys.stderr, flush=True)
        yield from super().frames()
        never()


_RUN_ENDLESS = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import test_evaluation_run as this
results = this.Results(Path(sys.argv[3]), this.settings())
videos = [this.Endless("a"), this.Endless("b")]
this.evaluation_run.evaluate_all(videos, "click", this.PerfectFactory(), results, 2)
"""


def test_of_a_run_that_is_killed_no_process_stays(tmp_path):
    """Each would keep its memory, also of a GPU, for ever."""
    here = Path(__file__).parent
    command = [sys.executable, "-c", _RUN_ENDLESS, str(here), str(here.parent), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert any("playing" in line for line in process.stderr)
            process.kill()
            process.communicate(timeout=60)  # until the last of them has closed its end
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_results_are_of_the_files_they_were_made_from(tmp_path):
    """Of masks that were corrected nothing kept of the old ones is told again; the other videos' results stay."""
    write_davis(tmp_path / "one")
    videos = [RecordedVideo(video) for video in open_dataset("davis", tmp_path / "one", "train")]
    for results in (Results(tmp_path / "out", settings()) for _ in range(2)):
        found = [results.find(video) for video in videos]
        for video in videos:
            results.keep(VideoResult(video.name, 3, 0.0, []))
    assert [result.name for result in found] == [video.name for video in videos]
    mask = next(path for path in videos[1].video.files if path.suffix == ".png")
    mask.write_bytes(mask.read_bytes() + b" ")
    found = [Results(tmp_path / "out", settings()).find(video) for video in videos]
    assert found[0] is not None and found[1] is None
    mask.unlink()
    mask.symlink_to("nowhere")
    assert results.find(videos[1]) is None


def test_results_of_another_copy_are_kept_elsewhere(tmp_path):
    latin = tmp_path / os.fsdecode(b"k\xfcche")
    assert len({data_digest(tmp_path), data_digest(tmp_path / "." / "a" / ".."), data_digest(latin)}) == 2
