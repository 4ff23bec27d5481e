"""Videos whose objects have masks of their own, as in SA-V: scored as its toolkit does, elsewhere as DAVIS's."""

from types import SimpleNamespace

import numpy as np
import pytest
from oracle import SIZE_HW, Oracle, TwoSquares, square

from sam2.evaluation_report import curves, summarise
from sam2.evaluation_video import RecordedVideo, VideoResult, evaluate_video


def test_where_each_object_has_masks_of_its_own_only_its_own_frames_count():
    """As the SA-V toolkit has it: a frame annotated for another object says nothing of this one; an empty mask does."""
    empty = np.zeros(SIZE_HW, bool)
    masks = {t: {1: square(5, 5)} | ({2: square(30, 5) if t != 4 else empty} if t % 2 == 0 else {}) for t in range(8)}
    video = SimpleNamespace(name="apart", frames=lambda: iter([np.zeros((*SIZE_HW, 3), np.uint8)] * 8), masks=masks)
    answers = {1: square(5, 5), 2: square(30, 5)}
    result = evaluate_video(RecordedVideo(video, may_overlap=True), Oracle(lambda t, k: answers[k]), "mask")
    first, second = result.objects
    assert (first.frames, second.frames) == (list(range(8)), [0, 2, 4, 6])
    assert second.there == [True, True, False, True] and second.j == [1.0, 1.0, 0.0, 1.0]


def test_masks_that_may_overlap_keep_every_pixel():
    def everything(t, object_id):
        return np.ones(SIZE_HW, dtype=bool)

    shares = [square(5, 5).mean(), square(30, 50).mean()]
    for may_overlap, expected in ((True, shares), (False, [shares[0], 0.0])):
        results = evaluate_video(TwoSquares(may_overlap=may_overlap), Oracle(everything), "mask").objects
        assert [entry.j[0] for entry in results] == pytest.approx(expected)


def scores(truth: list, predicted: list, begins: int = 0, is_sav: bool = True) -> tuple[float | None, float | None]:
    """J and F in percent of one object: its masks by annotated frame, of which there are `begins` before without it."""
    one = {0: square(30, 5)}
    masks = {t: one | ({7: truth[t - begins]} if t >= begins else {}) for t in range(begins + len(truth))}
    frames = [np.zeros((*SIZE_HW, 3), np.uint8)] * len(masks)
    video = RecordedVideo(SimpleNamespace(name="v", frames=lambda: iter(frames), masks=masks), may_overlap=is_sav)
    result = evaluate_video(video, Oracle(lambda t, k: one[0] if k == 0 else predicted[t - begins]), "mask")
    summary = summarise([VideoResult("v", len(masks), 1.0, [entry for entry in result.objects if entry.object_id])])
    return summary["j"], summary["f"]


def test_objects_of_sav_are_scored_in_the_frames_that_its_toolkit_counts():
    """The expected numbers are those of its toolkit for these masks."""
    away, there, wrong = np.zeros(SIZE_HW, bool), square(5, 5), square(5, 10)
    assert scores([there, away, away, *[there] * 3], [there, away, away, wrong, away, wrong]) == (30.0, 22.5)
    assert scores([there, away, away, *[there] * 3], [there, away, wrong, wrong, away, wrong]) == (20.0, 15.0)
    late = [away, away, there, there, there], [away, away, wrong, away, wrong]
    assert scores(*late) == (30.0, 22.5), "its prompt is not the video's first frame, and counts"
    assert scores(*late, begins=2) == (30.0, 22.5)
    assert scores([there] * 3, [there, wrong, there], begins=2) == (60.0, 45.0), "annotated from its prompt on"
    assert scores([there, away, away], [there, away, away]) == (None, None), "nothing to count"
    assert scores([away, away, there], [away, away, there]) == (None, None), "the last does not count"


def test_elsewhere_an_object_that_is_away_after_its_prompt_is_scored_there():
    """As DAVIS's toolkit has it: of four frames two are right, one overlaps by 0.6."""
    away, there = np.zeros(SIZE_HW, bool), square(5, 5)
    predicted = [there, away, away, square(5, 10), away, there]
    assert scores([there, away, away, *[there] * 3], predicted, is_sav=False)[0] == 65.0


def test_a_plot_of_sav_shows_the_frames_that_count():
    away, there = np.zeros(SIZE_HW, bool), square(5, 5)
    masks = [away, there, there, there]
    frames = [np.zeros((*SIZE_HW, 3), np.uint8)] * 4
    video = SimpleNamespace(name="v", frames=lambda: iter(frames), masks={t: {7: m} for t, m in enumerate(masks)})
    result = evaluate_video(RecordedVideo(video, may_overlap=True), Oracle(lambda t, _: masks[t]), "mask")
    np.testing.assert_array_equal(curves([result])["all"], [np.nan, 100, 100, np.nan])
