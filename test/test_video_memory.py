"""Which memories a frame of a loaded clip is tracked with when its object is prompted on several frames, and what a
session keeps of the clip."""

import pytest
import torch
from small_stream import CONFIG, SIZE_HW, images, live_tensors, small_model

from sam2.preprocess import to_model_input
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import FrameResult, ObjectState, VideoState, longest_pointer_memory

NUM_FRAMES, FIRST, SECOND = 8, 1, 5  # the object is prompted on FIRST and SECOND
POINTER, MASKMEM = "pointer", "maskmem"


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    made = SAM2VideoPredictor(CONFIG, fill_hole_area=8)
    made.load_state_dict(small_model().state_dict())
    return made.eval()


def session(num_frames: int = NUM_FRAMES) -> VideoState:
    inputs = [to_model_input(rgb, CONFIG.image_size) for rgb in images()[:num_frames]]
    return VideoState(inputs, *SIZE_HW, torch.device("cpu"), torch.device("cpu"))


def tracked(predictor, reverse: bool, changed: str = "", on: int = 0) -> dict[int, torch.Tensor]:
    """Logits by frame; `changed`: which part of the memory of the prompt on frame `on` is another one."""
    state = session()
    predictor.add_new_points_or_box(state, FIRST, 1, points=[[20, 15]], labels=[1])
    predictor.add_new_points_or_box(state, SECOND, 1, points=[[30, 20]], labels=[1])
    predictor.propagate_in_video_preflight(state)
    if changed:
        result = state.objects[1].prompted[on]
        setattr(result, changed, -getattr(result, changed))
    start = NUM_FRAMES - 1 if reverse else 0
    return {t: masks for t, _, masks in predictor.propagate_in_video(state, start_frame_idx=start, reverse=reverse)}


def touched(predictor, reverse: bool, changed: str, on: int) -> set[int]:
    """Tracked frames whose answer depends on that memory, bit for bit."""
    before, after = tracked(predictor, reverse), tracked(predictor, reverse, changed, on)
    return {t for t in before if t not in (FIRST, SECOND) and not torch.equal(before[t], after[t])}


@pytest.mark.parametrize(
    ("reverse", "on", "past"),
    [(False, FIRST, {2, 3, 4, 6, 7}), (False, SECOND, {6, 7}), (True, SECOND, {0, 2, 3, 4}), (True, FIRST, {0})],
)
def test_a_prompt_gives_its_pointer_to_the_frames_that_come_after_it_only(predictor, reverse, on, past):
    """After it in the order of tracking. The frames before it may see what it looks like, but not be pointed at it."""
    assert touched(predictor, reverse, POINTER, on) == past


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("on", [FIRST, SECOND])
def test_a_prompt_shows_its_mask_to_every_frame_of_the_clip(predictor, reverse, on):
    assert touched(predictor, reverse, MASKMEM, on) == set(range(NUM_FRAMES)) - {FIRST, SECOND}


def kept_after(predictor, state: VideoState, **kwargs) -> tuple[int, int]:
    """(tensors, bytes) that are alive after a propagation."""
    for _ in predictor.propagate_in_video(state, **kwargs):
        pass
    return live_tensors()


def test_a_clip_costs_four_small_tensors_for_each_frame_and_nothing_for_a_second_pass(predictor):
    """Logits, pointer, presence and memory: no features and no images."""
    state, side = session(16), CONFIG.image_size // 16
    predictor.add_new_points_or_box(state, 0, 1, points=[[20, 15]], labels=[1])
    half = kept_after(predictor, state, max_frame_num_to_track=7)
    whole = kept_after(predictor, state)
    num_bytes = 4 * (4 * side) ** 2 + 4 * CONFIG.d_model + 4 + 2 * CONFIG.memory_dim * side**2
    assert (whole[0] - half[0], whole[1] - half[1]) == (8 * 4, 8 * num_bytes)
    assert kept_after(predictor, state) == whole


def test_a_prompt_outdates_what_was_tracked_seven_frames_to_either_side():
    """The official `clear_non_cond_mem_around_input`: as many as there are temporal codes."""
    state = ObjectState(recent=dict.fromkeys(range(30)), prompted={10: None})
    state.forget_around(10)
    assert [*state.recent] == [0, 1, 2, *range(18, 30)] and [*state.prompted] == [10]


def test_the_newest_result_is_what_was_given_just_now_then_the_prompt_then_what_was_tracked():
    """A frame has several where it was tracked before it was prompted."""
    where = ("new_prompted", "new_recent", "prompted", "recent")
    state = ObjectState(**{name: {3: FrameResult(name, None, None)} for name in where})
    assert [state.latest(3, is_prompted).logits for is_prompted in (True, False)] == ["new_prompted", "new_recent"]
    state.new_prompted.clear(), state.new_recent.clear()
    assert [state.latest(3, is_prompted).logits for is_prompted in (True, False)] == ["prompted", "prompted"]
    state.prompted.clear()
    assert state.latest(3, True).logits == "recent" and state.latest(4, True) is None


@pytest.mark.parametrize("reverse", [False, True])
def test_memories_and_pointers_of_a_frame_are_in_the_official_order(reverse):
    """Prompted frames, then the six just past from the farthest on; pointers from the nearest on, of the past alone."""
    sign = -1 if reverse else 1
    results = {index: FrameResult(None, index, None) for index in range(-40, 41)}
    state = ObjectState(prompted={0: results[0], sign * 25: results[sign * 25]})
    state.recent = {index: results[index] for index in range(-40, 41) if index not in state.prompted}
    memories = [(result.pointer, code) for result, code in state.memories(sign * 20, reverse)]
    assert memories == [(0, 6), (sign * 25, 6), *((sign * (19 - code), code) for code in range(5, -1, -1))]
    pointers = [*state.pointers(sign * 20, reverse, num_frames=100)]
    assert pointers == [(0, 20), *((sign * (20 - ago), ago) for ago in range(1, 16))]
    assert [ago for _, ago in state.pointers(sign * 20, reverse, num_frames=5)] == [20, 1, 2, 3, 4]
    assert [longest_pointer_memory(count) for count in (1, 5, 16, 17, 100)] == [0, 4, 15, 15, 15]
