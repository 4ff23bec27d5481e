"""What an evaluated video says of when objects were prompted, found again, and how long the tracker took; and how
objects of several videos are put together."""

from types import SimpleNamespace

import numpy as np
import pytest
from oracle import SIZE_HW, Oracle, TwoSquares, perfect, square

from sam2 import evaluation_video
from sam2.evaluation_report import curves, drift, summarise
from sam2.evaluation_video import ObjectResult, RecordedVideo, SyntheticVideo, VideoResult, evaluate_video

THERE, OTHER, AWAY = square(5, 5), square(30, 50), np.zeros(SIZE_HW, bool)


def recorded(*masks):
    """A video with these masks by object, each a list by frame."""
    frames = [np.zeros((*SIZE_HW, 3), np.uint8)] * len(masks[0])
    by_frame = {t: dict(enumerate(now, start=1)) for t, now in enumerate(zip(*masks, strict=True))}
    return RecordedVideo(SimpleNamespace(name="v", frames=lambda: iter(frames), masks=by_frame))


def answering(*masks):
    return Oracle(lambda t, object_id: masks[object_id - 1][t])


@pytest.mark.parametrize("kind", evaluation_video.PROMPT_KINDS)
def test_an_object_is_prompted_where_it_is_first_in_sight(kind):
    """Not in a frame before, whose mask of it is empty."""
    masks = [AWAY, AWAY, THERE, THERE, THERE]
    oracle = answering(masks)
    (result,) = evaluate_video(recorded(masks), oracle, kind).objects
    assert [t for t, _ in oracle.prompts] == [2] and result.frames == [2, 3, 4]


def test_of_a_world_only_what_its_first_frame_shows_is_prompted(monkeypatch):
    """And its masks are scored as a label image."""
    late = SimpleNamespace(tags=[set(), set()])
    late.frame = lambda t: SimpleNamespace(
        rgb=np.zeros((*SIZE_HW, 3), np.uint8), masks=[THERE, OTHER], visible=[True, t > 0]
    )
    monkeypatch.setattr(evaluation_video, "_world", lambda seed, side: late)
    oracle = Oracle(lambda t, object_id: THERE)
    video = SyntheticVideo(1, 4, 64)
    assert [result.object_id for result in evaluate_video(video, oracle, "click").objects] == [1]
    assert [(t, prompt.object_id) for t, prompt in oracle.prompts] == [(0, "1")] and not video.may_overlap


def test_an_object_is_found_again_where_another_is_away():
    """What is not there is no rival."""
    first, second = [THERE, *[AWAY] * 3, *[THERE] * 4], [OTHER] * 4 + [AWAY] * 4
    result = evaluate_video(recorded(first, second), answering(first, second), "click")
    assert result.objects[0].returns == {4: True}


def test_an_object_that_is_taken_for_another_is_not_found_again():
    first, second = [THERE, *[AWAY] * 3, *[THERE] * 4], [OTHER] * 8
    mistaken = [THERE, *[AWAY] * 3, *[OTHER] * 4]
    result = evaluate_video(recorded(first, second), answering(mistaken, [AWAY] * 8), "click")
    assert result.objects[0].returns == {4: False}


def test_an_object_whose_mask_is_rather_that_of_another_is_not_found_again():
    """Here half of the prediction is the object's, all of it the other's."""
    larger = THERE | np.roll(THERE, THERE.any(axis=0).sum(), axis=1)
    first, second = [THERE, *[AWAY] * 3, *[THERE] * 4], [larger] * 8
    mistaken = [THERE, *[AWAY] * 3, *[larger] * 4]
    result = evaluate_video(recorded(first, second), answering(mistaken, [AWAY] * 8), "click")
    assert result.objects[0].returns == {4: False} and result.objects[0].j[-1] == 0.5


def test_what_is_kept_of_a_frame_does_not_grow_with_the_square_of_the_objects(monkeypatch):
    """A recording of an hour with sixteen objects would take two gigabytes."""
    kept = []
    monkeypatch.setattr(evaluation_video, "_found_again", lambda result, rows: kept.append(rows) or {})
    masks = [[square(5, 4 * number)] * 4 for number in range(12)]
    evaluate_video(recorded(*masks), answering(*masks), "mask")
    assert [len(rows) for rows in kept] == [4] * 12 and all(len(row) <= 2 for rows in kept for row in rows)


def test_a_return_that_the_video_ends_too_early_to_judge_counts_neither_way():
    truth, lost = [THERE, *[AWAY] * 3, THERE, THERE], [THERE] + [AWAY] * 5
    result = evaluate_video(recorded(truth), answering(lost), "click")
    assert result.objects[0].returns == {} and summarise([result])["returns"] == 0
    found = evaluate_video(recorded(truth), answering(truth), "click")
    assert found.objects[0].returns == {4: True}


def test_the_speed_is_the_tracker_s_alone(monkeypatch):
    """Neither reading images nor scoring counts."""
    clock = [1000.0]

    class Slow(Oracle):
        def step(self, frame, prompts):
            clock[0] += 0.25
            return super().step(frame, prompts)

        def check(self, prompts, frame):
            clock[0] += 10

    class SlowDisk(TwoSquares):
        def frames(self):
            for annotated in super().frames():
                clock[0] += 10
                yield annotated

    monkeypatch.setattr(evaluation_video, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    result = evaluate_video(SlowDisk(every=2), Slow(perfect), "click")
    assert result.seconds == 9 * 0.25 and summarise([result])["frames_per_second"] == 4.0


def result_of(*j, tags=()):
    """A video of one object that is in sight throughout; j: in each frame."""
    frames, there = list(range(len(j))), [True] * len(j)
    return VideoResult("v", len(j), 1.0, [ObjectResult(1, list(tags), frames, list(j), list(j), there, there)])


def test_an_object_is_in_the_group_of_each_of_its_difficulties():
    kinds = [["look_alike"], ["small", "fast"], [], ["fast"]]
    summary = summarise([result_of(1.0, number / 4, 1.0, tags=tags) for number, tags in enumerate(kinds)])
    said = {name: (group["objects"], group["j"]) for name, group in summary["by_group"].items()}
    expected = {"look-alike": (1, 0.0), "small": (1, 25.0), "fast": (2, 50.0), "none of these": (1, 50.0)}
    assert said == {"all": (4, 37.5)} | expected
    assert summarise([result_of(1.0, 0.5, 1.0)])["by_group"].keys() == {"all"}, "nobody knows of recorded objects"


def test_drift_is_told_at_the_prompt_after_it_halfway_and_at_the_end():
    told = drift(summarise([result_of(*(1 - age / 10 for age in range(9)))]))
    assert told.endswith("100.0 at 0, 90.0 at 1, 60.0 at 4, 20.0 at 8.")


def test_a_curve_is_the_mean_of_the_objects_of_each_frame():
    drawn = curves([result_of(1.0, 0.5, 1.0), result_of(1.0, 1.0, 0.25, 1.0)])["all"]
    np.testing.assert_array_equal(drawn, [np.nan, 75.0, 25.0, np.nan])
