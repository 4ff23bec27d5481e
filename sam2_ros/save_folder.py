"""Where a camera's saved objects are. Knows names of nodes and cameras, but no ROS."""

import re
from pathlib import Path

import sam2

DEFAULT = ".ros", "sam2_objects"  # below the user's home


def saved_path(folder: str, node: str, camera: str, name: str) -> Path:
    """The file for `name`. folder: "" = the default; node: its full name, "" for one with the default name; camera: ""
    = the only one. Different nodes and cameras have different folders: their objects are not the same.

    Raises sam2.BadInput for a name that could lead out of the folder, and if there is no default folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise sam2.BadInput("name: expected 1 to 100 letters, digits, '_' or '-'")
    try:
        root = Path(folder).expanduser() if folder else Path.home().joinpath(*DEFAULT)
    except RuntimeError as error:  # HOME is not set, and the user is not in the user database
        raise sam2.BadInput(f"saved objects: {error} set the parameter save_folder") from error
    of_camera = f"camera.{camera}" if camera else ""  # no node can have a point in its name
    return root / node.strip("/") / of_camera / f"{name}.safetensors"
