"""Receives requests from topics, and makes the services. Each is answered exactly once, in every state of the node.

Knows messages and codes. Does not know how a request is carried out.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from geometry_msgs.msg import Point, PointStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

import sam2
from sam2_ros import prompt_in, vision
from sam2_ros.hand_off import Detection
from sam2_ros.matched_subscription import MatchedSubscription
from sam2_ros.msg import Prompt, PromptResult
from sam2_ros.pending_requests import ANOTHER_CLOCK_NS, code_of
from sam2_ros.readable import readable, reason_of
from sam2_ros.requests import Add, Answer, Code, Request
from sam2_ros.ros_time import stamp_ns, time_message
from sam2_ros.services import Services

if TYPE_CHECKING:
    from sam2_ros.channel import Channel

REFUSALS_EVERY_S = 5.0  # in the log
HANGS = "the network hangs; whether this will still be done is not known"
# Queue depths, for requests that come at once; the middleware never frees the memory of its fullest moment.
BURST, BURST_WITH_MASKS = 1000, 100


class Asked(NamedTuple):
    """One prompt of a request, before it is read."""

    header: Header
    object_id: str  # "" = a new object
    read: Callable[[], sam2.Prompt]  # converts its message; raises BadInput


class RequestInputs:
    """One camera's subscriptions and services; exists as long as the node."""

    def __init__(self, channel: "Channel") -> None:
        self._posted: set[Request] = set()  # not answered yet
        self._ticked_ns = self._awake_since_ns = 0
        self._channel = channel
        self._node = node = channel.node
        # Answers wait in coroutines; in a mutually exclusive group one would hold up all the others.
        group = ReentrantCallbackGroup()
        # A burst must fit into the queue: the middleware drops the rest, which then never gets an answer.
        room = node.settings.prompt_queue
        burst, with_masks = (QoSProfile(depth=max(depth, room)) for depth in (BURST, BURST_WITH_MASKS))
        self._results = node.create_publisher(PromptResult, channel.output_name("prompt_result"), burst)
        for kind, topic, callback, qos in (
            (Prompt, "prompts", self._on_prompt, with_masks),
            (PointStamped, "click", self._on_click, burst),
            (Point, "click_point", self._on_click_point, burst),
        ):
            node.create_subscription(kind, channel.output_name(topic), callback, qos, callback_group=group)
        if vision.INSTALLED:
            self._detections = MatchedSubscription(
                node, vision.Detection2DArray, channel.output_name("prompt_detections"), self._on_detections, 10,
                "auto_reliable", SubscriptionEventCallbacks(use_default_callbacks=False),
            )  # fmt: skip
            self._detections.open()
        self.services = Services(channel, self, group, burst, with_masks)

    def look_for_detector(self) -> bool:
        """Whether detections have a publisher; known before the first message, which will be about an earlier image."""
        if vision.INSTALLED:
            self._detections.follow()
        return vision.INSTALLED and bool(self._detections.publishers)

    def close(self, for_good: bool) -> None:
        """Answers STOPPING to waiting prompts, for which no image will come; for good: to all other requests, too."""
        if for_good:
            self.services.close()
        for request in self._posted:
            try:
                if for_good:
                    request.answer(Code.STOPPING, "the node is stopping")
                elif isinstance(request, Add):
                    request.give_up(Code.STOPPING, "the node is being deactivated")
            except Exception as error:  # an answer that cannot be delivered must not affect the others
                self._channel.counters.note_failure("request", error, self._channel.log)

    def tick(self) -> None:
        """Answers in place of a worker that hangs. Time in which the whole process was suspended does not count."""
        now_ns = time.monotonic_ns()
        settings, slept_ns, self._ticked_ns = self._node.settings, now_ns - self._ticked_ns, now_ns
        if slept_ns > max(settings.hang_after_s, 2.0) * 1e9:  # 2 s are many ticks
            self._awake_since_ns = now_ns
        patience_s = settings.prompt_wait_s + settings.hang_after_s
        for request in list(self._posted):
            is_old = now_ns - max(request.asked_ns, self._awake_since_ns) > patience_s * 1e9
            if is_old and self._node.is_hanging and not request.answered:
                self._channel.counters.count_failure("request", HANGS)
                request.answer(Code.INTERNAL, HANGS)
            if request.answered:
                self._posted.discard(request)

    def post_request(self, request: Request) -> None:
        self._posted.add(request)
        self._channel.pipeline.mailbox.post_request(request)

    def _on_prompt(self, msg: Prompt) -> None:
        self.add_messages([msg])

    def _on_click(self, msg: PointStamped) -> None:
        asked = Asked(msg.header, "", lambda: prompt_in.from_click(msg.point, stamp_ns(msg.header.stamp)))
        self._add([asked], newest_will_do=True)

    def _on_click_point(self, msg: Point) -> None:
        # The message has no stamp: it means the next image or, if none comes, the newest.
        self._add([Asked(Header(), "", lambda: prompt_in.from_click(msg))], newest_will_do=True)

    def _on_detections(self, msg: "vision.Detection2DArray") -> None:
        if self._channel.why_closed(needs_image=True):
            self._channel.counters.count_detections("while closed", len(msg.detections))
            return
        try:
            prompt_in.check_frame(msg.header.frame_id, self._channel.camera.frame_id)
        except sam2.BadInput as error:
            self._channel.counters.count_detections("of another frame", len(msg.detections))
            self._channel.log.warning(readable(f"detections: {error}"), throttle_duration_sec=REFUSALS_EVERY_S)
            return
        stamp, newest_ns = stamp_ns(msg.header.stamp), self._channel.camera.newest_ns
        ahead_ns = stamp - newest_ns if newest_ns else 0
        if of_another_clock := ahead_ns >= ANOTHER_CLOCK_NS:
            late = f"detections: their stamp is {ahead_ns / 1e9:.3f} s later than the newest image's"
            self._channel.log.warning(f"{late}; is it of another clock?", throttle_duration_sec=REFUSALS_EVERY_S)
        detections = [Detection(*values) for values in vision.read_detections(msg)]
        pipeline = self._channel.pipeline
        pipeline.auto.post(stamp, detections, of_another_clock)
        pipeline.mailbox.wake()

    def answer_detector(self, object_id: str | None, stamp: int, answer: Answer) -> None:
        """Publishes the result of a request made for a detector. Called by the worker. object_id: the object prompted,
        "" = a new one, None = objects were removed; stamp: of the image that it is about."""
        header = Header(stamp=time_message(stamp), frame_id=self._channel.camera.frame_id)
        self._publish_results([(header, object_id)] if object_id is not None else [], answer)

    def add_messages(self, messages: Sequence[Prompt], reply: Callable[[Answer], None] | None = None) -> None:
        """Posts one request with all prompts. reply: called with the answer; None for prompts from topics."""
        most = self._node.settings.max_pixels
        self._add([Asked(m.header, m.object_id, partial(prompt_in.from_message, m, most)) for m in messages], reply)

    def _add(
        self, asked: list[Asked], reply: Callable[[Answer], None] | None = None, newest_will_do: bool = False
    ) -> None:
        """newest_will_do: as in `Add`."""

        heads = [(one.header, one.object_id) for one in asked]  # the messages, with their masks, are not kept

        def answered(answer: Answer) -> None:
            try:
                self._publish_results(heads, answer, asks_again=reply is not None)
            finally:  # a service's client waits for its response, also if the result cannot be published
                if reply is not None:
                    reply(answer)

        def check_frames() -> None:
            for index, (header, _) in enumerate(heads):
                with prompt_in.numbered(index, len(heads)):
                    prompt_in.check_frame(header.frame_id, self._channel.camera.frame_id)

        deadline_ns = time.monotonic_ns() + int(self._node.settings.prompt_wait_s * 1e9)
        request = Add([], deadline_ns, answered, newest_will_do=newest_will_do, check=check_frames)
        try:
            closed = self._channel.why_closed(needs_image=True)
            if closed:
                request.answer(*closed)
                return
            if not asked:
                raise sam2.BadInput("prompts: expected one or more, got none")
            times = Counter(one.object_id for one in asked if one.object_id)
            if again := [name for name, count in times.items() if count > 1]:
                raise sam2.BadInput(f"one id is prompted twice in one request: {', '.join(again)}")
            # They could never fit; thousands of them would keep executor and worker busy for seconds.
            if len(asked) > (most := self._node.settings.max_objects):
                raise sam2.LimitReached(f"{len(asked)} objects in one request: expected at most max_objects = {most}")
            check_frames()
            for index, one in enumerate(asked):
                with prompt_in.numbered(index, len(asked)):
                    request.prompts.append(one.read())
            self.post_request(request)
        except sam2.BadInput as error:
            request.answer(code_of(error), str(error))
        except Exception as error:  # no memory for a mask, say: who asked must not wait for ever
            request.give_up(Code.INTERNAL, reason_of(error))
            raise

    def _publish_results(self, asked: list[tuple[Header, str]], answer: Answer, asks_again: bool = False) -> None:
        """asked: header and object id of each prompt."""
        self._channel.counters.count_answer(answer.code.name, time.monotonic_ns(), answer.sentence)
        # For prompts from topics the log may be the only answer that anybody sees.
        if asked and answer.code is not Code.OK and not (asks_again and answer.code is Code.LOADING):
            text = f"prompt refused: {answer.code.name}: {answer.sentence}"
            self._channel.log.warning(text, throttle_duration_sec=REFUSALS_EVERY_S)
        for index, (header, object_id) in enumerate(asked):
            done = answer.code is Code.OK
            result = PromptResult(
                header=answer.headers[index] if done else header,
                object_id=answer.object_ids[index] if done else object_id,
                code=int(answer.code), sentence=answer.sentence, label=answer.labels[index] if done else 0,
            )  # fmt: skip
            if self._node.context.ok():
                self._results.publish(result)
