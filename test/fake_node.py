"""The real node process with a `FakeTracker`: fake_node.py '{"delay": 0.1, "load": 3.0}' --ros-args ...

The first argument is JSON: what `FakeTracker` takes, errors by name ({"raise_on": {"step": "DeviceLost"}}); `load`, the
seconds that loading takes; `load_until`, a file whose creation ends it; and `load_error`, a sentence to fail with.
"""

import json
import os
import sys
import time

from fakes import FakeTracker

import sam2
from sam2_ros.main import main


def make_tracker(settings):
    options = json.loads(sys.argv[1])
    time.sleep(options.pop("load", 0.0))
    until = options.pop("load_until", None)
    while until and not os.path.exists(until):
        time.sleep(0.02)
    if "load_error" in options:
        raise sam2.BadCheckpoint(options["load_error"])
    errors = {method: getattr(sam2, name)(f"told to {method}") for method, name in options.pop("raise_on", {}).items()}
    return FakeTracker(raise_on=errors, **options)


if __name__ == "__main__":
    main(sys.argv[2:], make_tracker)
