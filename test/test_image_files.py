"""Compressed images: decoded with every channel in place, or refused by name before a decoder sees them."""

import io
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
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


@pytest.mark.parametrize(
    "text", ["jpeg", "jpg", *(f"{what}; jpeg compressed bgr8" for what in ("rgb8", "bgr8", "8UC3"))]
)
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


def test_the_size_of_a_jpeg_is_its_frames_wherever_that_is():
    """Some encoders write Huffman tables first, whose marker is one of those around it."""
    file = compressed(smooth_rgb(), ".jpg", "jpeg")
    frame, tables, scan = (file.data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc4", b"\xff\xda"))
    assert frame < tables
    moved = file.data[:frame] + file.data[tables:scan] + file.data[frame:tables] + file.data[scan:]
    file = SimpleNamespace(format="jpeg", data=moved)
    assert convert(file).shape == (48, 64, 3) and "64x48" in str(refusal(file, 48 * 64 - 1))


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


def segment(marker, content):
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def many_scans(count, before_frame=b""):
    """A progressive JPEG of 64x64 grey pixels: ten bytes for each of `count` scans."""
    frame = segment(0xC2, bytes([8, 0, 64, 0, 64, 1, 1, 0x11, 0]))
    tables = b"".join(segment(0xC4, bytes([kind, 0, 1, *[0] * 14, 0])) for kind in (0x00, 0x10))
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 1]))
    scans = first + segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) * (count - 1)
    return b"\xff\xd8" + segment(0xDB, bytes([0, *[1] * 64])) + before_frame + frame + tables + scans + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(monkeypatch):
    """The decoder goes through the whole picture for each: 200 KB took it minutes, in which the node stood still."""
    file = SimpleNamespace(format="jpeg", data=many_scans(image_in.MAX_JPEG_SCANS))
    assert convert(file).shape == (64, 64, 3)
    monkeypatch.setattr(image_in, "cv2", None)
    for before_frame in (b"", segment(0xE1, b"\xff\xda" * 1000)):
        file.data = many_scans(image_in.MAX_JPEG_SCANS + 1, before_frame)
        image_in.check(file, 64 * 64)  # where the message arrives, which must cost the same for any image
        with pytest.raises(Refused, match="expected a jpeg of at most 100 scans") as refused:
            image_in.to_rgb(file)
        assert refused.value.reason == "decode"


@pytest.mark.parametrize("marker", [b"\xff\x01", b"\xff\xd0"])
def test_scans_cannot_be_hidden_behind_a_marker_without_a_length(marker):
    """The start of frame, FF C2, would be taken for one, and all that the decoder reads from there on skipped."""
    hiding = many_scans(1000, marker)
    skipped_to = hiding.index(marker + b"\xff\xc2") + 2 + 0xFFC2
    file = SimpleNamespace(format="jpeg", data=hiding.ljust(skipped_to, b"\0") + many_scans(1)[2:])
    assert refusal(file).reason == "decode"


@pytest.mark.parametrize(
    "how",
    [
        {"progressive": True},
        {"progressive": True, "restart_marker_rows": 1},
        {"progressive": True, "mode": "CMYK"},
        {"mode": "CMYK"},
        {"mode": "L", "progressive": True},
        {"restart_marker_blocks": 1, "icc_profile": b"\xff\xda" * 50_000, "comment": b"\xff\xda" * 1000},
    ],
)
def test_every_jpeg_that_an_encoder_makes_is_decoded(how):
    mode, file = how.get("mode", "RGB"), io.BytesIO()
    Image.fromarray(smooth_rgb()).convert(mode).save(file, "JPEG", quality=95, **how)
    expected = Image.fromarray(smooth_rgb()).convert(mode).convert("RGB")
    got = convert(SimpleNamespace(format="jpeg", data=file.getvalue()))
    assert np.abs(got.astype(int) - np.asarray(expected)).mean() < 4


def png(**how):
    """smooth_rgb, as Pillow writes it."""
    file = io.BytesIO()
    Image.fromarray(smooth_rgb()).save(file, "PNG", **how)
    return file.getvalue()


def with_remarks():
    remarks = PngImagePlugin.PngInfo()
    remarks.add_text("Comment", "x" * 10_000, zip=True)
    remarks.add_itxt("Author", "Küche" * 100)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    return png(pnginfo=remarks, exif=exif, icc_profile=b"p" * 3000, dpi=(72, 72))


def animated():
    return png(save_all=True, append_images=[Image.new("RGB", (64, 48), "red")] * 3)


@pytest.mark.parametrize("make", [png, with_remarks, animated])
def test_a_png_may_have_chunks_of_all_kinds(make):
    assert np.array_equal(convert(SimpleNamespace(format="png", data=make())), smooth_rgb())


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:33] + b"\x80" + data[34:],  # the length of the pixels' chunk: OpenCV allocates it
        lambda data: data[:8] + b"\x80" + data[9:],
        lambda data: data[:12] + b"IHDr" + data[16:],
        lambda data: data[:-12] + (b"\0\0\0\0tEXt" + bytes(4)) * image_in.MAX_PNG_CHUNKS + data[-12:],
        lambda data: data[:-12] + b"\0\0\0\x01" + data[-8:],
    ],
)
def test_a_png_whose_chunks_do_not_fill_it_is_refused_before_it_is_decoded(damage, monkeypatch):
    file = compressed(smooth_rgb(), ".png", "png")
    image_in.check(file, 10_000)
    file.data = damage(file.data)
    monkeypatch.setattr(image_in, "cv2", None)
    with pytest.raises(Refused) as refused:
        image_in.check(file, 10_000)  # finds what is wrong in its header
        image_in.to_rgb(file)
    assert refused.value.reason == "decode"


@pytest.mark.parametrize("text", ["", "tiff", "16UC1; compressedDepth png", "h264"])
def test_other_formats_are_refused(text):
    msg = compressed(smooth_rgb(), ".png", text)
    assert refusal(msg).reason == "format"


def test_no_data_at_all():
    assert refusal(SimpleNamespace(format="jpeg", data=b"")).reason == "empty_image"
