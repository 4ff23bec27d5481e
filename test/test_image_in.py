"""Every encoding is converted exactly or refused by name; no header, however wrong, gets further than a sentence."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import image_like
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_ros import image_in
from sam2_ros.refused import Refused

H, W = 18, 24
MAX_PIXELS = 10_000_000
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (255, 255, 255), (10, 10, 10)]
REFUSED_ENCODINGS = [
    *(f"{bits}{kind}C{n}" for bits, kind in [("8", "S"), ("16", "U"), ("16", "S"), ("32", "S")] for n in range(1, 5)),
    *(f"{bits}FC{n}" for bits in ("32", "64") for n in range(1, 5)),
    *("8UC2", "8UC3", "8UC4", "foo", "", "RGB8", "rgb8 "),
]


def convert(msg):
    image_in.check(msg, MAX_PIXELS)
    return image_in.to_rgb(msg)


def refusal(msg, max_pixels=MAX_PIXELS):
    with pytest.raises(Refused) as caught:
        image_in.check(msg, max_pixels)
    return caught.value


def random_rgb(seed=0, height=H, width=W):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def in_channels(rgb, encoding):
    """(H, W, C) as `encoding` orders the channels; alpha is 7."""
    order = {"r": rgb[..., 0], "g": rgb[..., 1], "b": rgb[..., 2], "a": np.full_like(rgb[..., 0], 7)}
    return np.stack([order[letter] for letter in encoding.rstrip("0123456789")], axis=-1)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
@given(padding=st.integers(0, 7), seed=st.integers(0, 99))
@settings(max_examples=12)
def test_colour_is_exact_whatever_the_padding(encoding, padding, seed):
    rgb = random_rgb(seed)
    assert np.array_equal(convert(image_like(in_channels(rgb, encoding), encoding, padding)), rgb)


@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bgra16"])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_sixteen_bits_are_scaled_and_rounded(encoding, padding):
    wide = np.random.default_rng(1).integers(0, 65536, (H, W, 3), dtype=np.uint16)
    got = convert(image_like(in_channels(wide, encoding), encoding, padding))
    assert np.array_equal(got, np.round(wide / 257))


@pytest.mark.parametrize("encoding, dtype", [("mono8", np.uint8), ("8UC1", np.uint8), ("mono16", np.uint16)])
@pytest.mark.parametrize("padding", [0, 1])
def test_grey_goes_to_all_three_channels(encoding, dtype, padding):
    grey = np.random.default_rng(2).integers(0, np.iinfo(dtype).max + 1, (H, W), dtype=dtype)
    expected = np.round(grey / (257 if dtype is np.uint16 else 1))
    assert np.array_equal(convert(image_like(grey, encoding, padding)), np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_mosaic_of_one_colour_gives_that_colour(pattern, bits, colour):
    of_letter = dict(zip("rgb", colour, strict=True))
    tile = np.array([of_letter[letter] for letter in pattern]).reshape(2, 2)
    mosaic = np.tile(tile, (H // 2, W // 2)).astype(np.uint8 if bits == 8 else np.uint16)
    mosaic = mosaic * (257 if bits == 16 else 1)
    assert np.array_equal(convert(image_like(mosaic, f"bayer_{pattern}{bits}")), np.full((H, W, 3), colour))


def ycbcr(colour):
    """BT.601, limited range (ITU-R BT.601, 2.5.3)."""
    r, g, b = (value / 255 for value in colour)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    return [round(v) for v in (16 + 219 * luma, 128 + 224 * (b - luma) / 1.772, 128 + 224 * (r - luma) / 1.402)]


def yuv_message(encoding, colour, padding=0):
    y, u, v = ycbcr(colour)
    if encoding in ("uyvy", "yuv422", "yuyv", "yuv422_yuy2"):
        pair = [u, y, v, y] if encoding in ("uyvy", "yuv422") else [y, u, y, v]
        return image_like(np.tile(np.array(pair, np.uint8), (H, W // 2)).reshape(H, W, 2), encoding, padding)
    luma = np.full((H, W), y, np.uint8)
    if encoding == "nv24":  # chroma rows are twice as long, and so is their step
        chroma = np.tile(np.array([u, v], np.uint8), (H, W)).reshape(2 * H, W)
        return image_like(np.concatenate([luma, chroma]), encoding, 0, planes=3)
    pair = [u, v] if encoding == "nv12" else [v, u]
    chroma = np.tile(np.array(pair, np.uint8), (H // 2, W // 2))
    return image_like(np.concatenate([luma, chroma]), encoding, padding, planes=1.5)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21", "nv24"])
def test_yuv_gives_the_colour_back_to_two_levels(encoding, colour, padding):
    got = convert(yuv_message(encoding, colour, padding))
    # Rounding Y, Cb and Cr to integers costs at most 2 levels; swapped chroma or full range costs more than 15.
    assert got.shape == (H, W, 3)
    assert np.abs(got.astype(int) - colour).max() <= 2


def test_nv24_keeps_the_chroma_of_each_pixel():
    left, right = yuv_message("nv24", (255, 0, 0)), yuv_message("nv24", (0, 0, 255))
    halves = [np.array(m.data, np.uint8).reshape(3 * H, W) for m in (left, right)]
    luma = np.concatenate([halves[0][:H, : W // 2], halves[1][:H, W // 2 :]], axis=1)
    chroma = [half[H:].reshape(H, 2 * W) for half in halves]
    chroma = np.concatenate([chroma[0][:, :W], chroma[1][:, W:]], axis=1).reshape(2 * H, W)
    got = convert(image_like(np.concatenate([luma, chroma]), "nv24", planes=3))
    assert np.abs(got[:, : W // 2].astype(int) - (255, 0, 0)).max() <= 2
    assert np.abs(got[:, W // 2 :].astype(int) - (0, 0, 255)).max() <= 2


def test_rgb8_is_not_copied():
    msg = image_like(random_rgb(), "rgb8", 5)
    assert np.shares_memory(convert(msg), np.frombuffer(msg.data, np.uint8))


@pytest.mark.parametrize("encoding", REFUSED_ENCODINGS)
def test_other_encodings_are_refused_and_the_sentence_lists_the_good_ones(encoding):
    error = refusal(image_like(np.full((H, W), np.nan, np.float32), encoding))
    assert error.reason == "encoding"
    assert repr(encoding) in str(error) and all(name in str(error) for name in image_in.SUPPORTED_ENCODINGS)


@pytest.mark.parametrize(
    "change, reason",
    [
        (dict(width=0), "empty_image"),
        (dict(height=0), "empty_image"),
        (dict(width=1, height=1), "too_small"),
        (dict(width=1, height=4000), "too_small"),
        (dict(step=W * 3 - 1), "bad_step"),
        (dict(step=0), "bad_step"),
        (dict(step=W * 3 + 1), "short_data"),
        (dict(height=H + 1), "short_data"),
        (dict(height=H - 1), "size_mismatch"),
        (dict(data=b""), "short_data"),
        (dict(width=65_000, height=65_000), "too_large"),
        (dict(width=2**32 - 1, height=2**32 - 1), "too_large"),
    ],
)
def test_headers_that_lie_are_refused_by_name(change, reason):
    msg = image_like(random_rgb(), "rgb8")
    assert refusal(SimpleNamespace(**{**vars(msg), **change})).reason == reason


@pytest.mark.parametrize("encoding, change", [("uyvy", dict(width=W - 1)), ("nv12", dict(height=H - 1))])
def test_subsampled_chroma_needs_even_sides(encoding, change):
    msg = yuv_message(encoding, COLOURS[0])
    assert refusal(SimpleNamespace(**{**vars(msg), **change})).reason == "bad_size"


def test_big_endian_matters_only_for_wide_numbers():
    msg = image_like(random_rgb(), "rgb8")
    msg.is_bigendian = 1
    assert np.array_equal(convert(msg), random_rgb())
    msg = image_like(random_rgb().astype(np.uint16), "rgb16")
    msg.is_bigendian = 1
    assert refusal(msg).reason == "bigendian"


def test_a_huge_declared_image_costs_no_memory():
    msg = SimpleNamespace(
        width=65_000, height=65_000, encoding="rgb8", is_bigendian=0, step=195_000, data=b"0123456789"
    )
    tracemalloc.start()
    refusal(msg)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


FIELD = st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))


@given(
    width=FIELD, height=FIELD, step=FIELD, size=st.integers(0, 4000), bigendian=st.integers(0, 255),
    encoding=st.sampled_from([*image_in.SUPPORTED_ENCODINGS, *REFUSED_ENCODINGS]),
)  # fmt: skip
@settings(max_examples=300)
def test_any_header_is_converted_or_refused(width, height, step, size, bigendian, encoding):
    msg = SimpleNamespace(
        width=width, height=height, step=step, data=bytes(size), is_bigendian=bigendian, encoding=encoding
    )
    try:
        image_in.check(msg, 1_000_000)
    except Refused as error:
        assert error.reason and str(error)
    else:
        assert image_in.to_rgb(msg).shape == (height, width, 3)


@pytest.mark.parametrize("encoding", image_in.SUPPORTED_ENCODINGS)
@given(half_width=st.integers(8, 20), half_height=st.integers(8, 20), padding=st.integers(0, 5))
@settings(max_examples=8)
def test_every_well_formed_image_converts(encoding, half_width, half_height, padding):
    layout = image_in._LAYOUTS[encoding]
    width, height = 2 * half_width, 2 * half_height
    step = width * layout.channels * np.dtype(layout.dtype).itemsize + padding
    data = bytes(int(step * height * layout.planes))
    msg = SimpleNamespace(width=width, height=height, step=step, data=data, is_bigendian=0, encoding=encoding)
    rgb = convert(msg)
    assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8
