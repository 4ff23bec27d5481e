"""Text from elsewhere: what UTF-8 cannot hold is shown as an escape, and what is endless is cut."""

from sam2_ros.counters import Counters
from sam2_ros.readable import LONGEST, readable, utf8
from sam2_ros.refused import Refused
from sam2_ros.requests import Code, Reset

OLD_NAME = b"K\xfcche".decode(errors="surrogateescape")  # of a file, in Latin-1


def test_what_is_no_utf8_is_an_escape():
    assert utf8(OLD_NAME) == readable(OLD_NAME) == "K\\udcfcche" and utf8("Küche 杯子\n") == "Küche 杯子\n"


def test_what_is_endless_is_cut():
    assert utf8("x" * 5000) == "x" * 5000 and readable("x" * LONGEST) == "x" * LONGEST
    assert readable("x" * 5_000_000) == "x" * LONGEST + "… (5000000 characters)"


def test_a_text_from_elsewhere_is_one_line_that_commands_no_terminal():
    assert readable("a\n[FATAL] forged\r\t\x1b[31m\x9b\u2028\u202e") == (
        "a\\n[FATAL] forged\\r\\t\\x1b[31m\\x9b\\u2028\\u202e"
    )
    assert readable("Küche 杯子 😀 it's \\n") == "Küche 杯子 😀 it's \\n"


def test_a_traceback_has_its_lines_and_what_is_before_it_is_one():
    counters, logged = Counters(), []
    counters.note_failure("step", ValueError("a\n[FATAL] forged"), type("Log", (), {"error": logged.append}))
    first, *trace = logged[0].splitlines()
    assert first == "step: ValueError: a\\n[FATAL] forged; more of this kind are only counted"
    assert trace[0].startswith("ValueError: a")
    counters.miss_depth("frame 'a\n'")
    assert counters.depth_trouble == "frame 'a\\n'"


def test_everything_that_is_said_about_an_input_is_readable():
    """Before it is in a message: rclpy ends over the one, and a log fills up with the other."""
    answers, counters, logged = [], Counters(), []
    for give in (Reset.answer, Reset.give_up):
        give(Reset(answers.append), Code.BAD_INPUT, OLD_NAME + "x" * 10**6)
    counters.count_failure("step", OLD_NAME)
    counters.note_failure("callback", ValueError(OLD_NAME), type("Log", (), {"error": logged.append}))
    said = [answer.sentence for answer in answers] + [str(Refused("encoding", OLD_NAME + "x" * 10**6))]
    assert all(one.startswith("K\\udcfcche") and len(one) < LONGEST + 50 for one in said)
    assert counters.said["callback"] == "callback: ValueError: K\\udcfcche" and "K\\udcfcche" in logged[0]


def test_of_failures_of_a_kind_the_first_is_logged_and_all_are_counted():
    counters, logged = Counters(), []
    log = type("Log", (), {"error": logged.append})
    for error in (ValueError("a"), ValueError("b"), KeyError("c")):
        counters.note_failure("callback", error, log)
    assert counters.failures == {"callback: ValueError": 2, "callback: KeyError": 1} and len(logged) == 2
