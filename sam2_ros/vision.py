"""vision_msgs, if it is installed: detections and class names for tools that use it. There is no wheel of it.

Knows the fields of vision_msgs 4. If it is not installed, only INSTALLED may be used.
"""

import math

import numpy as np
from std_msgs.msg import Header

import sam2
from sam2_ros.track_out import class_of

try:
    from vision_msgs.msg import (
        BoundingBox2D,
        Detection2D,
        Detection2DArray,
        LabelInfo,
        ObjectHypothesis,
        ObjectHypothesisWithPose,
        Point2D,
        Pose2D,
        VisionClass,
    )

    INSTALLED = True
except ImportError:
    INSTALLED = False


def detections(header: Header, tracks: list[sam2.Track]) -> "Detection2DArray":
    """A detection for each visible object: id, class, presence, and the box around its mask."""
    made = Detection2DArray(header=header)
    for track in tracks:
        if track.box_xywh is None:
            continue
        x, y, width, height = map(float, track.box_xywh)
        made.detections.append(
            Detection2D(
                header=header, id=track.object_id,
                bbox=BoundingBox2D(
                    center=Pose2D(position=Point2D(x=x + width / 2, y=y + height / 2)), size_x=width, size_y=height
                ),
                results=[
                    ObjectHypothesisWithPose(
                        hypothesis=ObjectHypothesis(class_id=class_of(track), score=track.presence)
                    )
                ],
            )
        )  # fmt: skip
    return made


def label_info(header: Header, ids: dict[str, int]) -> "LabelInfo":
    """What the values of the class mask mean."""
    classes = [VisionClass(class_id=number, class_name=name) for name, number in ids.items()]
    return LabelInfo(header=header, class_map=classes, threshold=0.5)


def _rank(hypothesis: "ObjectHypothesis") -> float:
    """Its score; the least of all for NaN, with which `max` would depend on the order."""
    return -math.inf if math.isnan(hypothesis.score) else hypothesis.score


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused later
def read_detections(msg: "Detection2DArray") -> list[tuple[np.ndarray, str, float]]:
    """(box x0, y0, x1, y1 in pixels, class, score) of each detection, by its best hypothesis; without one, "" and 1."""
    read = []
    for detection in msg.detections:
        best = max((r.hypothesis for r in detection.results), key=_rank, default=None)
        centre, half = detection.bbox.center.position, np.array([detection.bbox.size_x, detection.bbox.size_y]) / 2
        if theta := detection.bbox.center.theta:  # the upright box around the rotated one
            cos, sin = abs(np.cos(theta)), abs(np.sin(theta))
            half = np.array([[cos, sin], [sin, cos]]) @ half
        box = np.array([centre.x - half[0], centre.y - half[1], centre.x + half[0], centre.y + half[1]], np.float32)
        read.append((box, best.class_id if best else "", best.score if best else 1.0))
    return read
