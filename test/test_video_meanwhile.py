"""What happens to a propagation while objects come and go between two of its frames."""

import pytest
import torch
from nano_video import NUM_FRAMES, masks_by_frame, nano_predictor, write_jpegs

FIRST = {"points": [[18, 30]], "labels": [1]}
SECOND = {"box": [50, 10, 90, 50]}


@pytest.fixture(scope="module")
def predictor():
    return nano_predictor()


@pytest.fixture
def state(predictor, tmp_path):
    return predictor.init_state(str(write_jpegs(tmp_path)))


def propagate(predictor, state, meanwhile) -> dict[int, dict[int, torch.Tensor]]:
    """As `masks_by_frame`; `meanwhile()` is called after frame 1."""
    seen = {}
    for frame, ids, masks in predictor.propagate_in_video(state):
        seen[frame] = dict(zip(ids, masks[:, 0], strict=True))
        if frame == 1:
            meanwhile()
    return seen


def test_a_newcomer_is_tracked_from_the_next_call_on(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **FIRST)
    alone = masks_by_frame(predictor, state)
    seen = propagate(predictor, state, lambda: predictor.add_new_points_or_box(state, 1, 2, **SECOND))
    assert {frame: list(masks) for frame, masks in seen.items()} == {frame: [1] for frame in range(NUM_FRAMES)}
    assert all(torch.equal(seen[t][1], alone[t][1]) for t in alone)
    again = masks_by_frame(predictor, state, start_frame_idx=1)
    assert all(list(masks) == [1, 2] for masks in again.values()) and len(again) == NUM_FRAMES - 1


def test_what_is_removed_is_left_out_also_if_its_id_comes_again(predictor, state):
    def removed_and_told_anew():
        predictor.remove_object(state, 2)
        predictor.add_new_points_or_box(state, 1, 2, **FIRST)

    for meanwhile in (lambda: predictor.remove_object(state, 2), removed_and_told_anew):
        predictor.reset_state(state)
        for obj_id, prompt in ((1, FIRST), (2, SECOND)):
            predictor.add_new_points_or_box(state, 0, obj_id, **prompt)
        seen = propagate(predictor, state, meanwhile)
        assert [list(masks) for masks in seen.values()] == [[1, 2], [1, 2], [1], [1], [1], [1]]


def test_without_objects_it_ends(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **FIRST)
    assert list(propagate(predictor, state, lambda: predictor.remove_object(state, 1))) == [0, 1]
