"""A camera's services. Whatever happens inside, each client gets its response, in every state of the node.

They wait for the worker in coroutines, so that they do not block the executor. Knows the service messages. Does not
know how a request is carried out.
"""

import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import QoSProfile
from rclpy.task import Future
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

import sam2
from sam2_ros.msg import Track
from sam2_ros.newest_result import NewestResult
from sam2_ros.readable import readable, utf8
from sam2_ros.requests import Answer, Code, Remove, Request, Reset, Restore, Save
from sam2_ros.srv import AddObjects, ListObjects, RemoveObjects, RestoreObjects, SaveObjects, SetTarget
from sam2_ros.track_out import track_message

if TYPE_CHECKING:
    from sam2_ros.channel import Channel
    from sam2_ros.requests_in import RequestInputs


T = TypeVar("T")


class Services:
    """Exists as long as the node. inputs: posts the requests. with_masks: QoS of `add_objects`, whose requests are
    larger; qos: of the others."""

    def __init__(
        self, channel: "Channel", inputs: "RequestInputs", group: ReentrantCallbackGroup, qos: QoSProfile,
        with_masks: QoSProfile,
    ) -> None:  # fmt: skip
        self.waiting_clients = 0
        self._channel, self._inputs, self._node = channel, inputs, channel.node
        self._aside = ThreadPoolExecutor(1, "aside")  # for work that would block the executor and needs no network
        # A weak reference to the result listed last, whose masks may take a hundred megabytes, and its list.
        self._listed: tuple[Callable[[], NewestResult | None], list[Track]] = (lambda: None, [])
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
            self._node.create_service(
                kind, channel.output_name(name), self._always_answered(callback),
                qos_profile=with_masks if kind is AddObjects else qos, callback_group=group,
            )  # fmt: skip

    def close(self) -> None:
        """Stops the thread that makes lists."""
        self._aside.shutdown(wait=False)

    def _always_answered(self, callback: Callable) -> Callable:
        """Wraps a service so that its client gets a response whatever happens inside. callback: returns the answer,
        whose code and sentence are then put into the response."""

        async def respond(request: Any, response: Any) -> Any:  # of any service
            self.waiting_clients += 1
            try:
                answer = await callback(request, response)
            except Exception as error:
                answer = Answer(Code.INTERNAL, readable(repr(error)))
                self._channel.log.error(f"inside a service: {answer.sentence}")
            finally:
                self.waiting_clients -= 1
            if hasattr(response, "code"):
                response.code, response.sentence = int(answer.code), answer.sentence
            else:  # of std_srvs
                response.success = answer.code is Code.OK
                response.message = answer.sentence if response.success else f"{answer.code.name}: {answer.sentence}"
            return response

        return respond

    async def _add_objects(self, request: AddObjects.Request, response: AddObjects.Response) -> Answer:
        answer: Answer = await self._answer_of(lambda reply: self._inputs.add_messages(request.prompts, reply))
        response.object_ids = list(answer.object_ids)
        return answer

    async def _remove_objects(self, request: RemoveObjects.Request, response: RemoveObjects.Response) -> Answer:
        answer = await self._post(lambda reply: Remove(list(request.object_ids), reply))
        response.unknown_ids = list(answer.unknown_ids)
        return answer

    async def _list_objects(self, request: ListObjects.Request, response: ListObjects.Response) -> Answer:
        if closed := self._channel.why_closed(needs_image=False):
            return Answer(*closed)
        made: Any = await self._answer_of(lambda reply: self._aside.submit(self._list, reply))
        if isinstance(made, Exception):
            raise made
        newest, response.objects = made
        response.header = newest.header or Header()
        response.age = newest.age_s
        return Answer(Code.OK, newest.waiting)

    def _list(self, reply: Callable) -> None:
        """Replies with the newest result and its list, which is made once for all clients, or with an error. In the
        thread `_aside`, whose future must not be the reply: that cycle would keep the result until the next collection
        of garbage, perhaps for minutes."""
        try:
            newest = self._channel.newest
            if newest is not self._listed[0]():
                self._listed = weakref.ref(newest), [track_message(track, with_mask=False) for track in newest.tracks]
        except Exception as error:
            reply(error)
        else:
            reply((newest, self._listed[1]))

    async def _set_target(self, request: SetTarget.Request, response: SetTarget.Response) -> Answer:
        if closed := self._channel.why_closed(needs_image=False):
            return Answer(*closed)
        known = self._channel.newest.object_ids
        if request.object_id and request.object_id not in known:
            sentence = f"not tracked: {request.object_id!r}; tracked: {', '.join(known) or 'nothing'}"
            return Answer(Code.UNKNOWN_OBJECT, readable(sentence))
        self._channel.target = request.object_id
        return Answer(Code.OK)

    async def _save(self, request: SaveObjects.Request, response: SaveObjects.Response) -> Answer:
        answer = await self._post(
            lambda reply: Save(self._channel.saved_path(request.name), list(request.object_ids), reply)
        )
        response.object_ids = list(answer.object_ids)
        if answer.code is Code.OK:
            response.path = utf8(str(self._channel.saved_path(request.name)))
        return answer

    async def _restore(self, request: RestoreObjects.Request, response: RestoreObjects.Response) -> Answer:
        ids, max_age_s = list(request.object_ids), request.max_age_s
        answer = await self._post(lambda reply: Restore(self._channel.saved_path(request.name), ids, max_age_s, reply))
        response.object_ids = list(answer.object_ids)
        return answer

    async def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Answer:
        return await self._post(Reset)

    async def _enable(self, request: SetBool.Request, response: SetBool.Response) -> Answer:
        self._channel.enable(request.data)
        return Answer(Code.OK, "images are processed" if request.data else "images are ignored; objects are kept")

    async def _post(self, make: Callable) -> Answer:
        """Posts a request that needs no image, and waits for its answer. make: takes the reply; may raise BadInput."""

        def post(reply: Callable) -> None:
            def counted(answer: Answer) -> None:
                self._channel.counters.count_answer(answer.code.name, time.monotonic_ns(), answer.sentence)
                reply(answer)

            try:
                if closed := self._channel.why_closed(needs_image=False):
                    Request(counted).answer(*closed)
                else:
                    self._inputs.post_request(make(counted))
            except sam2.BadInput as error:
                Request(counted).answer(Code.BAD_INPUT, str(error))

        return await self._answer_of(post)

    async def _answer_of(self, post: Callable[[Callable[[T], None]], object]) -> T:
        """Calls `post` with a reply function that any thread may call, and waits without holding the executor."""

        def wake(_: Future) -> None:
            if self._node.executor is not None:
                self._node.executor.wake()

        future: Future[T] = Future()
        future.add_done_callback(wake)
        post(future.set_result)
        return await future  # type: ignore[return-value]
