"""Every picture of a video, with its time in the file."""

import math
import struct
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("sam2_ros.msg", reason="needs the built interfaces")

from bags import SIZE_HW, picture, shots_of

import sam2

pytestmark = pytest.mark.ros


def video_of(monkeypatch, pictures, path=Path(__file__), **said):
    """Makes OpenCV play a video. pictures: each time it says, in s; path: of the file; said: properties."""
    monkeypatch.setattr(cv2, "VideoCapture", lambda name: film)
    properties = {getattr(cv2, f"CAP_PROP_{name}"): value for name, value in said.items()}
    times_s = iter(pictures)

    def read():
        at_s = next(times_s, None)
        properties[cv2.CAP_PROP_POS_MSEC] = math.inf if at_s is None else 1000 * at_s
        return (False, None) if at_s is None else (True, picture(1))

    film = SimpleNamespace(isOpened=lambda: True, get=properties.get, read=read, release=lambda: None)
    return shots_of(path)


def test_a_video_by_its_own_clock(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 20, SIZE_HW[::-1])
    for number in range(8):
        writer.write(np.full((*SIZE_HW, 3), 30 * number, np.uint8))
    writer.release()
    source, shots = shots_of(tmp_path / "v.mp4", fps=3)
    assert (source.total, source.fps, len(shots)) == (8, 20, 8)
    assert [shot.stamp_ns for shot in shots] == [50_000_000 * (number + 1) for number in range(8)]
    assert np.allclose([shot.rgb.mean() for shot in shots], [30 * number for number in range(8)], atol=4)


def test_a_video_whose_pictures_come_irregularly_by_its_own_clock(tmp_path):
    """As phones record them: here six pictures at 1.5 times the period, then six at half of it."""
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 20, SIZE_HW[::-1])
    for number in range(12):
        writer.write(np.full((*SIZE_HW, 3), 20 * number, np.uint8))
    writer.release()
    film = bytearray((tmp_path / "v.mp4").read_bytes())
    at = film.index(b"stts")  # of ISO/IEC 14496-12: how many pictures have which duration
    count, duration = struct.unpack(">8xII", film[at + 4 : at + 20])
    assert count == 12 and film.index(b"moov") > film.index(b"mdat")  # else pictures would move
    film[at + 8 : at + 20] = struct.pack(">IIIII", 2, 6, duration * 3 // 2, 6, duration // 2)
    for box in (b"stts", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        size_at = film.index(box) - 4
        film[size_at : size_at + 4] = struct.pack(">I", struct.unpack(">I", film[size_at : size_at + 4])[0] + 8)
    (tmp_path / "v.mp4").write_bytes(film)
    shots = shots_of(tmp_path / "v.mp4")[1]
    times_s = [shot.stamp_ns / 1e9 for shot in shots]
    assert times_s == pytest.approx(0.05 + np.cumsum([0] + [0.075] * 6 + [0.025] * 5))


@pytest.mark.parametrize(("last_s", "lacking"), [(9.9, 0), (9.8, 80)])
def test_a_film_whose_images_come_irregularly_is_whole_if_its_last_image_is_at_its_end(monkeypatch, last_s, lacking):
    """A screen recording or one of a browser, as mkv or webm: 20 images in 10 s, most of them in the first second."""
    times_s = [*np.arange(19) / 10, last_s]
    source, shots = video_of(monkeypatch, times_s, FPS=10.0, FRAME_COUNT=100.0)
    assert len(shots) == 20 and source.total - len(shots) == lacking
    assert [shot.stamp_ns for shot in shots] == [round(1e9 * (at_s + 0.1)) for at_s in times_s]


def matroska(size: bytes, content: bytes, header=b"\x81?") -> bytes:
    """A file of RFC 9559, with what precedes a segment's content as far as anything here looks at it."""
    return b"\x1a\x45\xdf\xa3" + header + b"\x18\x53\x80\x67" + size + content


@pytest.mark.parametrize(
    ("film", "missing"),
    [
        (matroska(b"\x85", b"12345"), 0),
        (matroska(b"\x85", b"123"), 2),
        (matroska(b"\x85", b"12345 and more", header=b"\x40\x02??"), 0),
        (matroska(b"\x01\0\0\0\0\0\1\0", b"?" * 200, header=b"\x40\x02??"), 56),
        (matroska(b"\xff", b"12345"), 0),  # not said
        (matroska(b"\x01" + 7 * b"\xff", b"12345"), 0),
        (matroska(b"", b""), 0),
        (matroska(b"\x85", b"")[:-5], 0),
        (b"\x1a\x45\xdf\xa3", 0),
    ],
)
def test_a_matroska_film_is_whole_if_its_bytes_are_there(film, missing, tmp_path, monkeypatch):
    """However long it lasts, which may be the sound, and at whatever rate: OpenCV's count is of these."""
    (tmp_path / "film.mkv").write_bytes(film)
    said = f"film.mkv: is it damaged. {missing} bytes are missing at its end"
    with pytest.raises(sam2.BadInput, match=said) if missing else nullcontext():
        source, shots = video_of(monkeypatch, [0, 0.1], tmp_path / "film.mkv", FPS=10.0, FRAME_COUNT=9.0)
        assert (source.total, len(shots)) == (0, 2)


@pytest.mark.parametrize(
    ("said", "rate"), [(1000.0, 30.0), (999.0, 999.0), (0.0, 30.0), (math.nan, 30.0), (-1.0, 30.0)]
)
def test_a_clock_in_milliseconds_is_no_rate(said, rate, monkeypatch):
    """As recordings of browsers have it: their overlay would play at 1000 images per second."""
    assert video_of(monkeypatch, [0, 0.1], FPS=said, FRAME_COUNT=2.0)[0].fps == rate


@pytest.mark.parametrize("wrong_s", [0.4, 0.3, -5, math.nan, math.inf, 1e10])
@pytest.mark.parametrize("first_s", [0, 7.25])
def test_a_picture_whose_time_cannot_be_comes_one_period_after_the_one_before(monkeypatch, wrong_s, first_s):
    """As damage makes it."""
    times_s = [first_s + at_s for at_s in (0, 0.4, wrong_s, 0.75)]
    shots = video_of(monkeypatch, times_s, FPS=10.0, FRAME_COUNT=4.0)[1]
    assert [shot.stamp_ns / 1e9 for shot in shots] == pytest.approx([0.1, 0.5, 0.6, 0.85])


@pytest.mark.parametrize("at_s", [0, math.nan])
def test_a_video_that_says_no_times_is_even(monkeypatch, at_s):
    shots = video_of(monkeypatch, [at_s] * 4, FPS=4.0, FRAME_COUNT=4.0)[1]
    assert [shot.stamp_ns for shot in shots] == [250_000_000, 500_000_000, 750_000_000, 1_000_000_000]
