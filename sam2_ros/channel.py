"""Everything the node has for one camera: inputs, requests, outputs and counters.

A camera named front has the topics front/image, ~/front/tracks and so on; a single camera without a name has image,
~/tracks and so on. Knows which parts belong together. Does not know lifecycle states.
"""

import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecyclePublisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.utilities import get_rmw_implementation_identifier

from sam2_ros import cyclone_dds, fast_dds, health, socket_buffers
from sam2_ros.announcer import Announcer
from sam2_ros.auto_prompt import AutoPrompt
from sam2_ros.camera import Camera
from sam2_ros.counters import Counters
from sam2_ros.depth_camera import DepthCamera
from sam2_ros.depth_out import DepthOut
from sam2_ros.health import Level, Situation
from sam2_ros.image_source import ImageSource
from sam2_ros.mailbox import Mailbox
from sam2_ros.newest_result import NewestResult
from sam2_ros.outputs import Outputs
from sam2_ros.params import Settings
from sam2_ros.pipeline import Pipeline
from sam2_ros.readable import readable
from sam2_ros.requests import Code
from sam2_ros.requests_in import RequestInputs
from sam2_ros.save_folder import saved_path
from sam2_ros.transforms import Transforms

if TYPE_CHECKING:
    from sam2_ros.node import TrackNode


class Channel:
    """Exists as long as the node; has a mailbox and publishers from `configure` to `release`.

    name: of the camera; "" = a single one without a name.
    """

    def __init__(self, node: "TrackNode", name: str) -> None:
        self.name, self.node = name, node
        # One logger per camera, so that messages name it, and throttling one camera does not silence another.
        self.log = node.get_logger().get_child(name) if name else node.get_logger()
        self.counters = Counters()
        self.source = ImageSource(domain=node.context.get_domain_id(), middleware=get_rmw_implementation_identifier())
        if self.source.middleware == cyclone_dds.NAME:
            self.source.receive_buffer_bytes = socket_buffers.most_bytes()
        elif self.source.middleware.startswith(fast_dds.NAME):
            self.source.receive_buffer_bytes = fast_dds.receive_buffer_bytes()
            self.source.transports = fast_dds.transports()
        self._why_no_image = partial(health.why_no_image, self.counters, self.source)
        self.enabled = True
        self._pipeline: Pipeline | None = None
        self._publishers: list[LifecyclePublisher] = []  # there may be some without a pipeline if `configure` failed
        self.target = node.settings.target  # object id; one chosen by service holds until the parameter is set
        self.depth: DepthCamera | None = None
        if node.settings.depth_enabled:
            topics = self.input_name("depth/image"), self.input_name("camera_info")
            self.depth = DepthCamera(node, topics, node.settings, self.counters, self.look_again)
        self.camera = Camera(
            node, self.input_name("image"), node.settings, self.counters, self.source, lambda: self.enabled,
            self.depth.buffer.note_image if self.depth else lambda stamp_ns: None, self.log,
        )  # fmt: skip
        self.inputs = RequestInputs(self)
        self._announcer = Announcer(node.get_logger())

    def input_name(self, topic: str) -> str:
        return f"{self.name}/{topic}" if self.name else topic

    def output_name(self, topic: str) -> str:
        return f"~/{self.name}/{topic}" if self.name else f"~/{topic}"

    @property
    def pipeline(self) -> Pipeline:
        """For code that runs only while the node is configured."""
        assert self._pipeline is not None, "there is no pipeline before `configure` and after `release`"
        return self._pipeline

    def configure(self, bell: threading.Condition, transforms: Transforms) -> Pipeline:
        """Creates the mailbox, the publishers and the pipeline for the worker. bell: shared by all mailboxes."""
        settings = self.node.settings
        self.counters.begin_anew()
        mailbox = Mailbox(settings.prompt_queue, bell)
        auto = AutoPrompt(settings, self.counters, self.inputs.answer_detector)
        depth = None
        if self.depth is not None:
            depth = DepthOut(self._create_output, self.depth, self.counters, transforms, self.log)
        outputs = Outputs(self._create_output, settings, lambda: self.target, self.log.warning, depth)
        closed = partial(self.why_closed, needs_image=True)
        self._pipeline = Pipeline(mailbox, settings, self.counters, outputs, auto, self.log, closed, self._why_no_image)
        return self._pipeline

    def take_settings(self, settings: Settings, names: set[str]) -> None:
        """Applies new parameters. names: of those that were set."""
        if "target" in names:
            self.target = settings.target
        if pipeline := self._pipeline:
            pipeline.settings = pipeline.outputs.settings = pipeline.auto.settings = settings

    def open(self) -> None:
        self.pipeline.outputs.open()
        if self.depth is not None:
            self.depth.open()
        self.camera.open(self.pipeline.mailbox)
        self.log.info(f"listening to {self.source.topic}")

    def enable(self, enabled: bool) -> None:
        """Starts or stops accepting images; when it stops, a waiting image is discarded."""
        self.enabled = enabled
        if not enabled:
            self.camera.discard_image()

    def close_inputs(self) -> None:
        self.camera.close()
        if self.depth is not None:
            self.depth.close()

    def close(self, for_good: bool = False) -> None:
        self.close_inputs()
        self.inputs.close(for_good)
        if self._pipeline is not None:
            self._pipeline.mailbox.wake()  # to serve requests that waited behind a prompt that was given up
            self._pipeline.outputs.close()

    def release(self) -> None:
        """Releases what `configure` created. The worker must have ended."""
        if self._pipeline is not None:
            self._pipeline.outputs.close()
        for publisher in self._publishers:
            self.node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        self._pipeline = None

    def saved_path(self, name: str) -> Path:
        """The file for objects saved as `name`. Raises what `save_folder.saved_path` raises."""
        node = self.node.get_fully_qualified_name()
        unusual = "" if node == f"/{self.node.DEFAULT_NAME}" else node
        return saved_path(self.node.settings.save_folder, unusual, self.name, name)

    def tick(self) -> None:
        self.inputs.tick()  # first, since the others fail while no file descriptor is left
        self.camera.tick()
        if self.depth is not None:
            self.depth.tick()
        if self.inputs.look_for_detector() and self._pipeline is not None:
            self._pipeline.auto.is_expected = True

    def statuses(self, situation: Situation) -> list[DiagnosticStatus]:
        """The diagnostics of this camera. situation: of the node."""
        situation = replace(
            situation, enabled=self.enabled, prefix=self.output_name(""), objects=len(self.newest.object_ids)
        )
        findings = health.report(self.counters, self.source, situation, self.node.settings, time.monotonic_ns())
        is_active = situation.state == "active"
        for finding in findings:
            if is_active or finding.level is not Level.OK:  # at rest nothing is wrong, but nothing is well again either
                self._announcer.hear(f"{self.name} {finding.name}".strip(), finding.level, finding.sentence)
        whose = f"{self.node.get_fully_qualified_name()}: " + (f"{self.name}: " if self.name else "")
        return [
            DiagnosticStatus(
                level=bytes([finding.level]), name=whose + finding.name, message=finding.sentence,
                hardware_id=readable(self.camera.frame_id),
                values=[KeyValue(key=key, value=value) for key, value in finding.values.items()],
            )
            for finding in findings
        ]  # fmt: skip

    def look_again(self) -> None:
        """Wakes the worker if results wait for depth or transforms: some have just come. Called on the executor."""
        if self._pipeline is not None and self._pipeline.outputs.waits:
            self._pipeline.mailbox.wake()

    def _create_output(self, kind: type, topic: str, depth: int, latched: bool = False) -> LifecyclePublisher:
        # rclpy never removes an entity from a callback group, so each publisher, which may be destroyed, has its own.
        group = MutuallyExclusiveCallbackGroup()
        qos = QoSProfile(depth=depth)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        made: LifecyclePublisher = self.node.create_lifecycle_publisher(
            kind, self.output_name(topic), qos, callback_group=group
        )
        self._publishers.append(made)
        return made

    def why_closed(self, needs_image: bool) -> tuple[Code, str] | None:
        """Why requests cannot be served now; None if they can. needs_image: whether they need an image."""
        why = self.node.why_closed()
        if why or not needs_image:
            return why
        if not self.enabled:
            return Code.NOT_ACTIVE, f"disabled: call {self.output_name('enable')} with true"
        if not self.counters.received and not self.node.count_publishers(self.source.topic):
            return Code.NO_IMAGE, self._why_no_image()
        return None

    @property
    def newest(self) -> NewestResult:
        """May be read from any thread."""
        pipeline = self._pipeline  # read once: another thread may set it to None
        return pipeline.outputs.newest if pipeline else NewestResult()
