"""Hints on what to do about mistakes that rcl reports in its own terms. Knows rcl's messages and nothing else."""

HINTS = {  # by a part of rcl's message
    "of type 'INTEGER', expecting type 'DOUBLE'": "write it with a point, as 5.0",
    "expecting type 'STRING_ARRAY'": 'write it as a list, as ["person"]',
    "expecting type 'BOOL'": "write true or false",
    "Error parsing a event near": "is it YAML? It is indented by spaces, not by tabs",
    "Cannot have a value before ros__parameters": "the file begins with the lines `/**:` and `  ros__parameters:`, and "
    "the parameters are indented below",
    "Couldn't parse remap rule": "write it as FROM:=TO, for example -r image:=/camera/image_raw; between the slashes "
    "of a name are ASCII letters, digits and _, and no digit comes first",
    "Couldn't parse parameter override rule": "write it as NAME:=VALUE, for example -p model:=tiny",
    "Couldn't parse log level": "write debug, info, warn, error or fatal",
    "length should not exceed": "give the node, its namespace or its cameras a shorter name",
    # The next two are of CycloneDDS.
    "creating node: error not set": "the middleware has said why, in the lines above",
    "for unknown reasons": "with SROS2, does the policy allow this name?",
}


def sentence_of(error: Exception) -> str:
    """The message of an rclpy error, followed by what to do about it where that is known."""
    if type(error).__name__ == "UnknownROSArgsError":  # which has no public name; its message is only the arguments
        return f"unknown ROS arguments {error}: -r FROM:=TO remaps a name, -p NAME:=VALUE sets a parameter"
    return with_hints(str(error).partition(":\n  '")[0])  # an invalid name is followed by a line with an arrow below it


def with_hints(sentence: str) -> str:
    """A message of rcl, followed by what to do about it where that is known."""
    return "; ".join([sentence, *(hint for part, hint in HINTS.items() if part in sentence)])
