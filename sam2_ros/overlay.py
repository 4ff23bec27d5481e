"""Draws tracks on their image, for people: colour, outline, name and state of each object.

An object that is out of sight gets a dashed box where it was last seen. Knows pictures. Does not know messages.
"""

import colorsys
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

import sam2

GOLDEN_RATIO = 0.618034  # step of the hue: consecutive labels differ clearly, however many there are
FONT = cv2.FONT_HERSHEY_SIMPLEX
STATE_WORDS = {
    sam2.State.VISIBLE: "",
    sam2.State.OCCLUDED: "occluded",
    sam2.State.LOST: "lost",
    sam2.State.INVALID: "no answer",
}


def colour_of(label: int) -> tuple[int, int, int]:
    """(R, G, B) of an object for as long as it lives; label 1..254."""
    hue = (0.54 + label * GOLDEN_RATIO) % 1.0
    lightness = (0.58, 0.68, 0.50)[label % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def _ink_on(ground: tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour of letters that can be read on a ground: nearly black on light ones, nearly white on dark ones."""
    red, green, blue = ground
    return (16, 16, 16) if 0.299 * red + 0.587 * green + 0.114 * blue > 100 else (245, 245, 245)


def _lighter(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Nearer to white, so that blue and purple can be read on a dark ground."""
    red, green, blue = ((channel + 2 * 255) // 3 for channel in colour)
    return red, green, blue


class Drawable(Protocol):
    """What a picture needs of a track: a `sam2.Track`, or the demo's reading of a message."""

    @property
    def object_id(self) -> str: ...
    @property
    def label(self) -> int: ...
    @property
    def state(self) -> sam2.State: ...
    @property
    def presence(self) -> float: ...
    @property
    def mask(self) -> np.ndarray: ...
    @property
    def box_xywh(self) -> tuple[int, int, int, int] | None: ...


class Overlay:
    """Its only state is where each object was last seen."""

    def __init__(self) -> None:
        self._box_by_id: dict[str, tuple[int, int, int, int]] = {}  # x, y, width, height in pixels

    def forget(self) -> None:
        """Forgets where objects were last seen. To be called when images are not drawn, after which this is unknown."""
        self._box_by_id = {}

    def draw(self, rgb: np.ndarray, tracks: Sequence[Drawable], opacity: float = 0.45) -> np.ndarray:
        """Returns a copy of the image with the tracks drawn on it, (H, W, 3) uint8 RGB. opacity: of the masks, 0..1."""
        picture = np.array(rgb)  # (H, W, 3); a copy, the image belongs to its message
        scale = max(min(rgb.shape[:2]) / 480, 0.5)  # of lines and letters
        boxes = {track.object_id: track.box_xywh or self._box_by_id.get(track.object_id) for track in tracks}
        self._box_by_id = {name: box for name, box in boxes.items() if box}
        for track in tracks:
            if track.box_xywh:
                _paint(picture, track, track.box_xywh, opacity, scale)
        for track in tracks:
            box = self._box_by_id.get(track.object_id)
            if box and track.state is not sam2.State.VISIBLE:
                _dashed_box(picture, box, colour_of(track.label), scale)
        for track in tracks:
            box = self._box_by_id.get(track.object_id)
            if box:
                _chip(picture, track, box, scale)
        return picture


def _paint(picture: np.ndarray, track: Drawable, box: tuple[int, int, int, int], opacity: float, scale: float) -> None:
    """Paints the mask in its object's colour, outlined in that colour on a wider dark line, to stand out anywhere."""
    x, y, width, height = box
    inside = np.ascontiguousarray(track.mask[y : y + height, x : x + width])  # (height, width) bool
    region = picture[y : y + height, x : x + width]  # (height, width, 3) view
    colour = np.array(colour_of(track.label), np.float32)
    mixed = cv2.addWeighted(region, 1 - opacity, np.broadcast_to(colour, region.shape).astype(np.uint8), opacity, 0)
    cv2.copyTo(mixed, inside.view(np.uint8), region)
    outlines, _ = cv2.findContours(inside.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x, y))
    cv2.drawContours(picture, outlines, -1, (16, 16, 16), max(round(3 * scale), 2), cv2.LINE_AA)
    cv2.drawContours(picture, outlines, -1, colour.tolist(), max(round(1.6 * scale), 1), cv2.LINE_AA)


def _dashed_box(picture: np.ndarray, box: tuple[int, int, int, int], colour: tuple, scale: float) -> None:
    x, y, width, height = box
    corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], np.float32)
    dash, thickness = 8 * scale, max(round(2 * scale), 1)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = float(np.linalg.norm(end - start))
        for at in np.arange(0, length, 2 * dash):
            first, last = (start + (end - start) * min(t, length) / max(length, 1e-6) for t in (at, at + dash))
            cv2.line(picture, tuple(map(round, first.tolist())), tuple(map(round, last.tolist())), colour, thickness)


def _chip(picture: np.ndarray, track: Drawable, box: tuple[int, int, int, int], scale: float) -> None:
    """Name, and state or confidence, on a plate above the object; kept inside the image."""
    word = STATE_WORDS[track.state] or f"{track.presence:.0%}"
    text = f"{track.object_id}  {word}" if track.object_id else word
    size, thickness, pad = 0.45 * scale, max(round(scale), 1), round(4 * scale)
    (text_width, text_height), base = cv2.getTextSize(text, FONT, size, thickness)
    plate_width, plate_height = text_width + 2 * pad, text_height + base + 2 * pad
    height, width = picture.shape[:2]
    x = int(np.clip(box[0], 0, max(width - plate_width, 0)))
    y = int(np.clip(box[1] - plate_height - pad, 0, max(height - plate_height, 0)))
    plate = picture[y : y + plate_height, x : x + plate_width]
    visible = track.state is sam2.State.VISIBLE
    ground = colour_of(track.label) if visible else (40, 40, 40)
    ink = _ink_on(ground) if visible else _lighter(colour_of(track.label))
    plate[:] = cv2.addWeighted(plate, 0.1, np.full_like(plate, ground), 0.9, 0)
    cv2.putText(picture, text, (x + pad, y + pad + text_height), FONT, size, ink, thickness, cv2.LINE_AA)
