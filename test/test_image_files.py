"""Compressed images: decoded with every channel in place, or refused by name before a decoder sees them."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_image_in import convert, image_like, random_rgb, refusal

from sam2_ros import image_in
from sam2_ros.refused import Refused


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


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_compressed_mosaic_is_what_it_is_uncompressed(pattern, dtype):
    """image_transport turns colours only into BGR; a mosaic becomes a grey file, and its format says what it was."""
    mosaic = np.random.default_rng(3).integers(0, np.iinfo(dtype).max + 1, (48, 64), dtype=dtype)
    encoding = f"bayer_{pattern}{8 * mosaic.itemsize}"
    file = SimpleNamespace(format=f"{encoding}; png compressed ", data=cv2.imencode(".png", mosaic)[1].tobytes())
    rgb = convert(image_like(mosaic, encoding))
    assert np.array_equal(convert(file), rgb) and np.ptp(rgb, axis=-1).max() > 100
    file.format = f"{encoding}; jpeg compressed mono8"  # what was turned into grey is no mosaic any more
    assert np.ptp(convert(file), axis=-1).max() == 0


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
@settings(max_examples=40)
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


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_a_compressed_bomb_is_refused_from_its_header(extension, monkeypatch):
    """Decoding a file to find its size would be just what its sender wants."""
    msg = compressed(np.zeros((2000, 2100, 3), np.uint8), extension, extension[1:])
    assert len(msg.data) < 100_000
    monkeypatch.setattr(image_in, "cv2", None)
    assert refusal(msg, max_pixels=2000 * 2100 - 1).reason == "too_large"
    image_in.check(msg, max_pixels=2000 * 2100)
    monkeypatch.undo()
    assert convert(msg).shape == (2000, 2100, 3)


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
