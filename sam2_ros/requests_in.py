"""Every way in for requests: topics and services. Each request is answered exactly once, in every state of the node.

Services wait for the worker in coroutines, so that the executor goes on. Knows messages and codes. Does not know how a
request is carried out.
"""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from geometry_msgs.msg import Point, PointStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import QoSProfile
from rclpy.task import Future
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

import sam2
from sam2_ros import prompt_in, vision
from sam2_ros.hand_off import Detection
from sam2_ros.msg import Prompt, PromptResult, Track
from sam2_ros.readable import readable, utf8
from sam2_ros.requests import Add, Answer, Code, Remove, Request, Reset, Restore, Save
from sam2_ros.ros_time import stamp_ns, time_message
from sam2_ros.srv import AddObjects, ListObjects, RemoveObjects, RestoreObjects, SaveObjects, SetTarget
from sam2_ros.track_out import track_message

if TYPE_CHECKING:
    from sam2_ros.channel import Channel

REFUSALS_EVERY_S = 5.0  # in the log
HANGS = "the network hangs; whether this will still be done is not known"
Asked = tuple[Header, str, Callable[[], sam2.Prompt]]  # header, object id, and how to read the prompt
BURST, BURST_WITH_MASKS = 1000, 100  # requests that may come at once; the middleware keeps the memory of the fullest


class RequestInputs:
    """One camera's subscriptions and services; exists as long as the node."""

    def __init__(self, channel: "Channel") -> None:
        self.waiting_clients = 0  # of services
        self._posted: set[Request] = set()  # not answered yet
        self._ticked_ns = self._awake_since_ns = 0
        self._aside = ThreadPoolExecutor(1, "aside")  # for work too slow for the executor and not meant for the worker
        self._listed: tuple = (None, None)  # the newest result listed, and its list
        self._channel = channel
        self._node = node = channel.node
        # Answers wait in coroutines; in a mutually exclusive group one would hold up all the others.
        group = ReentrantCallbackGroup()
        # A burst must fit into the queue: the middleware drops the rest, which then never gets an answer.
        room = node.settings.prompt_queue
        burst, with_masks = (QoSProfile(depth=max(depth, room)) for depth in (BURST, BURST_WITH_MASKS))
        self._results = node.create_publisher(PromptResult, channel.output("prompt_result"), burst)
        for kind, topic, callback, qos in (
            (Prompt, "prompts", self._on_prompt, with_masks),
            (PointStamped, "click", self._on_click, burst),
            (Point, "click_point", self._on_click_point, burst),
        ):
            node.create_subscription(kind, channel.output(topic), callback, qos, callback_group=group)
        if vision.INSTALLED:
            topic, qos = channel.output("prompt_detections"), QoSProfile(depth=10)
            self._detections = node.create_subscription(
                vision.Detection2DArray, topic, self._on_detections, qos, callback_group=group
            )
        for kind, name, callback in (
            (AddObjects, "add_objects", self._add_objects),
            (RemoveObjects, "remove_objects", self._remove_objects),
            (ListObjects, "list_objects", self._list_objects),
            (SetTarget, "set_target", self._set_target),
            (SaveObjects, "save", self._save),
            (RestoreObjects, "restore", self._restore),
            (Trigger, "reset", self._reset),
            (SetBool, "enable", self._enable),
        ):
            qos = with_masks if kind is AddObjects else burst
            node.create_service(
                kind, channel.output(name), self._always_answered(callback), qos_profile=qos, callback_group=group
            )

    @property
    def has_detector(self) -> bool:
        """Whether somebody publishes detections; known before the first comes, which will be about an earlier image."""
        return vision.INSTALLED and self._node.count_publishers(self._detections.topic_name) > 0

    def close(self, for_good: bool) -> None:
        """Answers waiting prompts, for which no image will come; for good: answers all other requests, too."""
        if for_good:
            self._aside.shutdown(wait=False)
        for request in self._posted:
            if for_good:
                request.answer(Code.STOPPING, "the node is stopping")
            elif isinstance(request, Add):
                request.give_up(Code.STOPPING, "the node is being deactivated")

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

    def _post_request(self, request: Request) -> None:
        self._posted.add(request)
        self._channel.mailbox.post_request(request)

    def _on_prompt(self, msg: Prompt) -> None:
        self._add([(msg.header, msg.object_id, lambda: self._read(msg))])

    def _on_click(self, msg: PointStamped) -> None:
        def read() -> sam2.Prompt:
            prompt_in.check_frame(msg.header.frame_id, self._channel.camera.frame_id)
            return prompt_in.from_click(msg.point.x, msg.point.y, stamp_ns(msg.header.stamp))

        self._add([(msg.header, "", read)])

    def _on_click_point(self, msg: Point) -> None:
        self._add([(Header(), "", lambda: prompt_in.from_click(msg.x, msg.y))])

    def _on_detections(self, msg) -> None:
        if self._channel.closed(adding=True):
            self._channel.counters.count_detections("while closed", len(msg.detections))
            return
        try:
            prompt_in.check_frame(msg.header.frame_id, self._channel.camera.frame_id)
        except sam2.BadInput as error:
            self._channel.counters.count_detections("of another frame", len(msg.detections))
            self._channel.log.warning(readable(f"detections: {error}"), throttle_duration_sec=REFUSALS_EVERY_S)
            return
        detections = [Detection(*values) for values in vision.read_detections(msg)]
        self._channel.auto.post(stamp_ns(msg.header.stamp), detections)
        self._channel.mailbox.wake()

    def answer_detector(self, object_id: str | None, stamp: int, answer: Answer) -> None:
        """Called by the worker. object_id: the one prompted, "" = a new object, None = objects were removed; stamp: of
        the image that the detector saw."""
        header = Header(stamp=time_message(stamp), frame_id=self._channel.camera.frame_id)
        self._publish_results([(header, object_id, None)] if object_id is not None else [], answer)

    def _read(self, msg: Prompt) -> sam2.Prompt:
        prompt_in.check_frame(msg.header.frame_id, self._channel.camera.frame_id)
        return prompt_in.from_message(msg)

    def _add(self, asked: list[Asked], reply: Callable | None = None) -> None:
        """Posts one request of several prompts. `reply` gets the answer; there is none for prompts from topics."""

        def answered(answer: Answer) -> None:
            self._publish_results(asked, answer, asks_again=reply is not None)
            if reply is not None:
                reply(answer)

        request = Add([], time.monotonic_ns() + int(self._node.settings.prompt_wait_s * 1e9), answered)
        closed = self._channel.closed(adding=True)
        if closed:
            request.answer(*closed)
            return
        try:
            if again := [name for name, times in Counter(n for _, n, _ in asked if n).items() if times > 1]:
                raise sam2.BadInput(f"one id is prompted twice in one request: {', '.join(again)}")
            request.prompts = [prompt_in.numbered(index, len(asked), one[2]) for index, one in enumerate(asked)]
        except sam2.BadInput as error:
            request.answer(Code.BAD_INPUT, str(error))
            return
        self._post_request(request)

    def _publish_results(self, asked: list[Asked], answer: Answer, asks_again: bool = False) -> None:
        self._channel.counters.count_answer(answer.code.name, time.monotonic_ns())
        # For prompts from topics the log may be the only answer that anybody sees.
        if asked and answer.code is not Code.OK and not (asks_again and answer.code is Code.LOADING):
            text = f"prompt refused: {answer.code.name}: {answer.sentence}"
            self._channel.log.warning(text, throttle_duration_sec=REFUSALS_EVERY_S)
        for index, (header, name, _) in enumerate(asked):
            done = answer.code is Code.OK
            result = PromptResult(
                header=answer.headers[index] if done else header,
                object_id=answer.object_ids[index] if done else name,
                code=int(answer.code), sentence=answer.sentence, label=answer.labels[index] if done else 0,
            )  # fmt: skip
            if self._node.context.ok():
                self._results.publish(result)

    def _always_answered(self, callback: Callable) -> Callable:
        """Wraps a service so that its client gets a response whatever happens inside."""

        async def answer(request, response):
            self.waiting_clients += 1
            try:
                await callback(request, response)
            except Exception as error:
                sentence = readable(repr(error))
                self._channel.log.error(f"inside a service: {sentence}")
                if hasattr(response, "code"):
                    response.code, response.sentence = int(Code.INTERNAL), sentence
                else:
                    response.success, response.message = False, sentence
            finally:
                self.waiting_clients -= 1
            return response

        return answer

    async def _add_objects(self, request, response) -> None:
        asked = [(m.header, m.object_id, lambda m=m: self._read(m)) for m in request.prompts]
        answer = await self._answer_of(lambda reply: self._add(asked, reply))
        response.code, response.sentence = int(answer.code), answer.sentence
        response.object_ids = list(answer.object_ids)

    async def _remove_objects(self, request, response) -> None:
        answer = await self._post(lambda reply: Remove(list(request.object_ids), reply))
        response.code, response.sentence = int(answer.code), answer.sentence
        response.unknown_ids = list(answer.unknown_ids)

    async def _list_objects(self, request, response) -> None:
        closed = self._channel.closed(adding=False)
        if closed:
            response.code, response.sentence = int(closed[0]), closed[1]
            return
        made = await self._answer_of(self._aside.submit(self._list).add_done_callback)
        response.header, response.objects = made.result()
        response.age, response.sentence = self._channel.newest_age_s, self._channel.waiting

    def _list(self) -> tuple[Header, list[Track]]:
        """The list for the newest result, made once for all clients. In the thread `_aside`."""
        newest = self._channel.newest
        if newest is not self._listed[0]:
            header, tracks = newest
            self._listed = newest, (header or Header(), [track_message(track, with_mask=False) for track in tracks])
        return self._listed[1]

    async def _set_target(self, request, response) -> None:
        closed = self._channel.closed(adding=False)
        known = self._channel.object_ids
        if closed:
            response.code, response.sentence = int(closed[0]), closed[1]
        elif request.object_id and request.object_id not in known:
            response.code = int(Code.UNKNOWN_OBJECT)
            response.sentence = f"not tracked: {request.object_id!r}; tracked: {', '.join(known) or 'nothing'}"
        else:
            self._channel.outputs.target = request.object_id

    async def _save(self, request, response) -> None:
        answer = await self._post(
            lambda reply: Save(self._channel.saved_path(request.name), list(request.object_ids), reply)
        )
        response.code, response.sentence = int(answer.code), answer.sentence
        if answer.code is Code.OK:
            response.object_ids = list(answer.object_ids)
            response.path = utf8(str(self._channel.saved_path(request.name)))

    async def _restore(self, request, response) -> None:
        ids, max_age_s = list(request.object_ids), request.max_age_s
        answer = await self._post(lambda reply: Restore(self._channel.saved_path(request.name), ids, max_age_s, reply))
        response.code, response.sentence = int(answer.code), answer.sentence
        response.object_ids = list(answer.object_ids) if answer.code is Code.OK else []

    async def _reset(self, request, response) -> None:
        answer = await self._post(Reset)
        response.success = answer.code is Code.OK
        response.message = "" if response.success else f"{answer.code.name}: {answer.sentence}"

    async def _enable(self, request, response) -> None:
        self._channel.enable(request.data)
        response.success = True
        response.message = "images are processed" if request.data else "images are ignored; objects are kept"

    async def _post(self, make: Callable) -> Answer:
        """Posts a request that needs no image, and waits for its answer. make: takes the reply; may raise BadInput."""

        def post(reply: Callable) -> None:
            def counted(answer: Answer) -> None:
                self._channel.counters.count_answer(answer.code.name, time.monotonic_ns())
                reply(answer)

            closed = self._channel.closed(adding=False)
            try:
                request = Request(counted) if closed else make(counted)
            except sam2.BadInput as error:
                request, closed = Request(counted), (Code.BAD_INPUT, str(error))
            if closed:
                request.answer(*closed)
            else:
                self._post_request(request)

        return await self._answer_of(post)

    async def _answer_of(self, post: Callable[[Callable[[Answer], None]], None]) -> Answer:
        """Calls `post` with a reply function that any thread may call, and waits without holding the executor."""
        future = Future()
        future.add_done_callback(lambda _: self._node.executor and self._node.executor.wake())
        post(future.set_result)
        return await future
