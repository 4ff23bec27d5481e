"""Tracks that survive: a new tracker goes on with what was saved, and a file that does not fit is refused by name."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_stream import CONFIG, PERIOD_NS, images, small_model

import sam2
from sam2 import saved_objects
from sam2.memory_store import MemoryStore

SPATIAL = torch.ones(1, CONFIG.grid_size**2, CONFIG.memory_dim, dtype=torch.bfloat16)  # of one memory
NO_MEMORY = {
    "0.spatial": torch.zeros(0, CONFIG.grid_size**2, CONFIG.memory_dim, dtype=torch.bfloat16),
    "0.pointers": torch.zeros(0, CONFIG.d_model),
}
ONE_NAN = torch.zeros(2, CONFIG.d_model).index_fill(1, torch.tensor(5), torch.nan)  # in each of two pointers


def frame(n):
    return sam2.Frame(images()[n], (n + 1) * PERIOD_NS)


def prompt(name, xy=(20, 20), **more):
    return sam2.Prompt(name, points_xy=[xy], labels=[1], **more)


select = sam2.model.SAM2.select


def not_a_number(answer):
    return answer._replace(low_res_logits=answer.low_res_logits * torch.nan)


def used(limits=None):
    """A tracker with two prompted objects."""
    tracker = sam2.Tracker(small_model(), limits=limits, sticky_corrections=True)
    tracker.step(frame(0), [prompt("a", class_name="cup"), prompt("b", (60, 30))])
    tracker.step(frame(1), [prompt("a", (24, 20))])
    return tracker


def test_a_restored_object_is_tracked_as_one_that_remembers_its_prompts_alone(tmp_path):
    before = used()
    assert before.save(tmp_path / "x.safetensors") == ["a", "b"]
    after = sam2.Tracker(small_model())
    assert after.restore(tmp_path / "x.safetensors") == after.object_ids == ["a", "b"]
    got = after.step(frame(2))
    # The same two memories in a tracker that never stopped, its recent ones taken away.
    for obj in before._objects.values():
        obj.bank._recent.clear()
    expected = before.step(frame(2))
    assert [(t.object_id, t.class_name) for t in got] == [(t.object_id, t.class_name) for t in expected]
    # "b" was prompted a frame earlier than it is restored to; "a" is the same to the last pointer's age.
    assert np.allclose(got[0].low_res_logits, expected[0].low_res_logits, atol=1e-4)
    fresh = sam2.Tracker(small_model()).step(frame(2), [prompt("a")])[0]
    assert not np.allclose(got[0].low_res_logits, fresh.low_res_logits, atol=1e-2)  # it is the memory that says it


@pytest.mark.parametrize("at_call", [1, 2])
def test_a_device_that_fails_half_way_restores_nothing(at_call, tmp_path, monkeypatch):
    used().save(tmp_path / "x")
    after = sam2.Tracker(small_model(), limits=sam2.Limits(max_objects=2))
    write, calls = MemoryStore.write_slots, []

    def fail(self, *arguments):
        calls.append(arguments)
        if len(calls) == at_call:
            raise torch.OutOfMemoryError("CUDA out of memory")
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "write_slots", fail)
        with pytest.raises(sam2.OutOfMemory):
            after.restore(tmp_path / "x")
    assert after.object_ids == []
    assert after.restore(tmp_path / "x") == ["a", "b"]  # its rows and labels are free again
    assert [track.label for track in after.step(frame(2))] == [1, 2]


def test_a_restored_object_takes_late_prompts_and_forgets_nothing_by_them(tmp_path):
    used().save(tmp_path / "x", ["a"])
    after = sam2.Tracker(small_model())
    for n in range(3):
        after.step(frame(n))
    after.restore(tmp_path / "x")
    after.step(frame(3))
    late = prompt("a", stamp_ns=frame(1).stamp_ns)
    (track,) = after.step(frame(4), [late])
    assert track.state is sam2.State.VISIBLE and len(after._objects["a"].bank.prompted_slots) == 2
    after.remove("a")
    assert after.restore(tmp_path / "x") == ["a"]


def test_an_object_that_is_not_there_is_occluded(tmp_path):
    used().save(tmp_path / "x", ["a"])
    after = sam2.Tracker(small_model(presence=-100.0))
    after.restore(tmp_path / "x")
    (track,) = after.step(frame(0))
    assert track.state is sam2.State.OCCLUDED and track.frames_since_seen == 1


@pytest.mark.parametrize("pause_s", [None, 100])
def test_restored_it_is_unseen_since_the_next_image(pause_s, tmp_path):
    """Not since 1970, or the last image before a pause: it would be lost at once."""
    used().save(tmp_path / "x", ["a"])
    after = sam2.Tracker(small_model(presence=-100.0), limits=sam2.Limits(lost_after_s=5.0))
    start_ns = 1_700_000_000 * 10**9
    if pause_s:
        after.step(sam2.Frame(frame(0).rgb, start_ns - pause_s * 10**9))
    after.restore(tmp_path / "x")
    states = []
    for seconds in (0, 4, 6):
        (track,) = after.step(sam2.Frame(frame(0).rgb, start_ns + seconds * 10**9))
        assert track.last_seen_ns == start_ns
        states.append(track.state)
    assert states == [sam2.State.OCCLUDED, sam2.State.OCCLUDED, sam2.State.LOST]


@pytest.mark.parametrize("frames_before", [0, 3, 60])
def test_a_restored_object_that_starts_over_remembers_nothing_of_what_it_was(tmp_path, frames_before):
    used().save(tmp_path / "x", ["a"])
    restored, fresh = sam2.Tracker(small_model()), sam2.Tracker(small_model())
    for tracker in (restored, fresh):
        for n in range(frames_before):
            tracker.step(sam2.Frame(frame(n % 3).rgb, frame(n).stamp_ns if n < 3 else (n + 1) * PERIOD_NS))
    restored.restore(tmp_path / "x")
    anew = prompt("a", (60, 30), mode=sam2.PromptMode.REPLACE)
    for n, given in ((0, [anew]), (1, []), (2, [])):
        shot = sam2.Frame(frame(n).rgb, (frames_before + n + 1) * PERIOD_NS)
        (track,), (expected,) = restored.step(shot, given), fresh.step(shot, given)
        assert np.array_equal(track.low_res_logits, expected.low_res_logits)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(sam2.BadInput, match="cannot be written"):
        used().save(path)


def test_fewer_places_keep_the_first_and_the_newest(tmp_path):
    used().save(tmp_path / "x", ["a"])
    whole = saved_objects.read_objects(tmp_path / "x", small_model(), sam2.Limits())[0]
    assert len(whole.pointers) == 2
    for places in (1, 2, 3):
        tracker = sam2.Tracker(small_model(), limits=sam2.Limits(prompted_memories=places))
        tracker.restore(tmp_path / "x")
        obj = tracker._objects["a"]
        kept = tracker._network.store.read_slots(obj.row, obj.bank.prompted_slots)[1]
        assert torch.equal(kept, whole.pointers[-places:])


def rewritten(path, about=None, tensors=None):
    """The file again with other JSON or tensors."""
    with safe_open(path, framework="pt") as file:
        old = json.loads(file.metadata()["about"])
    made = load_file(path) | (tensors or {})
    save_file(made, path, metadata={"about": json.dumps(old | (about or {}))})


@pytest.mark.parametrize(
    ("about", "tensors", "error", "match"),
    [
        ({"model": "sam2.1_hiera_tiny"}, None, sam2.BadInput, "made with model 'sam2.1_hiera_tiny'"),
        ({"weights": "0" * 64}, None, sam2.BadInput, "made with weights '000"),
        ({"image_size": 1024}, None, sam2.BadInput, "image_size 1024"),
        ({"format": "something else"}, None, sam2.BadInput, "expected format"),
        ({"saved_at": 0}, None, sam2.Stale, "expected at most 60 s"),
        ({"objects": [{"object_id": "a", "class_name": ""}] * 2}, None, sam2.BadInput, "different ids"),
        ({"objects": [{"object_id": "a" * 129, "class_name": ""}]}, None, sam2.BadInput, "1 to 128 characters"),
        ({"objects": [{"object_id": "c\ud800p", "class_name": ""}]}, None, sam2.BadInput, "1 to 128 characters"),
        ({"objects": [{"object_id": "a", "class_name": "k" * 129}]}, None, sam2.BadInput, "at most 128 characters"),
        ({"objects": [{"object_id": "a", "class_name": "\udcfc"}]}, None, sam2.BadInput, "at most 128 characters"),
        ({"saved_at": float("nan")}, None, sam2.Stale, "expected at most 60 s"),
        ({"saved_at": 1e12}, None, sam2.Stale, "expected at most 60 s"),
        ({"objects": 7}, None, sam2.BadInput, "damaged"),
        (None, {"0.spatial": torch.tensor(1.0)}, sam2.BadInput, "damaged"),
        (None, {"0.pointers": ONE_NAN}, sam2.BadInput, "damaged"),
        (None, {"0.pointers": torch.zeros(2, 3)}, sam2.BadInput, "damaged"),
        (None, {"0.pointers": torch.zeros(1, CONFIG.d_model)}, sam2.BadInput, "memory 0 is damaged"),
        (None, {"0.pointers": torch.zeros(2, CONFIG.d_model).half()}, sam2.BadInput, "memory 0 is damaged"),
        (None, {"1.spatial": SPATIAL * torch.inf}, sam2.BadInput, "memory 1 is damaged"),
        (None, {"0.spatial": torch.zeros(0, 16, 16, dtype=torch.bfloat16)}, sam2.BadInput, "damaged"),
        (None, NO_MEMORY, sam2.BadInput, "memory 0 is damaged"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name_and_changes_nothing(tmp_path, about, tensors, error, match):
    path = tmp_path / "x.safetensors"
    used().save(path)
    rewritten(path, about, tensors)
    after = sam2.Tracker(small_model())
    with pytest.raises(error, match=match):
        after.restore(path, max_age_s=60.0)
    assert after.object_ids == []


def test_of_a_file_no_more_is_read_than_can_be_meant(tmp_path, monkeypatch):
    path, cells = tmp_path / "x.safetensors", CONFIG.grid_size**2
    used().save(path, ["a"])
    many = {
        "0.spatial": torch.ones(64, cells, CONFIG.memory_dim, dtype=torch.bfloat16),
        "0.pointers": torch.ones(64, CONFIG.d_model),
    }
    rewritten(path, tensors=many)
    (one,) = saved_objects.read_objects(path, small_model(), sam2.Limits(prompted_memories=3))
    assert len(one.spatial) == len(one.pointers) == 3 and one.spatial.untyped_storage().nbytes() == one.spatial.nbytes
    more = {name: torch.cat((tensor, tensor[:1])) for name, tensor in many.items()}
    rewritten(path, tensors=more)
    assert len(saved_objects.read_objects(path, small_model(), sam2.Limits(prompted_memories=65))[0].spatial) == 65
    said = "memory 0 is of 65 frames, expected at most 64; raise sam2.Limits.prompted_memories"
    with pytest.raises(sam2.BadInput, match=said):  # a sparse one of gigabytes is a page on disk
        saved_objects.read_objects(path, small_model(), sam2.Limits())
    path = tmp_path / "two.safetensors"
    used().save(path)
    monkeypatch.setattr(saved_objects, "_memories", None)  # is not asked for
    with pytest.raises(sam2.LimitReached, match="at most 1 objects, .* has 2"):
        saved_objects.read_objects(path, small_model(), sam2.Limits(max_objects=1))


def test_a_file_that_gets_shorter_while_it_is_read_is_damaged(tmp_path, monkeypatch):
    """Mapped, it ended the process (SIGBUS), this one too."""
    path, read = tmp_path / "x.safetensors", saved_objects._memories
    used().save(path, ["a"])

    def cut_off(*arguments):
        with path.open("r+b") as file:
            file.truncate()
        return read(*arguments)

    monkeypatch.setattr(saved_objects, "_memories", cut_off)
    with pytest.raises(sam2.BadInput, match="damaged"):
        sam2.Tracker(small_model()).restore(path)


def test_damaged_and_missing_files_ids_and_limits(tmp_path):
    path = tmp_path / "x.safetensors"
    tracker = used(sam2.Limits(max_objects=3))
    tracker.save(path)
    with pytest.raises(sam2.BadInput, match="a, b is tracked already"):
        tracker.restore(path)
    with pytest.raises(sam2.UnknownObject, match="no c in it; it has a, b"):
        tracker.restore(path, ["c"])
    full = sam2.Tracker(small_model(), limits=sam2.Limits(max_objects=2))
    full.step(frame(0), [prompt("c")])
    with pytest.raises(sam2.LimitReached):
        full.restore(path)
    assert full.object_ids == ["c"] and full.restore(path, ["b"]) == ["b"]
    path.write_bytes(path.read_bytes()[:-100])
    for broken in (path, tmp_path / "none"):
        with pytest.raises(sam2.BadInput, match="saved objects"):
            sam2.Tracker(small_model()).restore(broken)
    with pytest.raises(sam2.UnknownObject):
        tracker.save(path, ["nobody"])
    with pytest.raises(sam2.BadInput, match="there is none"):
        sam2.Tracker(small_model()).save(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(sam2.BadInput, match="cannot be written"):
        tracker.save(tmp_path / "file" / "x")


def test_of_many_memories_the_first_and_the_newest_are_read(tmp_path):
    path = tmp_path / "x.safetensors"
    used().save(path, ["a"])
    numbered = (torch.arange(5.0)[:, None, None] * SPATIAL).bfloat16()
    rewritten(path, tensors={"0.spatial": numbered, "0.pointers": torch.arange(5.0)[:, None].repeat(1, CONFIG.d_model)})
    for places, expected in ((1, [4]), (2, [0, 4]), (3, [0, 3, 4]), (5, [0, 1, 2, 3, 4])):
        (one,) = saved_objects.read_objects(path, small_model(), sam2.Limits(prompted_memories=places))
        assert one.spatial[:, 0, 0].tolist() == one.pointers[:, 0].tolist() == expected


def test_what_is_named_twice_is_saved_once_and_what_was_never_answered_is_not(tmp_path, monkeypatch):
    tracker = used()
    assert tracker.save(tmp_path / "x", ["b", "a", "b"]) == ["b", "a"]
    assert sam2.Tracker(small_model()).restore(tmp_path / "x", ["a", "b"]) == ["b", "a"]
    with monkeypatch.context() as patch:
        patch.setattr(
            sam2.model.SAM2, "select", lambda self, *args, **kwargs: not_a_number(select(self, *args, **kwargs))
        )
        tracker.step(frame(2), [prompt("c", (30, 30))])
    assert tracker.object_ids == ["a", "b", "c"] and tracker.save(tmp_path / "x") == ["a", "b"]
    with pytest.raises(sam2.BadInput, match="there is none"):
        tracker.save(tmp_path / "x", ["c"])


def test_folders_are_made_and_an_age_that_is_no_number_is_refused(tmp_path):
    path = tmp_path / "kitchen" / "today" / "x"
    used().save(path)
    for age in (-1.0, float("nan")):
        with pytest.raises(sam2.BadInput, match="max_age_s: expected seconds"):
            sam2.Tracker(small_model()).restore(path, max_age_s=age)
    assert [one.name for one in path.parent.iterdir()] == ["x"]
