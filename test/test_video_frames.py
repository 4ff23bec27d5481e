"""Reading a video needs the memory of its result, and little more."""

import io
import weakref

import pytest
import torch
from nano_video import NUM_FRAMES, write_jpegs, write_video
from PIL import Image

from sam2 import video_frames
from sam2.errors import BadInput
from sam2.video_frames import load_frames


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_neither_frames_nor_copies_of_them_pile_up(tmp_path, monkeypatch, kind):
    """Counted when each frame is resized: sources and results that are still there besides."""
    path = write_jpegs(tmp_path) if kind == "folder" else write_video(tmp_path / "clip.mp4")
    sources, results, most = [], [], []
    resize = video_frames.to_model_input

    def watched(frame, side):
        most.append(max(sum(ref() is not None for ref in refs) for refs in (sources, results)))
        sources.append(weakref.ref(frame))
        made = resize(frame, side)
        results.append(weakref.ref(made))
        return made

    monkeypatch.setattr(video_frames, "to_model_input", watched)
    images, height, width = load_frames(path, 64, torch.device("cpu"))
    assert len(most) == NUM_FRAMES and max(most) <= 1, "the source before it, which goes when the next is there"
    assert isinstance(images, torch.Tensor) and images.shape == (NUM_FRAMES, 3, 64, 64)
    assert images.untyped_storage().nbytes() == images.nbytes and (height, width) == (60, 96)
    assert all(one.std() > 0.1 for one in images)


def test_frames_that_are_read_when_they_are_needed_do_not_pile_up(tmp_path):
    """Of a folder of 5,000 frames at 1024 pixels those used before would be 63 GB."""
    frames, _, _ = load_frames(write_jpegs(tmp_path), 64, torch.device("cpu"), lazily=True)
    used = [weakref.ref(frames[index]) for index in (*range(NUM_FRAMES), 0)]
    assert [ref() for ref in used] == [None] * len(used) and torch.equal(frames[0], frames[0])


def test_a_frame_whose_header_tells_of_billions_of_pixels_is_named(tmp_path):
    frame = sorted(write_jpegs(tmp_path).glob("*.jpg"))[0]
    content = bytearray(frame.read_bytes())
    size = content.index(b"\xff\xc0") + 5
    content[size : size + 4] = b"\xff" * 4
    frame.write_bytes(content)
    with pytest.raises(BadInput, match=f"{frame.name}: expected a JPEG that can be decoded"):
        load_frames(frame.parent, 64, torch.device("cpu"))


def test_a_damaged_png_called_jpg_is_named(tmp_path):
    """Pillow finds the format by itself, and raises a SyntaxError for this one."""
    frame = sorted(write_jpegs(tmp_path).glob("*.jpg"))[2]
    picture = io.BytesIO()
    Image.effect_noise((300, 300), 50).save(picture, "PNG")
    first, *others = picture.getvalue().split(b"IDAT")
    frame.write_bytes(first + b"IDAT" + b"\x15DAT".join(others))
    with pytest.raises(BadInput, match=f"{frame.name}: expected a JPEG that can be decoded, got broken PNG file"):
        load_frames(frame.parent, 64, torch.device("cpu"))
