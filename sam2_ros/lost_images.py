"""Why images get lost between a camera and the node, and what helps: depends on the middleware and on where they come
from.

Knows no ROS.
"""

from sam2_ros import cyclone_dds, fast_dds
from sam2_ros.counters import Counters
from sam2_ros.fast_dds import PROFILES, TRANSPORTS
from sam2_ros.image_source import ImageSource

DEFAULT_SEGMENT_BYTES = 512 * 1024  # of Fast DDS's shared memory; larger best-effort images are mostly lost
USUAL_IMAGE_BYTES, USUAL_JPEG_BYTES = 640 * 480 * 3, 100_000  # while none has arrived
PROFILE = f"{PROFILES}={fast_dds.find_profile(fast_dds.PROFILE) or fast_dds.PROFILE}"  # to be copied as it stands
SEGMENT_CURE = f"start the camera with {PROFILE}, or let it publish reliably"
BY_TCP = "LARGE_DATA", "P2P"  # how the names of such TRANSPORTS begin
SYSCTL = "run `sudo sysctl -w net.core.rmem_max=16777216` and restart the node"
BUFFER_CURE = f"CycloneDDS may lose images larger than the kernel's net.core.rmem_max: {SYSCTL}"
TRANSPORTS_CURE = f"start the node and the camera without {TRANSPORTS}, and the camera with {PROFILE}"
_REMOTE = "another machine (or this one, if its addresses changed between the starts of camera and node: restart both)"
REMOTE_BUFFER_CURE = (
    f"images from {_REMOTE} are lost if they do not fit into this one's receive buffer, net.core.rmem_max: "
    f"{SYSCTL}, with {TRANSPORTS} unset, and {PROFILES} unset or fastdds_shm.xml"
)
NETWORK_CURE = (
    f"they come from {_REMOTE}: if the network loses packets, run `sudo sysctl -w net.ipv4.ipfrag_time=3 "
    "net.ipv4.ipfrag_high_thresh=134217728` on this one and let the camera publish reliably; if it is too slow, send "
    "fewer, smaller or compressed images"
)


def size_hint(c: Counters, source: ImageSource) -> str:
    """The remedy for images that do not fit into the middleware's buffers, or through the network, as a clause to
    append to a sentence; "" if that cannot be the cause."""
    is_cyclone, is_fast = source.middleware == cyclone_dds.NAME, source.middleware.startswith(fast_dds.NAME)
    if is_fast and source.transports.startswith(BY_TCP):  # loses none to small buffers, and a profile would cut it off
        return ""
    usual_bytes = USUAL_JPEG_BYTES if source.remap_from.endswith("/compressed") else USUAL_IMAGE_BYTES
    image_bytes = c.largest_image_bytes or usual_bytes
    if is_fast and source.is_remote:
        return f"; {NETWORK_CURE if image_bytes <= source.receive_buffer_bytes else REMOTE_BUFFER_CURE}"
    by_network = is_cyclone or source.transports.startswith("UDP")
    if image_bytes <= (source.receive_buffer_bytes if by_network else DEFAULT_SEGMENT_BYTES):
        return ""
    if is_cyclone:
        return f"; {BUFFER_CURE}"
    if source.reliability == "reliable" or not is_fast:
        return ""
    if source.transports not in ("", "DEFAULT"):
        return f"; with {TRANSPORTS}={source.transports} large best-effort images are lost: {TRANSPORTS_CURE}"
    return f"; best-effort images above 512 KB are lost in Fast DDS's default shared memory: {SEGMENT_CURE}"


def is_tight(c: Counters, source: ImageSource) -> bool:
    """Whether images may be lost without being counted: CycloneDDS reports no loss."""
    return source.middleware == cyclone_dds.NAME and 0 < source.receive_buffer_bytes < c.largest_image_bytes
