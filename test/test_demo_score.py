"""The demo: what its figures mean, and what its pictures show."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

import sam2
from sam2_ros import demo_picture, demo_score, panel
from sam2_ros.msg import Track, TrackArray
from sam2_ros.ros_time import time_message
from sam2_ros.track_out import mask_message

pytestmark = pytest.mark.ros
SIZE_HW = (60, 80)
PERIOD_NS = 100_000_000


def square(x, side=20):
    mask = np.zeros(SIZE_HW, bool)
    mask[20 : 20 + side, max(x, 0) : x + side] = True
    return mask


def array_of(number, masks):
    """A TrackArray of image `number`: {id: (H, W) bool, or None where it is away}."""
    tracks = []
    for label, (name, mask) in enumerate(masks.items(), start=1):
        track = Track(object_id=name, label=label, state=Track.OCCLUDED if mask is None else Track.VISIBLE)
        track.mask.image_height, track.mask.image_width = SIZE_HW
        if mask is not None:
            x, y, width, height = sam2.bounding_box(mask)
            track.mask, track.area = mask_message(mask[y : y + height, x : x + width], (x, y), SIZE_HW), int(mask.sum())
        tracks.append(track)
    message = TrackArray(tracks=tracks)
    message.header.stamp = time_message((number + 1) * PERIOD_NS)
    return message


def results_of(said, true, age_ns=40_000_000):
    """said, true: per image {id: mask or None}; images without `said` (None) have no result."""
    answers = [
        (array_of(number, masks), (number + 1) * PERIOD_NS + age_ns)
        for number, masks in enumerate(said)
        if masks is not None
    ]
    return demo_score.pair_up(answers, [array_of(number, masks) for number, masks in enumerate(true)], true[0])


@pytest.fixture
def story():
    """Thirty images: `a` stays, `b` is away in 10..15 and known to be; a result is missing for image 20."""
    true = [{"a": square(2), "b": None if 10 <= n < 16 else square(40)} for n in range(30)]
    said = [None if n == 20 else dict(masks) for n, masks in enumerate(true)]
    return said, true


def test_a_perfect_run(story):
    run = demo_score.score(results_of(*story), images=30, answers=29, prompted_ns=PERIOD_NS)
    assert (run.mean_iou, run.visibility, run.results, run.dropped) == (1.0, 1.0, 29, 1)
    assert run.fps == pytest.approx(27 / 2.8) and run.age_p50_s == pytest.approx(0.04)
    assert [(a.name, a.gone, a.back, a.found) for a in run.absences] == [("b", 10, 16, True)]
    assert "1 of 1" in demo_score.table(run) and "1.000" in demo_score.table(run)


def test_each_mistake_costs_what_it_should(story):
    said, true = story
    said[5]["a"] = square(12)  # half of it: 200 of 600 pixels in common
    said[11]["b"] = square(40)  # seen where it is not
    said[25]["b"] = None  # not seen where it is
    run = demo_score.score(results_of(said, true), images=30, answers=29, prompted_ns=PERIOD_NS)
    assert run.iou_by_id["a"] == pytest.approx((27 + 1 / 3) / 28)
    assert run.iou_by_id["b"] == pytest.approx(21 / 23)  # two of the 23 pairs with a pixel are 0
    assert run.visibility == pytest.approx(54 / 56) and run.visibility_by_id["a"] == 1.0
    pairs = 28 + 23
    assert run.mean_iou == pytest.approx((27 + 1 / 3 + 21) / pairs)


def test_the_prompted_image_does_not_count(story):
    said, true = story
    said[0]["a"] = square(60)
    assert demo_score.score(results_of(said, true), 30, 29, prompted_ns=PERIOD_NS).mean_iou == 1.0
    assert demo_score.score(results_of(said, true), 30, 29, prompted_ns=PERIOD_NS - 1).mean_iou < 1.0


def test_what_others_prompt_meanwhile_does_not_count(story):
    said, true = story
    others = [masks and masks | {"mine": square(30)} for masks in said]
    assert demo_score.score(results_of(others, true), 30, 29, PERIOD_NS) == demo_score.score(
        results_of(said, true), 30, 29, PERIOD_NS
    )


def test_an_image_with_two_results_is_not_two_images():
    one = array_of(0, {"a": square(2)}), 0
    assert demo_score.images_answered([one, one, (array_of(1, {}), 0)]) == 2


def test_an_object_that_is_mistaken_for_another_is_not_found_again(story):
    said, true = story
    for masks in said[16:]:
        if masks is not None:
            masks["b"] = square(2)
    run = demo_score.score(results_of(said, true), 30, 29, PERIOD_NS)
    assert [absence.found for absence in run.absences] == [False]
    assert "not found again" in demo_picture.story(results_of(said, true), run.absences)[3][1]


@pytest.mark.parametrize(
    "away, absences",
    [
        (range(10, 16), [(10, 11, True)]),
        (range(12, 15), [(10, 11, True)]),
        ((12, 14), []),
        (range(13, 16), []),  # of which there is no result
    ],
)
def test_an_absence_is_as_long_as_its_images_of_which_one_result_is_enough(away, absences):
    true = [{"a": square(2), "b": None if n in away else square(40)} for n in range(30)]
    said = [None if n in (10, 11, 13, 14, 15) else masks for n, masks in enumerate(true)]
    run = demo_score.score(results_of(said, true), 30, 25, PERIOD_NS)
    assert [(a.gone, a.back, a.found) for a in run.absences] == absences


def test_speed_and_age_are_of_the_results_as_they_arrive():
    """Twenty-one results for one image each, the first 0.1 s old, each later one 0.01 s older than the one before."""
    masks = [{"a": square(2)}] * 21
    answers = [(array_of(n, masks[n]), (n + 1) * PERIOD_NS + (10 + n) * PERIOD_NS // 10) for n in range(21)]
    results = demo_score.pair_up(answers, [array_of(n, masks[n]) for n in range(21)], masks[0])
    run = demo_score.score(results, 21, 21, prompted_ns=0)
    assert run.fps == pytest.approx(20 / (2.0 + 0.2))
    assert (run.age_p50_s, run.age_p95_s) == (pytest.approx(0.2), pytest.approx(0.29))


def test_an_object_is_judged_from_its_first_result_on(story):
    """Its absence before that is none that it was found again after."""
    said, true = story
    for masks in true[:3]:
        masks["b"] = square(40)
    for n in range(3, 8):
        true[n]["b"] = None
    said = [
        masks and {name: mask for name, mask in masks.items() if name == "a" or n >= 9} for n, masks in enumerate(said)
    ]
    run = demo_score.score(results_of(said, true), 30, 29, PERIOD_NS)
    assert (run.mean_iou, run.visibility) == (1.0, 1.0)
    assert [(a.gone, a.back) for a in run.absences] == [(10, 16)]


def test_an_object_whose_first_result_is_away_was_not_absent():
    there = [{"a": None if n < 5 else square(2)} for n in range(10)]
    assert demo_score.find_absences(results_of(there, there), "a") == []


def test_an_object_that_never_comes_into_view_has_no_overlap():
    away = [{"a": None}] * 3
    run = demo_score.score(results_of(away, away), 3, 3, prompted_ns=0)
    assert (run.mean_iou, run.iou_by_id, run.visibility) == (0.0, {"a": 0.0}, 1.0)


def test_a_flicker_after_an_absence_is_none(story):
    said, true = story
    said[25]["b"] = true[25]["b"] = None
    run = demo_score.score(results_of(said, true), 30, 29, PERIOD_NS)
    assert [(a.gone, a.back) for a in run.absences] == [(10, 16)]


def test_two_results_with_objects_and_with_truth_can_be_judged_and_no_fewer():
    """An image that nobody knows the truth of, as of another camera, is none of them."""
    one = {"a": square(2)}
    said = [(9, one), (0, {}), (1, one), (2, one)]
    answers = [(array_of(number, masks), (number + 1) * PERIOD_NS) for number, masks in said]
    results = demo_score.pair_up(answers, [array_of(number, one) for number in range(3)], one)
    assert [result.frame for result in results] == [0, 1, 2]
    run = demo_score.score(results, 4, 4, prompted_ns=0)
    assert (run.fps, run.mean_iou, run.iou_by_id) == (pytest.approx(10.0), 1.0, {"a": 1.0})
    with pytest.raises(sam2.BadInput, match="2 results, 1 of them with objects"):
        demo_score.score(results[:2], 4, 4, prompted_ns=0)


@pytest.mark.parametrize(("wrong", "found"), [(range(16, 21), True), (range(16, 22), False)])
def test_an_object_may_be_found_with_the_fifth_result_and_no_later(story, wrong, found):
    said, true = story
    for number in set(wrong) - {20}:  # of which there is no result
        said[number]["b"] = square(2)
    assert [a.found for a in demo_score.find_absences(results_of(said, true), "b")] == [found]


def test_an_object_that_is_missed_and_leaves_again_is_not_found(story):
    said, true = story
    for n in range(16, 21):
        said[n] = {"a": square(2), "b": None}
        true[n]["b"] = square(40) if n == 16 else None
    assert [(a.back, a.found) for a in demo_score.find_absences(results_of(said, true), "b")][0] == (16, False)


def test_an_object_that_is_away_has_no_box_and_no_pixel():
    here, away = (demo_score.Seen(track) for track in array_of(0, {"a": square(2), "b": None}).tracks)
    assert here.box_xywh == (2, 20, 20, 20) and np.array_equal(here.mask, square(2))
    assert away.box_xywh is None and away.mask.shape == SIZE_HW and not away.mask.any()


def test_nothing_to_judge_is_an_error():
    with pytest.raises(sam2.BadInput, match="0 results"):
        demo_score.score([], 10, 0, 0)


def image_of(stamp):
    return np.full((*SIZE_HW, 3), 90, np.uint8)


def test_the_sheet_tells_of_the_absence(story):
    results = results_of(*story)
    run = demo_score.score(results, 30, 29, PERIOD_NS)
    moments = demo_picture.story(results, run.absences)
    frames = [results[index].frame for index, _ in moments]
    assert frames == [0, 5, 13, 22, 29] and "says so" in moments[2][1] and "same id" in moments[3][1]
    sheet = demo_picture.sheet(results, run, image_of, {"a": (12.0, 30.0, 20.0, 40.0)}, PERIOD_NS)
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 3 * (panel.PANEL_WH[0] + 2 * panel.MARGIN)
    pictures = list(demo_picture.film(results, image_of, SIZE_HW[1]))
    assert len(pictures) == 29 and len({picture.shape for picture in pictures}) == 1
    assert not np.array_equal(pictures[9][:60], pictures[12][:60])  # b is there, and b is away


def test_the_timeline_is_dark_where_an_object_is_away(story):
    timeline = demo_picture.Timeline(results_of(*story), 400)
    row = timeline.picture[panel.MARGIN + demo_picture.ROW + 10]  # b's bar
    assert tuple(row[timeline.x(12) + 3]) == demo_picture.DARK
    assert tuple(row[timeline.x(5) + 3]) == tuple(row[timeline.x(25) + 3]) != demo_picture.DARK


def test_the_timeline_has_a_white_line_where_the_object_is_and_is_faint_after_the_cursor(story):
    said, true = story
    said[5]["b"], said[12]["b"] = None, square(40)  # the line is of the truth
    timeline = demo_picture.Timeline(results_of(said, true), 400)
    line = timeline.picture[panel.MARGIN + demo_picture.ROW + 2]
    assert [tuple(line[timeline.x(n) + 2]) for n in (5, 12, 25)] == [panel.INK, panel.PAPER, panel.INK]
    at = timeline.at(15)
    cursor, bar = timeline.x(15), panel.MARGIN + demo_picture.ROW + 10
    assert (at[2:-2, cursor] == panel.INK).all()
    assert np.array_equal(at[:, :cursor], timeline.picture[:, :cursor])
    paper = np.array(panel.PAPER, int)
    faint, plain = (np.abs(picture[bar, timeline.x(25)] - paper).sum() for picture in (at, timeline.picture))
    assert 0 < faint < 0.5 * plain


def test_a_run_without_an_absence_is_shown_at_even_distances():
    said = [{}] + [{"a": square(2)}] * 20
    results = results_of(said, [{"a": square(2)}] * 21)
    run = demo_score.score(results, 21, 21, prompted_ns=0)
    moments = demo_picture.story(results, run.absences)
    assert moments == [(n, f"image {n}") for n in (1, 5, 10, 15, 20)]
    assert demo_picture.sheet(results, run, image_of, {}, PERIOD_NS).any()


def test_the_absence_shown_is_found_known_and_of_a_thing_that_is_large_before_and_after():
    sides = {"lost": (18, 18), "partly": (20, 4), "small": (6, 6), "unnoticed": (18, 18), "whole": (12, 12)}
    true = [{n: None if 8 <= t < 16 else square(40, side[t >= 16]) for n, side in sides.items()} for t in range(20)]
    said = [dict(masks) for masks in true]
    for t in range(8, 20):
        said[t]["lost" if t >= 16 else "unnoticed"] = square(2)
    results = results_of(said, true)
    absences = [absence for name in sides for absence in demo_score.find_absences(results, name)]
    assert len(absences) == 5 and demo_picture.best_absence(results, absences).name == "whole"
    moments = demo_picture.story(results, absences)
    assert [index for index, _ in moments] == [0, 3, 12, 19, 19], "it ends soon after"


def test_the_sheet_has_boxes_on_its_first_picture_and_shows_the_others_as_the_film_does(story):
    said, true = story
    said[9]["b"] = true[9]["b"] = square(50)  # where its box stays
    results = results_of(said, true)
    run = demo_score.score(results, 30, 29, PERIOD_NS)
    boxed, plain = (
        demo_picture.sheet(results, run, image_of, boxes, PERIOD_NS) for boxes in ({"a": (12.0, 30.0, 20.0, 40.0)}, {})
    )
    x, y, width, height = sam2.bounding_box((boxed != plain).any(axis=-1))
    scale = panel.PANEL_WH[0] / SIZE_HW[1]
    assert abs(x - panel.MARGIN - 12 * scale) < 5 * scale and abs(width - 8 * scale) < 10 * scale
    assert height > 10 * scale and y + height < panel.PANEL_WH[1] + 52, "52: the title"
    film = list(demo_picture.film(results, image_of, SIZE_HW[1]))
    for index, picture in demo_picture._drawn(results, image_of, {0, 12, 28}).items():
        assert np.array_equal(picture, film[index][: SIZE_HW[0]])


def test_a_film_of_odd_images_has_even_sides_and_tells_who_is_hidden(story):
    odd = np.full((61, 81, 3), 90, np.uint8)
    results = results_of(*story)
    picture = next(demo_picture.film(results, lambda stamp: odd, 81))
    assert picture.shape == (61 + 26 + 61, 82, 3), "the picture, the line below it, the timeline and a row"
    assert (picture[60, :81] == 90).all() and not picture[:, 81].any()
    words = [demo_picture._in_words(list(results[index].tracks.values())) for index in (9, 12)]
    assert words == ["2 of 2 visible", "1 of 2 visible: b occluded"]
