"""The official video predictor's interface, on a nano network with pseudo-random weights (numbers: test_golden.py)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nano_video import HEIGHT, NUM_FRAMES, WIDTH, frames, masks_by_frame, nano_predictor, write_jpegs, write_video

from sam2.errors import BadInput
from sam2.preprocess import to_model_input

POINT = {"points": [[18, 30]], "labels": [1]}
BOX = {"box": [50, 10, 90, 50]}


@pytest.fixture(scope="module")
def predictor():
    return nano_predictor()


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory) -> Path:
    return write_jpegs(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def state(predictor, jpegs):
    return predictor.init_state(str(jpegs))


def test_existing_script_runs_unchanged(jpegs, monkeypatch):
    """The steps of upstream's video example: build, prompt, refine, propagate, collect; only the folder is ours."""
    from sam2.build_sam import build_sam2_video_predictor

    torch.manual_seed(0)
    predictor = build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_nano.yaml", None, device=torch.device("cpu"))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        inference_state = predictor.init_state(video_path=str(jpegs))
        predictor.reset_state(inference_state)
        points = np.array([[21, 35], [25, 22]], dtype=np.float32)
        labels = np.array([1, 0], np.int32)
        _, out_obj_ids, out_mask_logits = predictor.add_new_points_or_box(
            inference_state=inference_state, frame_idx=0, obj_id=1, points=points, labels=labels
        )
        assert out_obj_ids == [1] and out_mask_logits.shape == (1, 1, HEIGHT, WIDTH)
        box = np.array([30, 0, 50, 50], dtype=np.float32)
        _, out_obj_ids, out_mask_logits = predictor.add_new_points_or_box(
            inference_state=inference_state, frame_idx=0, obj_id=4, points=points, labels=labels, box=box
        )
        assert out_obj_ids == [1, 4] and (out_mask_logits[0] > 0.0).cpu().numpy().shape == (1, HEIGHT, WIDTH)
        video_segments = {}
        for out_frame_idx, out_obj_ids, out_mask_logits in predictor.propagate_in_video(inference_state):
            video_segments[out_frame_idx] = {
                out_obj_id: (out_mask_logits[i] > 0.0).cpu().numpy() for i, out_obj_id in enumerate(out_obj_ids)
            }
    assert list(video_segments) == list(range(NUM_FRAMES))
    assert all(mask.shape == (1, HEIGHT, WIDTH) for masks in video_segments.values() for mask in masks.values())


def test_frames_of_a_folder(state):
    assert (state["num_frames"], state["video_height"], state["video_width"]) == (NUM_FRAMES, HEIGHT, WIDTH)
    for image, frame in zip(state["images"], frames(), strict=True):
        assert (image - to_model_input(frame, 256)).abs().mean() < 0.05  # JPEG's losses
    assert (state["images"][0] - to_model_input(frames()[5], 256)).abs().mean() > 0.1


def test_frames_of_a_video(predictor, tmp_path):
    state = predictor.init_state(str(write_video(tmp_path / "clip.mp4")))
    assert (state["num_frames"], state["video_height"], state["video_width"]) == (NUM_FRAMES, HEIGHT, WIDTH)
    for image, frame in zip(state["images"], frames(), strict=True):
        assert (image - to_model_input(frame, 256)).abs().mean() < 0.15  # the codec's losses
        assert (image - to_model_input(frame[..., ::-1], 256)).abs().mean() > 0.3  # red is red


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("missing", None, "found neither"),
        ("empty", {}, "no JPEG file"),
        ("named", {"first.jpg": b""}, "'first.jpg'"),
        ("damaged", {"0.jpg": b"no picture"}, "0.jpg: expected a JPEG that can be decoded"),
        ("clip.mp4", b"not a video", "at least one frame"),
    ],
)
def test_unreadable_videos_are_refused(predictor, tmp_path, name, content, complaint, capfd):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.mkdir()
        for file, data in content.items():
            (path / file).write_bytes(data)
    with pytest.raises(BadInput, match=complaint):
        predictor.init_state(str(path))


@pytest.mark.parametrize("kind", ["points", "mask"])
def test_a_frame_that_cannot_be_read_leaves_no_half_of_an_object(predictor, tmp_path, kind):
    write_jpegs(tmp_path)
    (tmp_path / "00002.jpg").write_bytes(b"no picture")
    state = predictor.init_state(str(tmp_path), async_loading_frames=True)
    predictor.add_new_points_or_box(state, 0, 1, points=[[20, 20]], labels=[1])
    with pytest.raises(BadInput, match="00002.jpg"):
        if kind == "mask":
            predictor.add_new_mask(state, 2, 2, np.ones((state["video_height"], state["video_width"]), bool))
        else:
            predictor.add_new_points_or_box(state, 2, 2, points=[[20, 20]], labels=[1])
    assert state["obj_ids"] == [1]
    assert [index for index, _, _ in predictor.propagate_in_video(state, max_frame_num_to_track=1)] == [0, 1]


def test_frames_are_numbered_not_spelled(predictor, tmp_path):
    """10.jpg comes after 9.jpg."""
    write_jpegs(tmp_path)
    (tmp_path / "00000.jpg").rename(tmp_path / "10.jpg")
    (tmp_path / "00001.jpg").rename(tmp_path / "9.jpg")
    state = predictor.init_state(str(tmp_path))
    for index, original in ((4, 1), (5, 0)):
        assert (state["images"][index] - to_model_input(frames()[original], 256)).abs().mean() < 0.05


def test_forward_then_reverse(predictor, state):
    predictor.add_new_points_or_box(state, 3, 1, **POINT)
    assert list(masks_by_frame(predictor, state)) == [3, 4, 5]
    assert list(masks_by_frame(predictor, state, reverse=True)) == [3, 2, 1, 0]
    assert list(masks_by_frame(predictor, state, start_frame_idx=3, max_frame_num_to_track=1)) == [3, 4]
    assert list(masks_by_frame(predictor, state, start_frame_idx=3, max_frame_num_to_track=1, reverse=True)) == [3, 2]
    assert list(masks_by_frame(predictor, state, start_frame_idx=0, reverse=True)) == []  # upstream: nothing to do


def test_objects_do_not_influence_each_other(predictor, jpegs):
    def run(*prompts):
        state = predictor.init_state(str(jpegs))
        for obj_id, frame, prompt in prompts:
            predictor.add_new_points_or_box(state, frame, obj_id, **prompt)
        return masks_by_frame(predictor, state, start_frame_idx=0)

    alone, together = run(("a", 0, POINT)), run(("b", 3, BOX), ("a", 0, POINT))
    assert all(torch.equal(alone[t]["a"], together[t]["a"]) for t in range(NUM_FRAMES))
    assert not torch.equal(together[5]["a"], together[5]["b"])


def test_an_object_may_join_later(predictor, state):
    """Upstream's current predictor: until its prompt is reached, a later object has no memory to be tracked with."""
    predictor.add_new_points_or_box(state, 0, 1, **POINT)
    before = masks_by_frame(predictor, state)
    _, ids, logits = predictor.add_new_points_or_box(state, 2, 2, **BOX)
    assert ids == [1, 2]
    assert torch.equal(logits[0, 0], before[2][1])  # the first object's answer on that frame, next to the new one
    after = masks_by_frame(predictor, state, start_frame_idx=2)
    assert list(after) == [2, 3, 4, 5] and list(after[2]) == [1, 2]
    assert all(torch.equal(after[t][1], before[t][1]) for t in after)


@pytest.mark.parametrize(
    "options", [{"offload_video_to_cpu": True}, {"offload_state_to_cpu": True}, {"async_loading_frames": True}]
)
def test_where_things_are_kept_changes_no_number(predictor, jpegs, state, options):
    other = predictor.init_state(str(jpegs), **options)
    for kept in (state, other):
        predictor.add_new_points_or_box(kept, 0, 1, **POINT)
    expected, got = masks_by_frame(predictor, state), masks_by_frame(predictor, other)
    assert all(torch.equal(got[t][1], expected[t][1]) for t in expected)


def test_clicks_add_up_unless_cleared(predictor, state):
    def click(obj_id, *calls):
        for call in calls:
            answer = predictor.add_new_points_or_box(state, 0, obj_id, **call)
        return answer[2][-1]

    first, second = {"points": [[18, 30]], "labels": [1]}, {"points": [[60, 10]], "labels": [0]}
    click(1, first, second | {"clear_old_points": False})
    click(2, first, second)
    assert state.objects[1].point_inputs[0].labels.tolist() == [[1, 0]]
    assert state.objects[2].point_inputs[0].labels.tolist() == [[0]]


def test_points_in_fractions_of_the_image(predictor, state):
    in_pixels = predictor.add_new_points_or_box(state, 0, 1, points=[[24, 30]], labels=[1])[2]
    in_fractions = predictor.add_new_points_or_box(
        state, 0, 2, points=[[0.25, 0.5]], labels=[1], normalize_coords=False
    )
    assert torch.equal(in_pixels[0], in_fractions[2][1])


def test_padding_and_boxes_as_upstream_takes_them(predictor, state):
    def answer(**prompt):
        predictor.reset_state(state)
        return predictor.add_new_points_or_box(state, 0, 1, **prompt)[2]

    padded = answer(points=[[18, 30], [-1, -1]], labels=[1, -1])
    assert torch.equal(padded, answer(points=[[18, 30], [5, 5]], labels=[1, -1]))
    box = np.array(BOX["box"])
    for shape in ((2, 2), (1, 4), (1, 1, 4)):
        empty = {"points": np.zeros((0, 2)), "labels": np.zeros(0)}
        assert torch.equal(answer(box=box.reshape(shape), **empty), answer(**BOX))


def test_mask_prompt_of_the_video_s_size(predictor, state):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[20:40, 10:30] = True
    logits = predictor.add_new_mask(state, 0, 1, mask)[2][0, 0]
    assert ((logits > 0).numpy() == mask).mean() > 0.98
    assert len(masks_by_frame(predictor, state)) == NUM_FRAMES


def test_clear_prompts_in_one_frame(predictor, state):
    for frame in (0, 3):
        predictor.add_new_points_or_box(state, frame, 1, **POINT)
    masks_by_frame(predictor, state)
    frame, ids, logits = predictor.clear_all_prompts_in_frame(state, 3, 1)
    assert (frame, ids, logits.shape) == (3, [1], (1, 1, HEIGHT, WIDTH))
    assert list(state.objects[1].point_inputs) == list(state.objects[1].prompted) == [0]
    assert predictor.clear_all_prompts_in_frame(state, 0, 1, need_output=False) is None
    with pytest.raises(RuntimeError, match="object id 1"):
        masks_by_frame(predictor, state)


def test_remove_object(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **POINT)
    predictor.add_new_points_or_box(state, 2, 2, **BOX)
    before = masks_by_frame(predictor, state, start_frame_idx=2)
    ids, updated = predictor.remove_object(state, 2)
    assert ids == [1]
    assert [index for index, _ in updated] == [2] and torch.equal(updated[0][1][0, 0], before[2][1])
    assert all(
        torch.equal(masks[1], before[t][1]) for t, masks in masks_by_frame(predictor, state, start_frame_idx=2).items()
    )
    assert predictor.remove_object(state, "never seen") == ([1], [])
    assert predictor.remove_object(state, 1) == ([], [])


def test_reset_forgets_objects_and_keeps_the_video(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **POINT)
    first = masks_by_frame(predictor, state)
    predictor.reset_state(state)
    assert state["obj_ids"] == []
    with pytest.raises(RuntimeError, match="add inputs first"):
        next(predictor.propagate_in_video(state))
    predictor.add_new_points_or_box(state, 0, 1, **POINT)
    again = masks_by_frame(predictor, state)
    assert all(torch.equal(again[t][1], first[t][1]) for t in first)


def test_non_overlap_gives_each_pixel_to_one_object(jpegs):
    answers = []
    for non_overlap in (False, True):
        predictor = nano_predictor(hydra_overrides_extra=[f"++model.non_overlap_masks={str(non_overlap).lower()}"])
        state = predictor.init_state(str(jpegs))
        predictor.add_new_points_or_box(state, 0, 1, **POINT)
        predictor.add_new_points_or_box(state, 0, 2, **BOX)
        answers.append(masks_by_frame(predictor, state))
    free, exclusive = answers
    stacked = [torch.stack(list(answer[4].values())) for answer in (free, exclusive)]  # (2, H, W)
    assert ((stacked[0] > 0).sum(dim=0) == 2).any(), "the objects must meet for this test to mean anything"
    assert ((stacked[1] > 0).sum(dim=0) <= 1).all()
    assert torch.equal(stacked[0].max(dim=0).values, stacked[1].max(dim=0).values)


def test_prompts_may_drop_the_memories_around_them(predictor, state, monkeypatch):
    """Upstream's `clear_non_cond_mem_around_input` calls a method that does not exist; here it works."""
    monkeypatch.setattr(predictor, "clear_non_cond_mem_around_input", True)
    predictor.add_new_points_or_box(state, 0, 1, **POINT)
    masks_by_frame(predictor, state)
    predictor.add_new_points_or_box(state, 5, 1, **POINT)
    predictor.propagate_in_video_preflight(state)
    assert not state.objects[1].recent


def test_propagation_may_stop_and_go_on(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **POINT)
    whole = masks_by_frame(predictor, state)
    parts = masks_by_frame(predictor, state, start_frame_idx=0, max_frame_num_to_track=2)
    parts |= masks_by_frame(predictor, state, start_frame_idx=3)
    assert all(torch.equal(parts[t][1], whole[t][1]) for t in whole)


def test_from_pretrained_needs_no_network_when_the_file_is_there(tmp_path, monkeypatch, jpegs):
    from sam2 import build_sam
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    saved = nano_predictor()
    path = tmp_path / "nano.pt"
    torch.save({"model": saved.state_dict()}, path)
    monkeypatch.setattr(build_sam, "download_weights", lambda model_id: path)
    loaded = SAM2VideoPredictor.from_pretrained("facebook/sam2.1-hiera-nano", device="cpu")
    assert isinstance(loaded, SAM2VideoPredictor)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), saved.state_dict().values(), strict=True)
    )
