"""The contact sheet of a replay: of any length, of images of any shape."""

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")

from sam2_ros.contact_sheet import ContactSheet
from sam2_ros.panel import CAPTION, PAPER, panel
from sam2_ros.replay_source import Shot

SIZE_HW = (48, 64)


@pytest.mark.parametrize("refused", [0, 2, 3])
@pytest.mark.parametrize("length", [1, 8, 16, 17, 100, 1000])
def test_the_sheet_is_spread_over_any_length(length, refused):
    """refused: every so manieth image; 0 none."""
    sheet, shown = ContactSheet(), []
    for number in range(length * (2 if refused else 1)):
        if not refused or number % refused:
            shown.append(number)
            sheet.write(Shot(number, np.full((*SIZE_HW, 3), number % 200, np.uint8), number, number, ""), [])
    kept = [shown.index(number) for number, _ in sheet._kept]
    assert len(kept) <= 16 and set(np.diff(kept)) <= {sheet._step}, "evenly, and never more"
    assert kept[0] == 0 and kept[-1] > 0.87 * len(shown) - 1
    grey = [sheet.picture()[row * 424 + 100, column * 540 + 100, 0] for row in (0, 1) for column in range(4)]
    assert grey[0] == shown[0] and grey[min(len(kept), 8) - 1] == shown[kept[-1]] % 200


def test_a_sheet_of_very_tall_images_fits(tmp_path):
    with ContactSheet.open(tmp_path / "tall.jpg") as sheet:
        sheet.write(Shot(0, np.zeros((6000, 20, 3), np.uint8), 0, 0, ""), [])
    assert cv2.imread(str(tmp_path / "tall.jpg")).shape == (2 * 424, 4 * 540, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["tall.jpg"]


def test_the_caption_is_just_below_its_image_whatever_the_shape():
    """Of wide images it was a third of the panel below."""
    for height in (75, 56):  # 4:3 and 16:9
        made = panel(np.zeros((height, 100, 3), np.uint8), "image 0")
        below = 520 * height // 100
        ink = made[below:].min(-1) > 2 * max(PAPER)  # some OpenCVs draw no pixel of a letter in full INK
        rows = np.flatnonzero(ink.any(-1))
        assert 0 < rows.min() and rows.max() < CAPTION
