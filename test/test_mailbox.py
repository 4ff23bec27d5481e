"""The newest image wins, requests keep their order and their bound, and each is answered exactly once."""

import threading

import pytest

from sam2_ros.mailbox import Arrival, Mailbox, wait_for_any
from sam2_ros.requests import Add, Code, Remove, Request, Reset


def arrival(n, new_stream=False):
    return Arrival(message=n, stamp_ns=n, arrived_ns=n, new_stream=new_stream)


def request():
    answers = []
    made = Request(answers.append)
    return made, answers


def test_the_newest_image_wins_and_each_replaced_one_is_reported():
    box = Mailbox(4)
    assert [box.post_image(arrival(n)) for n in range(3)] == [False, True, True]
    assert box.take().arrival == arrival(2)
    assert box.take().arrival is None


def test_an_event_outlives_the_image_that_brought_it():
    box = Mailbox(4)
    box.post_image(arrival(1, new_stream=True))
    box.post_image(arrival(2))
    assert box.take().arrival == arrival(2, new_stream=True)
    box.post_image(arrival(3))
    assert box.take().arrival == arrival(3)
    box.post_image(arrival(4, new_stream=True))
    assert box.discard_image()
    box.post_image(arrival(5))
    assert box.take().arrival == arrival(5, new_stream=True)
    box.post_image(arrival(6))
    assert box.take().arrival == arrival(6)


def test_requests_come_out_in_order_and_are_bounded():
    box = Mailbox(3)
    made = [request() for _ in range(5)]
    for one, _ in made:
        box.post_request(one)
    assert box.take().requests == [one for one, _ in made[:3]]
    assert [[a.code for a in answers] for _, answers in made] == [[], [], [], [Code.BUSY], [Code.BUSY]]


def test_what_the_worker_still_holds_counts():
    box = Mailbox(3)

    def posted():
        one, answers = request()
        box.post_request(one)
        return not answers

    assert [posted() for _ in range(3)] == [True] * 3
    assert len(box.take().requests) == 3
    assert not posted()  # three in hand
    box.count_in_hand(2)
    assert [posted(), posted()] == [True, False]


def test_a_closed_box_hands_back_what_is_left_and_answers_what_comes():
    box, (early, _), (late, answers) = Mailbox(3), request(), request()
    box.post_image(arrival(1))
    box.post_request(early)
    assert box.close() == [early]
    box.post_request(late)
    assert [a.code for a in answers] == [Code.STOPPING]
    assert box.take().arrival is None and box.take().requests == []


def test_only_the_first_answer_counts():
    made, answers = request()
    threads = [threading.Thread(target=made.answer, args=(Code.BUSY, str(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.answer(Code.OK)
    assert len(answers) == 1 and answers[0].code is Code.BUSY


@pytest.mark.parametrize("post", ["image", "request", "wake"])
def test_whatever_comes_ends_the_waiting(post):
    box = Mailbox(2)
    waiter = threading.Thread(target=wait_for_any, args=([Mailbox(2, box.bell), box], 60))
    waiter.start()
    {"image": lambda: box.post_image(arrival(1)), "request": lambda: box.post_request(request()[0]), "wake": box.wake}[
        post
    ]()
    waiter.join(30)
    assert not waiter.is_alive()
    taken = box.take()
    assert (taken.arrival is not None, len(taken.requests)) == (post == "image", post == "request")
    assert not box.has_work


def test_discard():
    box = Mailbox(2)
    assert not box.discard_image()
    box.post_image(arrival(1))
    assert box.discard_image() and box.take().arrival is None


def test_an_image_that_was_thrown_away_begins_no_stream_that_it_did_not_begin():
    box = Mailbox(2)
    box.post_image(arrival(1))
    assert box.discard_image()
    box.post_image(arrival(2))
    assert box.take().arrival == arrival(2)
    box.post_image(arrival(3, new_stream=True))
    assert box.discard_image() and not box.discard_image()
    box.post_image(arrival(4))
    assert box.take().arrival.new_stream, "what it owes is owed until there is an image"


def test_a_closed_box_that_is_full_says_that_it_is_closed():
    """Whoever is told that it is busy asks again."""
    box, (late, answers) = Mailbox(1), request()
    box.post_request(request()[0])
    box.take()
    box.close()
    box.post_request(late)
    assert [answer.sentence for answer in answers] == ["the node is stopping"]


def test_who_names_what():
    from sam2 import Prompt

    assert Add([Prompt("a"), Prompt("b")], 0, print).object_ids == {"a", "b"}
    assert Remove(["a", "a"], print).object_ids == {"a"}
    assert Reset(print).object_ids is None
