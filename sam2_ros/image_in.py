"""sensor_msgs/Image and CompressedImage -> (H, W, 3) uint8 RGB, or a named reason why not.

`check` is cheap and runs when the message arrives; `to_rgb` does the work and runs where the pixels are needed.
Knows encodings, strides and file headers. Does not know topics, stamps, or what the pixels are for.

Encodings are those of `sensor_msgs/image_encodings.hpp`. Refused by name: those that do not say which channel is
which (8UC3 and the like) and those that are not pictures (16UC1, 32FC1: depth by REP 118).
"""

import re
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from sam2_ros.refused import Refused

MIN_SIDE = 16  # pixels; one cell of the network's stride-16 grid at least
SUPPORTED_FILES = ("jpeg", "jpg", "mjpeg", "mjpg", "png")
MAX_PADDING = 4096  # bytes after the end of a picture: some cameras pad files to whole blocks
MAX_JPEG_SEGMENTS = 1000  # before the start of frame; cameras write a dozen, and a callback must not walk megabytes
MAX_JPEG_SCANS = 100  # encoders write about ten; each, even an empty one, costs the decoder a pass over the picture
MAX_PNG_CHUNKS = 20_000  # of 8 KB, as libpng writes them, this many are 160 MB


@dataclass(frozen=True)
class _Layout:
    """How an encoding is laid out in memory, and OpenCV's code for its conversion to RGB (None: none needed)."""

    dtype: type
    channels: int
    to_rgb: int | None
    even: str = ""  # which of "w", "h" must be even
    planes: float = 1.0  # rows in `data` per row of the image


_LAYOUTS: dict[str, _Layout] = {  # by encoding
    "rgb8": _Layout(np.uint8, 3, None),
    "bgr8": _Layout(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": _Layout(np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Layout(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": _Layout(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": _Layout(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "rgb16": _Layout(np.uint16, 3, None),
    "bgr16": _Layout(np.uint16, 3, cv2.COLOR_BGR2RGB),
    "rgba16": _Layout(np.uint16, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": _Layout(np.uint16, 4, cv2.COLOR_BGRA2RGB),
    "mono16": _Layout(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": _Layout(np.uint8, 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": _Layout(np.uint8, 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": _Layout(np.uint8, 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": _Layout(np.uint8, 1, cv2.COLOR_BayerGRBG2RGB),
    "bayer_rggb16": _Layout(np.uint16, 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr16": _Layout(np.uint16, 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg16": _Layout(np.uint16, 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg16": _Layout(np.uint16, 1, cv2.COLOR_BayerGRBG2RGB),
    "uyvy": _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY, even="w"),
    "yuv422": _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY, even="w"),
    "yuyv": _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_YUYV, even="w"),
    "yuv422_yuy2": _Layout(np.uint8, 2, cv2.COLOR_YUV2RGB_YUYV, even="w"),
    "nv12": _Layout(np.uint8, 1, cv2.COLOR_YUV2RGB_NV12, even="wh", planes=1.5),
    "nv21": _Layout(np.uint8, 1, cv2.COLOR_YUV2RGB_NV21, even="wh", planes=1.5),
    "nv24": _Layout(np.uint8, 1, cv2.COLOR_YUV2RGB_UYVY, planes=3.0),
}
SUPPORTED_ENCODINGS = tuple(_LAYOUTS)


def check(msg: Image | CompressedImage, max_pixels: int) -> None:
    """Raises Refused unless `to_rgb(msg)` can work, except for files whose compressed data is broken. Copies nothing.

    Reasons: empty_image, too_small, too_large, encoding, bad_size, bad_step, short_data, size_mismatch, bigendian; for
    compressed images also format, decode.
    """
    if hasattr(msg, "format"):
        _check_file(msg, max_pixels)
    else:
        _check_image(msg, max_pixels)


def to_rgb(msg: Image | CompressedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a message that passed `check`.

    rgb8 is not copied: the array shares the memory of `msg.data`, rows `msg.step` bytes apart. 16-bit channels are
    scaled by 255/65535 and rounded; YUV is BT.601 with limited range; alpha is dropped. Raises Refused("decode") if
    the bytes of a compressed image turn out to be broken.
    """
    return _decode_file(msg) if hasattr(msg, "format") else _convert(msg)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width == 0 or height == 0:
        raise Refused("empty_image", f"image of {width}x{height} pixels: expected at least {MIN_SIDE}x{MIN_SIDE}")
    if min(width, height) < MIN_SIDE:
        raise Refused("too_small", f"image of {width}x{height} pixels: expected at least {MIN_SIDE}x{MIN_SIDE}")
    if width * height > max_pixels:
        raise Refused(
            "too_large", f"image of {width}x{height} pixels: expected at most max_pixels = {max_pixels}; raise it or "
            "publish a smaller image"
        )  # fmt: skip


def _check_image(msg: Image, max_pixels: int) -> None:
    _check_size(msg.width, msg.height, max_pixels)
    layout = _LAYOUTS.get(msg.encoding)
    if layout is None:
        raise Refused(
            "encoding", f"encoding {msg.encoding!r} is not a picture or does not say which channel is which: expected "
            f"one of {', '.join(SUPPORTED_ENCODINGS)}"
        )  # fmt: skip
    if ("w" in layout.even and msg.width % 2) or ("h" in layout.even and msg.height % 2):
        raise Refused("bad_size", f"{msg.encoding} image of {msg.width}x{msg.height}: its chroma needs even sides")
    if msg.is_bigendian and layout.dtype is not np.uint8:
        raise Refused("bigendian", f"{msg.encoding} image is big-endian: expected is_bigendian = 0")
    row_bytes = msg.width * layout.channels * np.dtype(layout.dtype).itemsize
    if msg.step < row_bytes:
        raise Refused("bad_step", f"step {msg.step}: a row of {msg.width} {msg.encoding} pixels has {row_bytes} bytes")
    expected, got = int(msg.step * msg.height * layout.planes), len(msg.data)
    if got != expected:
        raise Refused(
            "short_data" if got < expected else "size_mismatch",
            f"{got} bytes of data: step {msg.step} x height {msg.height} of {msg.encoding} are {expected}",
        )


def _convert(msg: Image) -> np.ndarray:
    """Each layout as a strided view of `msg.data`, then one OpenCV call."""
    layout = _LAYOUTS[msg.encoding]
    data = np.frombuffer(msg.data, np.uint8)
    if msg.encoding == "nv24":
        return _nv24_to_rgb(data, msg)
    item = np.dtype(layout.dtype).itemsize
    rows = int(msg.height * layout.planes)
    pixels = _rows(data, rows, msg.width * layout.channels * item, msg.step)
    if msg.step % item:  # OpenCV requires a row stride that is a multiple of the item size
        pixels = np.ascontiguousarray(pixels)
    pixels = pixels.view(layout.dtype).reshape(rows, msg.width, layout.channels)  # (H, W, C), still a view
    return _coloured(pixels, layout)


def _coloured(pixels: np.ndarray, layout: _Layout) -> np.ndarray:
    """(H, W, 3) uint8 RGB of (H, W, C), or (H, W) if there is one channel."""
    rgb = pixels if layout.to_rgb is None else cv2.cvtColor(pixels, layout.to_rgb)
    return rgb if rgb.dtype == np.uint8 else cv2.convertScaleAbs(rgb, alpha=255 / 65535)


def _rows(data: np.ndarray, rows: int, row_bytes: int, step: int) -> np.ndarray:
    """(rows, row_bytes) uint8 view of rows that start `step` bytes apart, whatever the padding."""
    return data.reshape(rows, step)[:, :row_bytes]


def _nv24_to_rgb(data: np.ndarray, msg: Image) -> np.ndarray:
    """OpenCV has no 4:4:4: each pixel becomes two equal ones of 4:2:2, and every second result is kept."""
    luma_bytes = msg.step * msg.height
    luma = _rows(data[:luma_bytes], msg.height, msg.width, msg.step)  # (H, W)
    chroma = _rows(data[luma_bytes:], msg.height, 2 * msg.width, 2 * msg.step)  # (H, 2W), Cb and Cr by turns
    packed = np.stack([chroma[:, 0::2], luma, chroma[:, 1::2], luma], axis=-1)  # (H, W, 4)
    rgb = cv2.cvtColor(packed.reshape(msg.height, 2 * msg.width, 2), cv2.COLOR_YUV2RGB_UYVY)  # (H, 2W, 3)
    return np.ascontiguousarray(rgb[:, ::2])


def _check_file(msg: CompressedImage, max_pixels: int) -> None:
    """Checks format string, the size in the file's header and the end mark: no truncated file reaches the decoder."""
    words = re.findall(r"\w+", msg.format.lower())
    if not any(word in SUPPORTED_FILES for word in words) or "compresseddepth" in words:
        raise Refused("format", f"compressed image of format {msg.format!r}: expected jpeg or png")
    if re.match(r"\d+[USF]C\d", msg.format) and not msg.format.startswith("8UC"):  # a depth image, say
        raise Refused("encoding", f"compressed image of format {msg.format!r}: expected a picture, not measurements")
    data = memoryview(msg.data)
    if len(data) == 0:
        raise Refused("empty_image", f"compressed image ({msg.format}) without data")
    size = _png_size(data) or _jpeg_size(data)
    if size is None:
        raise Refused("decode", f"compressed image ({msg.format}) of {len(data)} bytes: no complete jpeg or png")
    _check_size(*size, max_pixels)


def _png_size(data: memoryview) -> tuple[int, int] | None:
    """(width, height) of a complete PNG file (PNG specification, 5.2 and 11.2.2), or None."""
    if bytes(data[:16]) != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or bytes(data[-8:-4]) != b"IEND" or len(data) < 33:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _jpeg_size(data: memoryview) -> tuple[int, int] | None:
    """(width, height) of a complete JPEG file (ITU-T T.81, B.1.1 and B.2.2), or None."""
    at = _jpeg_frame(data)
    if at is None:
        return None
    return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")


def _jpeg_frame(data: memoryview) -> int | None:
    """Offset of the start-of-frame marker in a complete JPEG file, or None."""
    if bytes(data[:2]) != b"\xff\xd8" or b"\xff\xd9" not in bytes(data[-MAX_PADDING:]):
        return None
    at = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        if at + 9 >= len(data) or data[at] != 0xFF:
            break
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:  # have no length: a decoder would read on elsewhere
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return at
        at += 2 + length
    return None


def _check_decoding(msg: CompressedImage) -> None:
    """Raises Refused for files that would take the decoder minutes or gigabytes. Not in `check`, since it reads the
    whole file."""
    data = memoryview(msg.data)
    if _png_size(data) and not _is_filled_by_chunks(data):
        raise Refused("decode", f"compressed image ({msg.format}): expected a png whose chunks end where its data does")
    at = _jpeg_frame(data)
    # Searched from the frame on: thumbnails and profiles before it may have these bytes, too; compressed data has none.
    begins = re.finditer(b"\xff\xda", data[at:]) if at is not None else ()
    if sum(1 for _ in islice(begins, MAX_JPEG_SCANS + 1)) > MAX_JPEG_SCANS:
        raise Refused("decode", f"compressed image ({msg.format}): expected a jpeg of at most {MAX_JPEG_SCANS} scans")


def _is_filled_by_chunks(data: memoryview) -> bool:
    """Whether the chunks of a PNG (PNG specification, 5.3) end where its data does, and are at most MAX_PNG_CHUNKS.
    OpenCV allocates whatever length a chunk claims to have."""
    at = 8
    for _ in range(MAX_PNG_CHUNKS):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if at >= len(data):
            break
    return at == len(data)


def _decode_file(msg: CompressedImage) -> np.ndarray:
    _check_decoding(msg)
    # image_transport writes "<source>; jpeg compressed <what the encoder was given>". If the last part is missing, the
    # encoder was given the source itself: for a Bayer camera the mosaic, as a grey picture.
    mosaic = re.fullmatch(r"\s*(bayer_\w+)\s*;.*compressed\s*", msg.format)
    if mosaic and mosaic[1] in _LAYOUTS:
        grey = _decode(msg, cv2.IMREAD_ANYDEPTH)  # (H, W) uint8 or uint16
        return _coloured(grey, _LAYOUTS[mosaic[1]])
    image = _decode(msg, cv2.IMREAD_COLOR)  # (H, W, 3) uint8
    # The encoder was given RGB as if it were BGR, so the channels are swapped in the file.
    if re.search(r"compressed\s+rgb", msg.format.lower()):
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode(msg: CompressedImage, mode: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(msg.data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image = None
    if image is None:
        raise Refused("decode", f"compressed image ({msg.format}) of {len(msg.data)} bytes cannot be decoded")
    return image
