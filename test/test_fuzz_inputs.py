"""What an operator or a stranger can hand in, at random: weights files, parameter sets, clicks. Taken or refused by
name; nothing else ever comes out. Images and prompt messages are fuzzed in the files of their own."""

import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

import sam2
from sam2.checkpoint import read_weights
from sam2.checks import check_places
from sam2_ros import prompt_in
from sam2_ros.params import FIELDS, refusal, settings_of

SHAPES = st.lists(st.one_of(st.integers(-2, 4), st.integers(2**31, 2**64)), max_size=4)
TENSORS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "F8_E4M3", "BOOL", "f32", ""]),
        "shape": SHAPES,
        "data_offsets": st.lists(st.integers(-1, 200), min_size=1, max_size=3),
    }
)
HEADERS = st.dictionaries(
    st.text(max_size=6), st.one_of(TENSORS, st.none(), st.integers(), st.text(max_size=3)), max_size=4
)


@given(header=HEADERS, length=st.one_of(st.none(), st.integers(0, 2**64 - 1)), data=st.binary(max_size=200))
@settings(max_examples=150)
def test_any_header_of_a_weights_file_is_read_or_refused(header, length, data, tmp_path_factory):
    """A safetensors file of our own making: names, types, shapes, offsets and the header's length all lie at will."""
    text = json.dumps(header).encode()
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    try:
        state = read_weights(path)
    except sam2.BadCheckpoint as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert all(np.isfinite(tensor.numpy()).all() for tensor in state.values())


@given(data=st.binary(min_size=1, max_size=300), name=st.sampled_from(["fuzz.pt", "fuzz.safetensors"]))
@settings(max_examples=150)
def test_any_bytes_are_no_weights(data, name, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    with pytest.raises(sam2.BadCheckpoint):
        read_weights(path)


def values(row):
    """Of a parameter's type, in and out of its range."""
    if row.type is bool:
        return st.booleans()
    if row.type is str:
        return st.one_of(st.sampled_from(row.metadata["choices"] or [row.default]), st.text(max_size=5))
    if row.type is int:
        return st.one_of(st.integers(*row.metadata["span"]), st.integers(-(2**63), 2**63 - 1))
    return st.one_of(st.floats(*row.metadata["span"]), st.floats())


NUMBERS = {name: row for name, row in FIELDS.items() if row.type in (int, float, bool)}


@given(given=st.fixed_dictionaries({}, optional={name: values(row) for name, row in NUMBERS.items()}))
@settings(max_examples=300)
def test_what_the_parameters_let_pass_the_library_takes(given):
    """Every set of values is refused by the table, or the limits made of it are limits."""
    accepted = {name: value for name, value in given.items() if not refusal(name, value)}
    for name in set(given) - set(accepted):
        assert name in refusal(name, given[name])
    ours = settings_of(accepted)
    shared = set(sam2.Limits.__dataclass_fields__) & set(FIELDS)
    limits = sam2.Limits(**{name: getattr(ours, name) for name in shared})
    assert {"max_objects", "history_frames", "lost_after_s"} <= shared and limits.max_objects == ours.max_objects


@given(
    x=st.floats(),
    y=st.floats(),
    stamp=st.integers(-(2**31), 2**62),
    size_hw=st.tuples(st.integers(16, 99), st.integers(16, 99)),
)
@settings(max_examples=300)
def test_any_click_is_inside_the_image_or_refused(x, y, stamp, size_hw):
    try:
        prompt = prompt_in.from_click(SimpleNamespace(x=x, y=y, z=0.0), stamp)
        check_places(prompt, size_hw)
    except sam2.BadInput as error:
        assert str(error)
    else:
        x, y = prompt.points_xy[0]  # as float32, in which a little less than nothing is nothing
        assert 0 <= x < size_hw[1] and 0 <= y < size_hw[0]
