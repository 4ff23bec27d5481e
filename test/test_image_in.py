"""Every encoding is converted exactly or refused by name; no header, however wrong, gets further than a sentence."""

import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from fakes import image_like
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2_ros import image_in
from sam2_ros.image_in import Refused

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
@settings(max_examples=12, deadline=None)
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
@settings(max_examples=300, deadline=None)
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
@settings(max_examples=8, deadline=None)
def test_every_well_formed_image_converts(encoding, half_width, half_height, padding):
    layout = image_in._LAYOUTS[encoding]
    width, height = 2 * half_width, 2 * half_height
    step = width * layout.channels * np.dtype(layout.dtype).itemsize + padding
    data = bytes(int(step * height * layout.planes))
    msg = SimpleNamespace(width=width, height=height, step=step, data=data, is_bigendian=0, encoding=encoding)
    rgb = convert(msg)
    assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8


def compressed(rgb, extension, text):
    ok, data = cv2.imencode(extension, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert ok
    return SimpleNamespace(format=text, data=data.tobytes())


def smooth_rgb():
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 4, y * 5, 255 - x * 3], axis=-1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("text", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8", "PNG"])
def test_png_is_exact(text):
    assert np.array_equal(convert(compressed(random_rgb(), ".png", text)), random_rgb())


@pytest.mark.parametrize("text", ["jpeg", "jpg", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed bgr8"])
def test_jpeg_has_its_channels_in_place(text):
    got = convert(compressed(smooth_rgb(), ".jpg", text))
    assert np.abs(got.astype(int) - smooth_rgb()).mean() < 4
    assert np.abs(got[..., ::-1].astype(int) - smooth_rgb()).mean() > 40  # the comparison sees swapped channels


def test_an_encoder_that_was_handed_rgb_is_undone():
    swapped = compressed(smooth_rgb()[..., ::-1], ".png", "rgb8; png compressed rgb8")
    assert np.array_equal(convert(swapped), smooth_rgb())


@pytest.mark.parametrize("change", [lambda d: d + bytes(3000), lambda d: d[:2] + b"\xff" * 5 + d[2:]])
def test_a_jpeg_may_be_padded_and_have_fill_bytes(change):
    msg = compressed(smooth_rgb(), ".jpg", "mjpeg")
    plain, msg.data = convert(msg), change(msg.data)
    assert np.array_equal(convert(msg), plain)


@pytest.mark.parametrize("text", ["16UC1; png compressed ", "32FC1; png compressed "])
def test_compressed_measurements_are_no_picture(text):
    assert refusal(compressed(smooth_rgb(), ".png", text)).reason == "encoding"


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("keep", [1, 8, 100, 0.5, -1, -2, -13])
def test_cut_files_are_refused(extension, keep):
    msg = compressed(smooth_rgb(), extension, "jpeg" if extension == ".jpg" else "png")
    msg.data = msg.data[: int(len(msg.data) * keep) if keep == 0.5 else keep]
    assert refusal(msg).reason == "decode"


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_damaged_files_are_decoded_or_refused(extension, seed):
    msg = compressed(smooth_rgb(), extension, "jpeg png")
    random = np.random.default_rng(seed)
    data = bytearray(msg.data)
    for at in random.integers(0, len(data), 20):
        data[at] = random.integers(0, 256)
    msg.data = bytes(data)
    try:
        rgb = convert(msg)
    except Refused as error:
        assert error.reason in ("decode", "too_large", "too_small", "empty_image")
    else:
        assert rgb.ndim == 3 and rgb.dtype == np.uint8


def test_a_compressed_bomb_is_refused_from_its_header():
    msg = compressed(np.zeros((2000, 2000, 3), np.uint8), ".png", "png")
    assert len(msg.data) < 50_000
    assert refusal(msg, max_pixels=1_000_000).reason == "too_large"


class CountedBytes(bytes):
    reads = 0

    def __getitem__(self, key):
        CountedBytes.reads += 1
        return super().__getitem__(key)


def test_a_jpeg_of_a_million_empty_segments_is_given_up_early():
    """The size is looked for where the message arrives, and that must cost the same for any image."""
    CountedBytes.reads = 0
    assert image_in._jpeg_size(CountedBytes(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000 + b"\xff\xd9")) is None
    assert CountedBytes.reads < 10 * image_in.MAX_JPEG_SEGMENTS
    CountedBytes.reads = 0
    assert image_in._jpeg_size(CountedBytes(b"\xff\xd8" + b"\xff" * 1_000_000 + b"\xff\xd9")) is None
    assert CountedBytes.reads < 10 * image_in.MAX_JPEG_SEGMENTS


@pytest.mark.parametrize("text", ["", "tiff", "16UC1; compressedDepth png", "h264"])
def test_other_formats_are_refused(text):
    msg = compressed(smooth_rgb(), ".png", text)
    assert refusal(msg).reason == "format"


def test_no_data_at_all():
    assert refusal(SimpleNamespace(format="jpeg", data=b"")).reason == "empty_image"
