"""The table of `params` as a node's ROS parameters: declared, and changed while the node runs."""

import dataclasses
import difflib
from collections.abc import Callable

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from sam2_ros.params import FIELDS, Settings, refusal, settings_of


def declare(node: Node, on_change: Callable[[Settings, set[str]], None]) -> Settings:
    """Declares every parameter on `node` and returns the settings.

    A change for which `refusal` returns a sentence is refused (rclpy itself refuses read-only parameters and wrong
    types); an accepted one calls `on_change` with the new settings and the names that were set. Raises rclpy's
    InvalidParameterValueException or InvalidParameterTypeException if a value given at start is refused.
    """

    def check(parameters: list[Parameter]) -> SetParametersResult:
        sentences = [refusal(p.name, p.value) for p in parameters if p.name in FIELDS and p.value is not None]
        sentence = "; ".join(filter(None, sentences))
        return SetParametersResult(successful=not sentence, reason=sentence)

    def pass_on(parameters: list[Parameter]) -> None:
        names = {p.name for p in parameters} & FIELDS.keys()
        if names:
            on_change(read(node), names)

    for name in [name for name, given in node._parameter_overrides.items() if given.type_ is Parameter.Type.NOT_SET]:
        del node._parameter_overrides[name]  # an empty list, whose type rcl cannot tell, means the default
    node.add_on_set_parameters_callback(check)
    for name, row in FIELDS.items():
        default = list(row.default) if isinstance(row.default, tuple) else row.default
        node.declare_parameter(name, default, _descriptor(row))
    node.add_post_set_parameters_callback(pass_on)
    for name in node._parameter_overrides:
        if not node.has_parameter(name) and not name.startswith("qos_overrides."):
            nearest = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            node.get_logger().warning(f"there is no parameter {name!r}{hint}")
    return read(node)


def read(node: Node) -> Settings:
    return settings_of({name: node.get_parameter(name).value for name in FIELDS})


def _descriptor(row: dataclasses.Field) -> ParameterDescriptor:
    rules = row.metadata
    descriptor = ParameterDescriptor(
        description=rules["sentence"],
        additional_constraints=" | ".join(rules["choices"]),
        read_only=not rules["live"],
    )
    if rules["span"] and row.type is float:
        low, high = rules["span"]
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif rules["span"]:
        low, high = rules["span"]
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
    return descriptor
