"""The picture for people: colours, outlines, names and places are right, and the image itself is not touched."""

import dataclasses
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from fakes import FakeTracker

import sam2
from sam2_ros.overlay import Overlay, colour_of

SIZE_HW = (240, 320)
CENTRE = (160, 120)


def grey():
    return np.full((*SIZE_HW, 3), 90, np.uint8)


def tracks(*names, state=sam2.State.VISIBLE):
    prompts = [sam2.Prompt(name, points_xy=[CENTRE], labels=[1]) for name in names]
    made = FakeTracker().step(sam2.Frame(grey(), 1), prompts)
    return [dataclasses.replace(track, state=state) for track in made]


def changed(picture):
    """(H, W) bool: where the picture differs from the plain image."""
    return (picture != 90).any(axis=-1)


def test_without_objects_it_is_the_image():
    image = grey()
    picture = Overlay().draw(image, [], 0.5)
    assert np.array_equal(picture, image) and not np.shares_memory(picture, image)


def test_the_image_itself_is_left_alone():
    image = grey()
    Overlay().draw(image, tracks("cup"), 0.5)
    assert (image == 90).all()


def test_a_mask_is_mixed_with_its_colour_by_the_opacity():
    track = tracks("cup")[0]
    for opacity in (0.0, 0.3, 1.0):
        picture = Overlay().draw(grey(), [track], opacity)
        expected = 90 * (1 - opacity) + np.array(colour_of(track.label)) * opacity
        assert np.abs(picture[CENTRE[::-1]] - expected).max() <= 1
    assert not changed(Overlay().draw(grey(), [track], 0.5))[-20:].any()  # nothing far from the object


def disc(size_hw=SIZE_HW):
    """An object whose box has corners that are not of it, in the lower right quarter of the image."""
    height, width = size_hw
    mask = np.zeros(size_hw, np.uint8)
    cv2.circle(mask, (width * 5 // 8, height * 5 // 8), height // 6, 1, -1)
    x, y, *size = sam2.bounding_box(mask.astype(bool))
    return SimpleNamespace(
        object_id="cup", label=1, state=sam2.State.VISIBLE, presence=1.0, mask=mask > 0, box_xywh=(x, y, *size)
    )


def test_an_object_in_sight_has_an_outline_where_it_is_and_no_box():
    track = disc()
    picture = Overlay().draw(grey(), [track], 0.5)
    near = cv2.dilate(track.mask.astype(np.uint8), np.ones((7, 7))) > 0
    top = track.box_xywh[1]  # its name is above
    assert not (changed(picture) & ~near)[top:].any()
    edge = track.mask & ~(cv2.erode(track.mask.astype(np.uint8), np.ones((3, 3))) > 0)
    inside = picture[150, 200].astype(int)
    assert (np.abs(picture[edge] - inside).max(axis=1) > 20).mean() > 0.9


def test_lines_and_letters_grow_with_the_image():
    shares = []
    for factor in (1, 6):
        size_hw = SIZE_HW[0] * factor, SIZE_HW[1] * factor
        track = disc(size_hw)
        picture = Overlay().draw(np.full((*size_hw, 3), 90, np.uint8), [track], 0.5)
        shares.append(changed(picture)[: track.box_xywh[1]].mean())
    assert shares[1] > 0.5 * shares[0]


@pytest.mark.parametrize("state", [sam2.State.OCCLUDED, sam2.State.LOST, sam2.State.INVALID])
def test_an_object_out_of_sight_leaves_a_box_where_it_was(state):
    overlay = Overlay()
    overlay.draw(grey(), tracks("cup"), 0.5)
    picture = overlay.draw(grey(), tracks("cup", state=state), 0.5)
    x, y, width, height = sam2.bounding_box(tracks("cup")[0].mask)
    for across in (x, x + width):
        assert changed(picture)[y + 9 : y + height - 9, across - 1 : across + 2].any()
    assert changed(picture)[y + height - 1 : y + height + 2, x + 9 : x + width - 9].any()  # the top is under the name
    assert not changed(picture)[CENTRE[::-1]]  # no mask


def test_the_box_of_an_object_out_of_sight_is_dashed_and_marks_its_edges_only():
    overlay, track = Overlay(), disc()
    overlay.draw(grey(), [track], 0.5)
    picture = overlay.draw(grey(), [SimpleNamespace(**vars(track) | {"box_xywh": None, "state": sam2.State.LOST})], 0.5)
    x, y, width, height = track.box_xywh
    edges = np.zeros(SIZE_HW, np.uint8)
    cv2.rectangle(edges, (x, y), (x + width, y + height), 1, 3)
    below = changed(picture)[y:]  # its name is above
    assert not (below & (edges[y:] == 0)).any()
    left, right = (below[:height, at - 1 : at + 2].any(axis=1) for at in (x, x + width))
    bottom = below[height - 1 : height + 2, x : x + width].any(axis=0)
    assert all(0.3 < side.mean() < 0.8 for side in (left, right, bottom))


def plate(xy, size_hw=SIZE_HW, **changes):
    """Draws an object of no pixel at `xy`; returns the place (x, y, width, height) of its name, and the name."""
    track = SimpleNamespace(**vars(disc()) | {"mask": np.zeros(size_hw, bool), "box_xywh": (*xy, 20, 20)} | changes)
    picture = Overlay().draw(np.full((*size_hw, 3), 90, np.uint8), [track], 0.5)
    x, y, width, height = sam2.bounding_box(changed(picture))
    return (x, y, width, height), picture[y : y + height, x : x + width]


def test_the_name_stands_above_the_object_and_whole_at_every_edge():
    (x, y, width, height), name = plate(CENTRE)
    assert x == CENTRE[0] and 0 <= CENTRE[1] - (y + height) <= 8
    for line in (name[0], name[-1], name[:, 0], name[:, -1]):
        assert (line == name[0, 0]).all(), "the letters end before the plate does"
    assert (name < 40).all(axis=-1).any()
    right = SIZE_HW[1] - width
    for xy, place in {(2, 2): (2, 0), (310, 2): (right, 0), (310, 239): (right, y + 239 - CENTRE[1])}.items():
        found, same = plate(xy)
        assert found[:2] == place and np.array_equal(same, name)


def test_an_object_never_seen_is_not_drawn_and_one_removed_is_forgotten():
    overlay = Overlay()
    assert not changed(overlay.draw(grey(), tracks("cup", state=sam2.State.OCCLUDED), 0.5)).any()
    overlay.draw(grey(), tracks("cup"), 0.5)
    overlay.draw(grey(), [], 0.5)
    assert not changed(overlay.draw(grey(), tracks("cup", state=sam2.State.OCCLUDED), 0.5)).any()


def test_the_name_is_written_above_the_object_in_dark_letters():
    (track,) = tracks("cup")
    above = Overlay().draw(grey(), [track], 0.5)[: track.box_xywh[1] - 4]
    assert (above < 80).all(axis=-1).any()


def luminance(rgb):
    """Relative luminance, 0..1, of (..., 3) sRGB colours (WCAG 2)."""
    channels = np.asarray(rgb) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("state", [sam2.State.VISIBLE, sam2.State.OCCLUDED])
def test_the_name_can_be_read_whatever_the_colour(state):
    (_, _, _, height), _ = plate(CENTRE, (480, 640))
    for label in range(1, 255):
        _, name = plate(CENTRE, (480, 640), label=label, state=state)
        lights = luminance(name[:height]) + 0.05  # below are the dashes of its box
        assert max(lights.max() / lights[0, 0], lights[0, 0] / lights.min()) > 2.5, label


def test_name_and_confidence_are_written():
    (track,) = tracks("cup")
    others = [dataclasses.replace(track, object_id="mug"), dataclasses.replace(track, presence=0.5)]
    written = [Overlay().draw(grey(), [one], 0.5).tobytes() for one in (track, *others)]
    assert len(set(written)) == 3


def test_the_state_is_written_differently_from_the_name():
    overlay = Overlay()
    overlay.draw(grey(), tracks("cup"), 0.5)
    occluded = overlay.draw(grey(), tracks("cup", state=sam2.State.OCCLUDED), 0.5)
    lost = overlay.draw(grey(), tracks("cup", state=sam2.State.LOST), 0.5)
    assert not np.array_equal(occluded, lost)


@pytest.mark.parametrize("size_hw", [(16, 16), (17, 400), (400, 17), (1080, 1920)])
@pytest.mark.parametrize("name", ["", "a", "ä" * 300])
def test_any_size_and_any_name(size_hw, name):
    prompt = sam2.Prompt(name, points_xy=[(size_hw[1] - 1, size_hw[0] - 1)], labels=[1])
    made = FakeTracker().step(sam2.Frame(np.zeros((*size_hw, 3), np.uint8), 1), [prompt])
    assert Overlay().draw(np.zeros((*size_hw, 3), np.uint8), made, 0.5).shape == (*size_hw, 3)


def test_neighbouring_labels_have_colours_that_differ():
    colours = np.array([colour_of(label) for label in range(1, 255)], int)
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 60
    first = colours[:8]
    apart = np.abs(first[:, None] - first[None]).max(axis=-1)
    assert apart[~np.eye(8, dtype=bool)].min() > 25
