"""The figures of the evaluation, with trackers that know the truth and spoil it, so that every figure is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes
from oracle import AWAY, SIZE_HW, Oracle, TwoSquares, late, lost, nothing, perfect, shifted, square, swapped, track
from small_stream import small_model

from sam2.errors import BadInput
from sam2.evaluation_report import curves, drift, plot, summarise, table
from sam2.evaluation_video import RecordedVideo, SyntheticVideo, check_annotated, evaluate_video, prompt_for
from sam2.memoryless import MemorylessTracker
from sam2.tracker import Tracker
from sam2.training.synthetic import HELD_OUT_SEED, World
from sam2.types import Frame


def figures(masks) -> dict:
    return summarise([evaluate_video(TwoSquares(), Oracle(masks), "click")])


def test_the_truth_scores_100():
    summary = figures(perfect)
    for key in ("j_and_f", "j", "f", "visibility_accuracy", "seen_when_there", "unseen_when_away", "reacquisition"):
        assert summary[key] == 100.0
    assert (summary["objects"], summary["returns"], summary["videos"]) == (2, 1, 1)


def test_an_empty_prediction_is_right_where_the_object_is_away():
    """Seven frames count: object 1 is away in three of them. Of the eight frames after the prompt likewise."""
    summary = figures(nothing)
    assert summary["j_and_f"] == pytest.approx(100 * (3 / 7 + 0) / 2, abs=0.01)
    assert summary["visibility_accuracy"] == pytest.approx(100 * 3 / 16, abs=0.01)
    assert (summary["seen_when_there"], summary["unseen_when_away"]) == (0.0, 100.0)
    assert summary["reacquisition"] == 0.0


def test_a_shifted_prediction_is_scored_by_its_overlap():
    summary = figures(shifted)
    assert summary["j"] == pytest.approx(100 * ((4 * 15 / 25 + 3) / 7 + 15 / 25) / 2, abs=0.01)
    assert 0 < summary["f"] < 100
    assert summary["reacquisition"] == 100.0
    assert summary["visibility_accuracy"] == 100.0


def test_swapped_identities_score_nothing():
    summary = figures(swapped)
    assert summary["j_and_f"] == 0.0
    assert summary["reacquisition"] == 0.0


def test_an_object_must_be_found_again_within_three_frames():
    assert figures(lost)["reacquisition"] == 0.0
    assert figures(late)["reacquisition"] == 100.0

    def too_late(t, object_id):
        return nothing() if object_id == 1 and AWAY[0] <= t < AWAY[-1] + 4 else perfect(t, object_id)

    assert figures(too_late)["reacquisition"] == 0.0


def test_where_masks_overlap_the_larger_logit_counts():
    class Greedy(Oracle):
        def step(self, frame, prompts):
            one, two = super().step(frame, prompts)
            everything = np.ones(SIZE_HW, dtype=bool)
            return [track("1", everything, 1, logit=self.logit), track("2", two.mask, 2, logit=5.0)]

    for logit, expected in ((4.0, 1.0), (6.0, 0.0)):
        greedy = Greedy(perfect)
        greedy.logit = logit
        stayed = evaluate_video(TwoSquares(), greedy, "click").objects[1]
        assert set(stayed.j) == {expected}


def test_every_object_is_prompted_once_and_the_tracker_reset():
    oracle = Oracle(perfect)
    for times in (1, 2):
        evaluate_video(TwoSquares(), oracle, "box")
        assert oracle.resets == times
    assert [(t, p.object_id) for t, p in oracle.prompts] == [(0, "1"), (0, "2")] * 2
    assert oracle.prompts[0][1].box_xyxy == [5, 5, 24, 24]


def test_an_object_that_appears_later_is_prompted_and_counts_from_there():
    video = SimpleNamespace(
        name="late",
        frames=lambda: iter([np.zeros((*SIZE_HW, 3), np.uint8)] * 5),
        masks={t: {7: square(5, 5)} if t >= 2 else {} for t in range(5)},
    )
    oracle = Oracle(lambda t, object_id: square(5, 5))
    result = evaluate_video(RecordedVideo(video), oracle, "mask")
    assert [t for t, _ in oracle.prompts] == [2]
    assert result.objects[0].frames == [2, 3, 4]
    np.testing.assert_array_equal(curves([result])["all"], [np.nan, np.nan, np.nan, 100, np.nan])


def test_what_a_late_object_was_given_as_is_no_answer():
    """Somebody who repeats the prompt and then loses the object has found nothing."""
    video = SimpleNamespace(
        name="late",
        frames=lambda: iter([np.zeros((*SIZE_HW, 3), np.uint8)] * 6),
        masks={t: {1: square(30, 5)} | ({7: square(5, 5)} if t >= 2 else {}) for t in range(6)},
    )
    given = {1: square(30, 5), 7: square(5, 5)}
    lost = Oracle(lambda t, object_id: given[object_id] if object_id == 1 or t == 2 else np.zeros(SIZE_HW, bool))
    summary = summarise([evaluate_video(RecordedVideo(video), lost, "mask")])
    assert summary["j_and_f"] == 50.0


@pytest.mark.parametrize("has_memory", [True, False])
def test_an_object_too_thin_for_a_mask_prompt_is_missed(has_memory):
    """And the others are tracked all the same."""
    thin = np.zeros((480, 640), bool)
    thin[100, 50:400] = True
    whole = np.zeros((480, 640), bool)
    whole[200:400, 200:400] = True
    frames, masks = [np.zeros((480, 640, 3), np.uint8)] * 4, dict.fromkeys(range(4), {1: thin, 2: whole})
    video = SimpleNamespace(name="thin", frames=lambda: iter(frames), masks=masks)
    tracker = Tracker(small_model())
    result = evaluate_video(
        RecordedVideo(video), tracker if has_memory else MemorylessTracker(tracker.model, tracker), "mask"
    )
    missed, other = result.objects
    assert missed.j == [0.0] * 4 and missed.seen == [False] * 4 and missed.there == [True] * 4
    assert other.seen[0] and other.j[0] > 0.5


def test_masks_of_another_size_name_the_video_and_the_frame():
    masks = {0: {1: square(5, 5)}, 2: {1: square(5, 5)[:-1]}}
    video = SimpleNamespace(name="odd", frames=lambda: iter([np.zeros((*SIZE_HW, 3), np.uint8)] * 4), masks=masks)
    height, width = SIZE_HW
    wanted = rf"video odd: .* size \({height}, {width}\), got \({height - 1}, {width}\) of object 1 in frame 2; resize"
    with pytest.raises(BadInput, match=wanted):
        evaluate_video(RecordedVideo(video), Oracle(perfect), "mask")


def test_j_is_told_by_age_of_what_is_there():
    video = SimpleNamespace(
        name="aging",
        frames=lambda: iter([np.zeros((*SIZE_HW, 3), np.uint8)] * 4),
        masks={
            0: {1: square(5, 5)},
            1: {1: square(5, 5), 2: square(30, 5)},
            2: {2: square(30, 5)},
            3: {2: square(30, 5)},
        },
    )
    answers = {1: [square(5, 5)] * 4, 2: [square(30, 5)] * 2 + [square(30, 60)] * 2}
    summary = summarise([evaluate_video(RecordedVideo(video), Oracle(lambda t, k: answers[k][t]), "mask")])
    assert summary["j_by_age"] == [100.0, 50.0, 0.0, None], "object 2 is one frame younger, object 1 away after two"
    assert drift(summary).endswith("since its prompt: 100.0 at 0, 50.0 at 1, 0.0 at 2.")
    assert drift(summarise([])) == "Nothing was there."


def test_only_annotated_frames_count():
    result = evaluate_video(TwoSquares(every=2), Oracle(perfect), "click")
    assert result.objects[0].frames == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(("annotated", "expected"), [(range(8), {4: True}), ([0, 2, 3, 4, 6], {})])
def test_absences_are_counted_only_where_every_frame_is_annotated(annotated, expected):
    """Away in frames 1 to 3, or in frames 2 to 4 of those annotated, whose true length nobody knows."""
    there = {0, *list(annotated)[4:]}
    video = SimpleNamespace(
        name="gaps",
        frames=lambda: iter([np.zeros((*SIZE_HW, 3), np.uint8)] * 8),
        masks={t: {1: square(5, 5)} if t in there else {} for t in annotated},
    )
    result = evaluate_video(RecordedVideo(video), Oracle(lambda t, object_id: square(5, 5)), "box")
    assert result.objects[0].there == [t in there for t in annotated]
    assert result.objects[0].returns == expected


def test_click_is_the_most_inner_pixel():
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[10:21, 40:51] = True
    mask[15, 5:40] = True
    prompt = prompt_for(3, mask, "click")
    assert (prompt.object_id, prompt.points_xy, prompt.labels) == ("3", [(45.0, 15.0)], [1])
    ring = np.hypot(*np.mgrid[-30:30, -40:40]) < 25
    ring[20:40, 30:50] = False
    (x, y), *_ = prompt_for(1, ring, "click").points_xy
    assert ring[int(y), int(x)]
    whole = prompt_for(1, np.ones((9, 9), bool), "click")
    assert whole.points_xy == [(4.0, 4.0)], "the border of the image is an edge"
    np.testing.assert_array_equal(prompt_for(1, ring, "mask").mask, ring)
    column = np.zeros((9, 9), bool)
    column[2:5, 8] = True
    assert prompt_for(1, column, "box").box_xyxy == [8, 2, 9, 4], "a box has a width"
    assert prompt_for(1, column.T, "box").box_xyxy == [2, 8, 4, 9], "and a height"
    for edge in (column, column.T):
        ((x, y),) = prompt_for(1, edge, "click").points_xy
        assert edge[int(y), int(x)], "also at the image's last column and row"
    with pytest.raises(BadInput, match="click, box, mask"):
        prompt_for(1, ring, "scribble")


def test_synthetic_video_tells_the_world_s_truth():
    seed = HELD_OUT_SEED + 3
    video, world = SyntheticVideo(seed, 6, 96), World(seed, (96, 96))
    frames = [world.frame(t) for t in range(6)]
    result = evaluate_video(video, Oracle(lambda t, k: frames[t].masks[k - 1]), "click")
    assert summarise([result])["j_and_f"] == 100.0
    assert result.objects, "something is in sight in frame 0"
    for entry in result.objects:
        assert entry.there == [bool(frame.visible[entry.object_id - 1]) for frame in frames]
        assert entry.tags == sorted(world.tags[entry.object_id - 1])


def test_table_and_plot(tmp_path):
    results = [evaluate_video(TwoSquares(), Oracle(shifted), "click")]
    lines = table(summarise(results)).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["all", "look-alike", "small", "fast", "none of these"]
    assert [cell.strip() for cell in lines[3].split("|")[2:11]][0::7] == ["1", "0"]  # objects, returns
    assert "60.0" in lines[3], "J of the object that stays"
    plot(results, "two squares", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    plot(results, "two squares", tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes().startswith(b"<?xml")


def test_a_plot_shows_figures_of_frames_far_between(tmp_path, monkeypatch):
    """SA-V annotates every fourth. Between gaps a line alone would draw nothing."""
    frames = iter([np.zeros((*SIZE_HW, 3), np.uint8)] * 17)
    masks = {t: {7: square(5, 5)} for t in range(0, 17, 4)}
    video = RecordedVideo(SimpleNamespace(name="every fourth", frames=lambda: frames, masks=masks))
    drawn = []
    monkeypatch.setattr(Axes, "plot", lambda axes, *line, **look: drawn.append((*line, look["marker"])))
    monkeypatch.setattr(Axes, "legend", lambda *_, **__: None)
    plot([evaluate_video(video, Oracle(lambda t, object_id: square(5, 5)), "mask")], "", tmp_path / "plot.png")
    ((x, y, marker),) = drawn
    assert x.tolist() == [4, 8, 12] and y.tolist() == [100, 100, 100] and marker == "."


def test_without_memory_objects_are_not_told_apart():
    """The prompted frame is the tracker's; afterwards every object gets the same mask, with memory they differ."""
    rng = np.random.default_rng(0)
    frames = [Frame(rng.integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)) for _ in range(2)]
    prompts = [prompt_for(1, square(5, 5), "mask"), prompt_for(2, square(30, 50), "mask")]
    model = small_model()
    trackers = [Tracker(model), MemorylessTracker(model, Tracker(model))]
    for tracker in trackers:
        tracker.reset()
    with_memory, without = ([tracker.step(frames[0], prompts), tracker.step(frames[1], [])] for tracker in trackers)
    for left, right in zip(with_memory[0], without[0], strict=True):
        np.testing.assert_array_equal(left.low_res_logits, right.low_res_logits)
    one, two = (entry.low_res_logits for entry in without[1])
    np.testing.assert_array_equal(one, two)
    assert [entry.label for entry in without[1]] == [1, 2]
    assert not np.array_equal(*(entry.low_res_logits for entry in with_memory[1]))
    trackers[1].reset()
    assert trackers[1].step(frames[0], []) == []


def test_any_video_plays_thirty_frames_a_second_at_times_that_are_known():
    class Clocked(Oracle):
        def step(self, frame, prompts):
            stamps.append(frame.stamp_ns)
            return super().step(frame, prompts)

    stamps = []
    evaluate_video(TwoSquares(), Clocked(perfect), "click")
    assert stamps == [33_333_333 * number for number in range(1, 10)], "0 would be unknown"


def test_of_a_world_what_is_large_enough_in_its_first_frame_is_prompted():
    mask = np.zeros((100, 100), bool)
    mask[:2, :10] = True  # two pixels in a thousand
    video = SyntheticVideo(0, 6, 100)
    assert video.wants(0, mask) and not video.wants(1, mask)
    mask[0, 0] = False
    assert not video.wants(0, mask)


def test_half_of_the_videos_must_have_three_annotated_frames():
    enough, few = (SimpleNamespace(source=("a", "b"), masks=dict.fromkeys(range(count))) for count in (3, 2))
    film = SimpleNamespace(source="a.mp4", masks=None)
    check_annotated([enough, few, film, few], "here")
    with pytest.raises(BadInput, match="here: expected masks of 3 frames or more in each video, found them in 1 of 3"):
        check_annotated([enough, few, few], "here")
