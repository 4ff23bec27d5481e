"""Weights files: every container and layout that must load, and everything that must be refused in one sentence."""

import logging
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sam2 import checkpoint, weights_cache
from sam2.checkpoint import detect_config, load_model, load_weights, read_weights
from sam2.config import CONFIGS, find_config
from sam2.errors import BadCheckpoint
from sam2.hugging_face import to_hugging_face
from sam2.model import SAM2


def meta_state(name):
    with torch.device("meta"):
        return SAM2(CONFIGS[name]).state_dict()


@pytest.fixture(scope="module")
def nano():
    torch.manual_seed(0)
    return SAM2(find_config("nano"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM2_ROS_CACHE", str(tmp_path / "cache"))


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def save_pt(path, state):
    torch.save({"model": state}, path)
    return path


def save_safetensors(path, state):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


# What must load


def test_official_pt(nano, tmp_path):
    assert_same(read_weights(save_pt(tmp_path / "a.pt", nano.state_dict())), nano.state_dict())


def test_safetensors_with_official_names(nano, tmp_path):
    path = save_safetensors(tmp_path / "a.safetensors", nano.state_dict())
    assert_same(read_weights(path), nano.state_dict())


def test_half_precision_becomes_float32(nano, tmp_path):
    half = {name: tensor.half() for name, tensor in nano.state_dict().items()}
    state = read_weights(save_safetensors(tmp_path / "a.safetensors", half))
    assert all(tensor.dtype is torch.float32 for tensor in state.values())


def test_hugging_face_layout(nano, tmp_path):
    theirs = to_hugging_face(nano.state_dict())
    theirs = {name: tensor.clone() for name, tensor in theirs.items()}  # safetensors refuses shared memory
    assert_same(read_weights(save_safetensors(tmp_path / "model.safetensors", theirs)), nano.state_dict())


def test_load_weights_fills_the_model(nano, tmp_path):
    other = SAM2(find_config("nano"))
    before = list(map(id, other.parameters()))  # an optimiser may have them already
    load_weights(other, save_pt(tmp_path / "a.pt", nano.state_dict()))
    assert_same(other.state_dict(), nano.state_dict())
    assert list(map(id, other.parameters())) == before


# Which variant it is


@pytest.mark.parametrize("name", CONFIGS)
def test_variant_and_version_are_detected(name):
    assert detect_config(meta_state(name)) is CONFIGS[name]


def test_no_variant():
    assert detect_config({"weight": torch.zeros(1)}) is None


# What must be refused


def bad_file(kind, path, state):
    if kind == "missing":
        return path
    if kind == "a folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "html":
        path.write_text("\n<!DOCTYPE html><html><body>404 Not Found</body></html>")
    elif kind == "truncated pt":
        save_pt(path, state)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "truncated safetensors":
        path = path.with_suffix(".safetensors")
        save_safetensors(path, state)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(4096))
    elif kind == "not a dict":
        torch.save(torch.zeros(3), path)
    elif kind == "not tensors":
        torch.save({"model": {"weight": "heavy"}}, path)
    elif kind == "numbered tensors":
        torch.save({0: torch.zeros(3)}, path)
    elif kind in ("integers", "sparse", "complex", "meta", "terabytes"):
        odd = {"integers": torch.arange(3), "sparse": torch.eye(3).to_sparse(), "complex": torch.zeros(3) * 1j,
               "meta": torch.zeros(3, device="meta"), "terabytes": torch.zeros(1).expand(10**13)}  # fmt: skip
        torch.save({"model": {"weight": odd[kind]}}, path)
    elif kind == "nan":
        save_pt(path, state | {"no_obj_ptr": torch.full_like(state["no_obj_ptr"], torch.nan)})
    return path


@pytest.mark.parametrize(
    "kind, says",
    [
        ("missing", "found none"),
        ("a folder", "found none"),
        ("empty", "empty"),
        ("html", "web page"),
        ("truncated pt", "damaged or truncated"),
        ("truncated safetensors", "damaged or truncated"),
        ("noise", "not opened|damaged"),
        ("not a dict", "something else"),
        ("not tensors", "something else"),
        ("numbered tensors", "something else"),
        ("integers", "something else"),
        ("sparse", "something else"),
        ("complex", "something else"),
        ("meta", "something else"),
        ("terabytes", "something else"),
        ("nan", "NaN or infinity in 'no_obj_ptr'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")  # by torch 2.14, which checks them itself
def test_bad_files_are_refused_in_a_sentence(kind, says, nano, tmp_path):
    path = bad_file(kind, tmp_path / "bad.pt", nano.state_dict())
    with pytest.raises(BadCheckpoint, match=says) as refusal:
        read_weights(path)
    with pytest.raises(BadCheckpoint, match=re.escape(str(refusal.value))):
        load_model("nano", checkpoint=path, device="cpu")
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("container", ["zip", "pickle", "safetensors"])
def test_damaged_bytes_are_refused_whatever_the_parser_says(container, tmp_path):
    """Cut anywhere, or with bytes changed anywhere: loads (a weight's own bits) or is refused; nothing else leaves."""
    random = np.random.default_rng(0)
    state = {f"weight{i}": torch.ones(2, 3) for i in range(3)}
    path = tmp_path / ("a.safetensors" if container == "safetensors" else "a.pt")
    if container == "safetensors":
        save_safetensors(path, state)
    else:
        torch.save({"model": state}, path, _use_new_zipfile_serialization=container == "zip")
    whole = path.read_bytes()
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[: random.integers(1, 2 * len(whole))])
        try:
            read_weights(path)
        except BadCheckpoint:
            refused += 1
    assert refused > 75


def test_an_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.touch()

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BadCheckpoint, match="readable file, got: Permission denied"):
        read_weights(path)


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("owned"),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_malicious_pickles_do_not_run(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save({"model": Malicious()}, tmp_path / "a.pt")
    with pytest.raises(BadCheckpoint, match="wants to run code"):
        read_weights(tmp_path / "a.pt")
    assert not (tmp_path / "owned").exists()


def test_wrong_variant_names_what_it_looks_like_and_five_keys(nano, tmp_path):
    path = save_pt(tmp_path / "a.pt", nano.state_dict())
    with torch.device("meta"):
        tiny = SAM2(find_config("tiny"))
    with pytest.raises(BadCheckpoint, match="looks like sam2.1_hiera_nano") as refusal:
        load_weights(tiny, path)
    assert str(refusal.value).count(" is ") == 5 and re.search(r"and \d+ more", str(refusal.value))


@pytest.mark.parametrize("kind", ["missing", "unknown"])
def test_one_name_too_few_or_too_many_is_refused_and_leaves_the_model_as_it_was(kind, nano, tmp_path):
    """A file that fits but for one name is no better: its part would be random, or lost."""
    state = {name: tensor + 1 for name, tensor in nano.state_dict().items()}
    name = "no_obj_ptr" if kind == "missing" else "no_obj_ptr_either"
    if state.pop(name, None) is None:
        state[name] = torch.zeros(1, 3)
    before = {name: tensor.clone() for name, tensor in nano.state_dict().items()}
    path = save_pt(tmp_path / "a.pt", state)
    for load in (load_weights, lambda _, path: load_model("nano", checkpoint=path, device="cpu")):
        with pytest.raises(BadCheckpoint, match=rf"looks like sam2.1_hiera_nano: '?{name}'? is {kind}; choose") as no:
            load(nano, path)
        assert str(no.value).startswith(f"checkpoint {path}: expected sam2.1_hiera_nano, ")
    assert_same(nano.state_dict(), before)


def test_wrong_shape_leaves_the_model_as_it_was(nano, tmp_path):
    state = dict(nano.state_dict())
    state["no_obj_ptr"] = torch.zeros(1, 3)
    before = {name: tensor.clone() for name, tensor in nano.state_dict().items()}
    with pytest.raises(BadCheckpoint, match="no_obj_ptr is \\(1, 3\\)"):
        load_weights(nano, save_pt(tmp_path / "a.pt", state))
    assert_same(nano.state_dict(), before)


# Hashes and the cache


def test_unknown_hash_warns(nano, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "sam2"):
        read_weights(save_pt(tmp_path / "mine.pt", nano.state_dict()))
    assert "not an official file" in caplog.text


def test_what_ships_is_no_unknown_file_by_a_relative_path_or_as_a_link(tmp_path, caplog, monkeypatch):
    name = "sam2.1_hiera_nano.safetensors"
    linked = tmp_path / "weights"
    linked.mkdir()
    (linked / name).symlink_to(weights_cache.PACKAGED / name)
    with caplog.at_level(logging.WARNING, "sam2"):
        monkeypatch.chdir(weights_cache.PACKAGED.parent)
        read_weights(Path("weights") / name)
        monkeypatch.setattr(checkpoint, "PACKAGED", linked)
        read_weights(linked / name)
    assert "not an official file" not in caplog.text


def test_known_hash_does_not_warn(nano, tmp_path, caplog, monkeypatch):
    path = save_pt(tmp_path / "sam2.1_hiera_tiny.pt", nano.state_dict())
    monkeypatch.setitem(weights_cache.OFFICIAL_SHA256, path.name, weights_cache.sha256(path))
    with caplog.at_level(logging.WARNING, "sam2"):
        read_weights(path)
    assert caplog.text == ""


def test_official_name_with_another_hash_is_refused_before_opening(nano, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_open", lambda path: pytest.fail("was opened"))
    with pytest.raises(BadCheckpoint, match="SHA-256"):
        read_weights(save_pt(tmp_path / "sam2.1_hiera_tiny.pt", nano.state_dict()))


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("mine.pt", "`sam2_ros weights tiny` fetches official ones"),
        ("sam2.1_hiera_nano.safetensors", "this package's is"),
    ],
)
def test_a_missing_file_is_told_with_where_there_is_one(name, cure, tmp_path):
    with pytest.raises(BadCheckpoint, match=f"found none; {cure}") as refusal:
        read_weights(tmp_path / name)
    assert (str(weights_cache.PACKAGED / name) in str(refusal.value)) == cure.startswith("this")


def test_missing_official_weights_name_the_command():
    with pytest.raises(BadCheckpoint, match="sam2_ros weights tiny"):
        weights_cache.find_weights(find_config("tiny"))
    with pytest.raises(BadCheckpoint, match="sam2_ros weights sam2_hiera_large"):
        weights_cache.find_weights(find_config("sam2_hiera_large"))
