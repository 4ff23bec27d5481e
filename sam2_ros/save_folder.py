"""Where a camera's saved objects are. Knows names of nodes and cameras, and no ROS."""

import re
from pathlib import Path

import sam2

DEFAULT = ".ros", "sam2_objects"  # below the user's home


def saved_path(folder: str, node: str, camera: str, name: str) -> Path:
    """The file of `name`. folder: "" = the default one; node: its full name, "" for the one that is called as ever;
    camera: "" = the only one. Objects of one robot, or one camera, are not those of another.

    Raises sam2.BadInput for a name that could lead out of the folder, and where there is no default one.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise sam2.BadInput("name: expected 1 to 100 letters, digits, '_' or '-'")
    try:
        root = Path(folder).expanduser() if folder else Path.home().joinpath(*DEFAULT)
    except RuntimeError as error:  # HOME is not set, and this user has no entry among the users
        raise sam2.BadInput(f"saved objects: {error} set the parameter save_folder") from error
    of_camera = f"camera.{camera}" if camera else ""  # no node can have a point in its name
    return root / node.strip("/") / of_camera / f"{name}.safetensors"
