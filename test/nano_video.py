"""A nano predictor with pseudo-random weights and a short clip, for tests of the predictors' interface."""

from pathlib import Path

import cv2
import numpy as np
import torch
from golden_recipe import golden_weights

from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

NUM_FRAMES, HEIGHT, WIDTH = 6, 60, 96
PRESENT = {"overrides": {"sam_mask_decoder.pred_obj_score_head.layers.2.bias": 4.0}}  # objects are in every frame


def nano_predictor(**kwargs) -> SAM2VideoPredictor:
    predictor = build_sam2_video_predictor("nano", device="cpu", **kwargs)
    predictor.load_state_dict(golden_weights(predictor.state_dict(), PRESENT), assign=True)
    return predictor


def frames() -> np.ndarray:
    """(T, H, W, 3) uint8 RGB: a red square that moves right on a blue gradient."""
    clip = np.zeros((NUM_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    clip[..., 2] = np.linspace(40, 160, WIDTH)
    for t, frame in enumerate(clip):
        frame[20:40, 10 + 8 * t : 30 + 8 * t] = (220, 30, 20)
    return clip


def write_jpegs(folder: Path) -> Path:
    """Writes the frames as 00000.jpg and so on."""
    folder.mkdir(exist_ok=True)
    for t, frame in enumerate(frames()):
        assert cv2.imwrite(str(folder / f"{t:05}.jpg"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return folder


def write_video(path: Path) -> Path:
    """Writes the frames to an mp4 with the codec that OpenCV brings."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (WIDTH, HEIGHT))
    for frame in frames():
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def masks_by_frame(predictor, state, **kwargs) -> dict[int, dict[int, torch.Tensor]]:
    """Propagates; returns logits (H, W) by frame and object."""
    return {
        frame: {obj_id: logits[0] for obj_id, logits in zip(ids, masks, strict=True)}
        for frame, ids, masks in predictor.propagate_in_video(state, **kwargs)
    }


def fingerprint(value) -> object:
    """A value that is equal for equal contents, also of nested containers and tensors."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), str(value.dtype), value.detach().reshape(-1).float().numpy().tobytes()
    if isinstance(value, dict):
        return tuple((key, fingerprint(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(fingerprint(item) for item in value)
    return fingerprint(vars(value)) if hasattr(value, "__dict__") else repr(value)
