"""The panels that the sheets of the demo and of replays are made of: a picture with its caption, on dark paper."""

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
PAPER, INK = (24, 26, 30), (235, 235, 235)
PANEL_WH, CAPTION, MARGIN = (520, 390), 34, 10  # pixels


def write(
    picture: np.ndarray, text: str, xy: tuple[int, int], size: float = 0.5, colour: tuple[int, int, int] = INK
) -> None:
    """Draws text. xy: left end of its baseline, pixels."""
    cv2.putText(picture, text, xy, FONT, size, colour, 2 if size > 0.7 else 1, cv2.LINE_AA)


def panel(picture: np.ndarray, caption: str) -> np.ndarray:
    """The picture scaled to fit PANEL_WH, on dark paper, with its caption below. Both (H, W, 3) uint8."""
    width, height = PANEL_WH
    made = np.full((height + CAPTION, width + 2 * MARGIN, 3), PAPER, np.uint8)
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    made[: size[1], MARGIN : MARGIN + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    write(made, caption, (MARGIN, size[1] + 22), 0.52)
    return made
