"""Prompts files made to harm, or by mistake: each is refused at once, in one short line that says where."""

import struct
import time
import zlib

import pytest

import sam2
from sam2_ros import prompt_file

PLACE = "- object_id: cup\n  points: [[1, 1]]\n"
LISTS = ["&x0 [x]"] + [f"&x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 8)]  # written out 25 MB


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            PLACE + "  frame: " + "1" * 5000,
            "entry 1 ('cup'): frame: expected the number of an image, from 0, got '11",
        ),
        (PLACE + "  stamp: 1e900000", "stamp: expected seconds above 0 and below 10000000000, got '1e900000'"),
        (PLACE + "  stamp: sNaN", "stamp: expected seconds above 0 and below 10000000000, got 'sNaN'"),
        (PLACE + "  stamp: 10000000000", "stamp: expected seconds above 0 and below 10000000000"),
        (PLACE + "  stamp: [1]", "stamp: expected seconds above 0 and below 10000000000, got ['1']"),
        ("- " + "[" * 5000, "expected a YAML file: maximum recursion depth"),
        (f"- {{points: [{', '.join(LISTS)}]}}", "entry 1: expected fields, one of them object_id, got {'points': [["),
        (f"- {{object_id: [{', '.join(LISTS)}]}}", "object_id: expected one text, got [['x'], "),
        (f"- {{object_id: cup, points: [{', '.join(LISTS)}]}}", "points: expected a list of numbers, got [['x'], "),
        ("- object_id: cup\n  mask: " + "m" * 300, "mask: expected an image file, found none at"),
        ('- object_id: cup\n  mask: "a\\0b"', "mask: expected an image file, found none at"),
        ("- object_id: cup\n  mask: huge.png", "mask: expected an image file, found none at"),
        ("- object_id: " + "c" * 100_000 + "\n  frame: -1", "frame: expected the number of an image, from 0, got '-1'"),
    ],
)
def test_a_prompts_file_is_refused_in_a_short_line(text, says, tmp_path):
    (tmp_path / "huge.png").write_bytes(png_of(100_000, 100_000))
    (tmp_path / "p.yaml").write_text(text)
    began_s = time.process_time()
    with pytest.raises(sam2.BadInput) as refusal:
        prompt_file.read(tmp_path / "p.yaml")
    said = str(refusal.value)
    assert says in said and "\n" not in said and len(said) < 1000 and time.process_time() - began_s < 10
    assert said.removeprefix("prompts ").startswith(str(tmp_path / "p.yaml"))


def png_of(width, height):
    """An image that says it is so large."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_what_a_prompts_file_may_say_is_what_it_could_say(tmp_path):
    text = (
        "- {object_id: cup, stamp: 1700000000.123456789, points: &here [[1, 2]]}\n- {object_id: 007, points: *here}\n"
    )
    (tmp_path / "p.yaml").write_text(text + "- {object_id: mug, frame: 0012, box: [1, 2, 3.5, 4]}\n")
    cup, seven, mug = prompt_file.read(tmp_path / "p.yaml")
    assert cup.stamp_ns == 1_700_000_000_123_456_789 and mug.frame == 12 and mug.prompt.box_xyxy == [1, 2, 3.5, 4]
    assert seven.prompt.object_id == "007" and seven.prompt.points_xy == cup.prompt.points_xy == [[1, 2]]
