"""Small things that scripts written for the official video predictor rely on."""

import numpy as np
import pytest
import torch
from nano_video import HEIGHT, NUM_FRAMES, WIDTH, nano_predictor, write_jpegs

from sam2.errors import BadInput


@pytest.fixture(scope="module")
def predictor():
    return nano_predictor()


@pytest.fixture
def state(predictor, tmp_path):
    return predictor.init_state(str(write_jpegs(tmp_path)))


def test_the_state_reads_like_a_dict(predictor, state):
    predictor.add_new_points_or_box(state, 0, "cup", points=[[30, 20]], labels=[1])
    assert "images" in state and len(state["images"]) == state["num_frames"]
    assert state["obj_ids"] == ["cup"] and state["obj_id_to_idx"] == {"cup": 0} and state["obj_idx_to_id"] == {0: "cup"}
    assert {"video_height", "video_width", "device"} <= state.keys() and state.get("constants") is None
    with pytest.raises(KeyError, match="'constants': expected one of images, "):
        state["constants"]


def test_points_may_lie_outside_the_image(predictor, state):
    answers = [
        predictor.add_new_points_or_box(state, 0, 1, points=[[x, 30]], labels=[1])[2].clone()
        for x in (WIDTH, WIDTH + 1, 3 * WIDTH)
    ]
    assert all(torch.isfinite(logits).all() for logits in answers)
    assert not torch.equal(answers[0], answers[1]) and not torch.equal(answers[1], answers[2])


def test_scripts_keep_things_of_their_own_in_the_state(predictor, state):
    state["seen"] = {1}
    predictor.reset_state(state)
    assert state["seen"] == {1} and "seen" in state and len(state) == len(list(state))
    with pytest.raises(KeyError, match="obj_idx_to_id, seen"):
        state["other"]
    del state["seen"]
    assert "seen" not in state


@pytest.mark.parametrize("key", ["images", "num_frames", "cached_features", "output_dict_per_obj"])
def test_the_state_s_official_entries_are_not_the_scripts(state, key):
    """What was put there would be ignored."""
    with pytest.raises(BadInput, match=f"inference_state\\['{key}'\\]: expected a key of your own"):
        state[key] = {}
    with pytest.raises(BadInput):
        del state[key]


def test_masks_and_points_may_be_flipped_arrays(predictor, state):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:40, 20:60] = True
    answers = [predictor.add_new_mask(state, 0, 1, m)[2].clone() for m in (mask[::-1], mask[::-1].copy())]
    assert torch.equal(*answers)
    points = np.array([[20, 30]], np.float32)[:, ::-1]
    answers = [
        predictor.add_new_points_or_box(state, 0, obj, points=p, labels=[1])[2][-1].clone()
        for obj, p in ((2, points), (3, points.copy()))
    ]
    assert torch.equal(*answers)


def test_a_tensor_s_values_are_cut_at_one_half_and_anything_else_is_true_or_false(predictor, state):
    soft = torch.full((HEIGHT, WIDTH), 0.01)
    soft[10:40, 20:60] = 0.9
    areas = {}
    for name, mask in (("soft", soft), ("bool", soft > 0.5), ("array", soft.numpy()), ("list", soft.tolist())):
        predictor.reset_state(state)
        areas[name] = int((predictor.add_new_mask(state, 0, 1, mask)[2] > 0).sum())
    assert abs(areas["soft"] - 30 * 40) < 60 and abs(areas["bool"] - 30 * 40) < 60
    assert areas["array"] == areas["list"] == HEIGHT * WIDTH


def test_a_box_with_no_points_is_a_box(predictor, state):
    box = [10, 10, 50, 40]
    alone = predictor.add_new_points_or_box(state, 0, "a", box=box)[2]
    predictor.reset_state(state)
    assert torch.equal(predictor.add_new_points_or_box(state, 0, "a", points=[], labels=[], box=box)[2], alone)
    with pytest.raises(BadInput, match=r"points: expected shape \(K, 2\), got \(0,\)"):
        predictor.add_new_points_or_box(state, 0, "a", points=[], labels=[])


def test_a_tensor_of_the_networks_size_is_taken_as_it_is(predictor, state):
    side = predictor.image_size
    soft = torch.zeros(side, side)
    soft[: side // 2], soft[side // 2 : side * 3 // 4], soft[-side // 8 :] = 0.7, 0.3, -0.2
    answer = predictor.add_new_mask(state, 0, 1, soft)[2][0, 0]
    for row, value in ((0.25, 0.7), (0.625, 0.3), (0.8, 0.0), (0.95, -0.2)):
        assert answer[int(row * HEIGHT), WIDTH // 2].item() == pytest.approx(20 * value - 10, abs=1e-3)
    absent = predictor.add_new_mask(state, 0, 1, soft.clamp(max=0))
    assert state.objects[1].new_prompted[0].object_score.item() < 0 and (absent[2] < 0).all()
    array = predictor.add_new_mask(state, 0, 1, soft.numpy())[2]
    assert (array[0, 0, -1] > 0).all(), "of an array every nonzero value is inside"


@pytest.mark.parametrize("box", [[50, 20, 50, 40], [90, 50, 50, 20]])
def test_a_box_of_no_area_or_with_its_corners_swapped_is_taken(predictor, state, box):
    answer = predictor.add_new_points_or_box(state, 0, "a", box=box)[2]
    predictor.reset_state(state)
    corners = {"points": [box[:2], box[2:]], "labels": [2, 3]}
    assert torch.equal(predictor.add_new_points_or_box(state, 0, "a", **corners)[2], answer)


def test_points_in_a_batch_of_one_are_taken(predictor, state):
    answer = predictor.add_new_points_or_box(state, 0, "a", points=[[30, 20]], labels=[1])[2]
    predictor.reset_state(state)
    assert torch.equal(predictor.add_new_points_or_box(state, 0, "a", points=[[[30, 20]]], labels=[1])[2], answer)


def test_of_overlapping_masks_the_largest_logit_stays(predictor):
    logits = torch.tensor([[3.0, 1.0, -2.0], [2.0, 4.0, -1.0]])[:, None, None]  # (2, 1, 1, 3)
    apart = predictor._apply_non_overlapping_constraints(logits)
    assert apart[:, 0, 0].tolist() == [[3.0, -10.0, -10.0], [-10.0, 4.0, -1.0]]
    assert torch.equal(predictor._apply_non_overlapping_constraints(logits[:1]), logits[:1])


def test_an_unknown_object_is_a_runtime_error(predictor, state):
    with pytest.raises(RuntimeError, match="obj_id: expected one of"):
        predictor.remove_object(state, "nobody", strict=True)


@pytest.mark.parametrize(
    "span",
    [
        {"start_frame_idx": NUM_FRAMES},
        {"start_frame_idx": NUM_FRAMES + 3, "max_frame_num_to_track": 2},
        {"start_frame_idx": -1, "reverse": True},
        {"start_frame_idx": 3, "max_frame_num_to_track": -1},
        {"start_frame_idx": 3, "max_frame_num_to_track": -1, "reverse": True},
    ],
    ids=str,
)
def test_where_no_frame_is_left_nothing_is_tracked(predictor, state, span):
    """Scripts that track in chunks ask for the one past the end."""
    predictor.add_new_points_or_box(state, 0, "cup", points=[[30, 20]], labels=[1])
    assert list(predictor.propagate_in_video(state, **span)) == []


@pytest.mark.parametrize("length", [2.5, "3"])
def test_a_length_that_is_none_is_refused_before_anything_changes(predictor, state, length):
    predictor.add_new_mask(state, 0, "cup", np.ones((HEIGHT, WIDTH), bool))
    with pytest.raises(BadInput, match="max_frame_num_to_track: expected an integer, got"):
        next(predictor.propagate_in_video(state, max_frame_num_to_track=length))
    assert state.objects["cup"].new_prompted
