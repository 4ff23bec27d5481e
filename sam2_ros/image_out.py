"""Pixels -> messages. Knows how rclpy takes bytes; does not know tracks or `sam2`."""

import array

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header


def image_message(header: Header, pixels: np.ndarray, encoding: str) -> Image:
    """pixels: (H, W) or (H, W, C) uint8. No row padding."""
    pixels = np.ascontiguousarray(pixels)
    data = array.array("B")  # the one type that rclpy accepts without checking every byte
    data.frombytes(pixels.data.cast("B"))
    height, width = pixels.shape[:2]
    return Image(
        header=header, height=height, width=width, encoding=encoding, step=pixels.strides[0], is_bigendian=0, data=data
    )


def jpeg_message(header: Header, rgb: np.ndarray, quality: int) -> CompressedImage:
    """rgb: (H, W, 3) uint8."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    data = array.array("B", encoded.tobytes())
    return CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=data)
