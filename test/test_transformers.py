"""Against a second, independent implementation: transformers' `Sam2VideoModel` with the same pseudo-random weights.

The weights travel through the renaming table that reads Hugging Face's checkpoints, so this tests that table too.
"""

from dataclasses import replace

import pytest
import torch
from golden_cases import VideoRun
from golden_recipe import golden_weights, synthetic_clip

from sam2.config import find_config
from sam2.hugging_face import to_hugging_face
from sam2.image_encoder import ImageEncoder
from sam2.preprocess import to_model_input

transformers = pytest.importorskip("transformers")

NUM_FRAMES = 2  # the prompted one and a tracked one
POINT = [120.0, 200.0]
CASE = {
    "name": "transformers",
    "kind": "video",
    "config": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "overrides": {"sam_mask_decoder.pred_obj_score_head.layers.2.bias": 1.0},
    "num_frames": NUM_FRAMES,
    "steps": [{"op": "points", "frame": 0, "obj": 1, "points": [POINT], "labels": [1]}, {"op": "propagate"}],
}


@pytest.fixture(scope="module")
def run():
    return VideoRun(CASE, synthetic_clip()).run()


@pytest.fixture(scope="module")
def theirs(run):
    model = transformers.Sam2VideoModel(transformers.Sam2VideoConfig()).eval()
    model.load_state_dict(to_hugging_face(run.predictor.state_dict()), strict=True)
    return model


@pytest.fixture(scope="module")
def images():
    return torch.stack([to_model_input(frame, 1024) for frame in synthetic_clip()[:NUM_FRAMES]])


@pytest.mark.slow
@torch.inference_mode()
def test_image_features(run, theirs, images):
    ours = run.predictor.encode_image(images[:1])
    their_features = theirs.get_image_features(images[:1], return_dict=True).fpn_hidden_states
    for feature, flat in zip(ours, their_features, strict=True):
        assert (feature.flatten(2).permute(2, 0, 1) - flat).abs().max() <= 2e-4
    other = run.predictor.encode_image(images[1:2])
    assert (other.stride16 - ours.stride16).abs().max() > 0.1  # another image would not pass


LARGE = [pytest.param(size, marks=pytest.mark.slow) for size in ("base_plus", "large")]


@pytest.mark.parametrize("size", ["tiny", "small", *LARGE])
@torch.inference_mode()
def test_encoder_of_every_size(size):
    """At 256 pixels, where windows are padded and cut just as at 1024."""
    config = replace(find_config(size), image_size=256)
    ours = ImageEncoder(config).eval()
    shapes = {f"image_encoder.{key}": value for key, value in ours.state_dict().items()}
    weights = golden_weights(shapes, {})
    ours.load_state_dict({key.removeprefix("image_encoder."): value for key, value in weights.items()})
    widths = [config.embed_dim * 2**stage for stage in range(4)]
    theirs = transformers.Sam2VisionModel(
        transformers.Sam2VisionConfig(
            backbone_config={
                "model_type": "sam2_hiera_det_model",
                "hidden_size": config.embed_dim,
                "num_attention_heads": config.num_heads,
                "image_size": [256, 256],
                "window_positional_embedding_background_size": list(config.pos_embed_size),
                "blocks_per_stage": list(config.stages),
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": [config.num_heads * 2**stage for stage in range(4)],
                "window_size_per_stage": list(config.window_sizes),
                "global_attention_blocks": list(config.global_attention_blocks),
            },
            backbone_channel_list=widths[::-1],
            backbone_feature_sizes=[[64, 64], [32, 32], [16, 16]],
        )
    ).eval()
    renamed = from_ours_to_vision_model(weights)
    theirs.load_state_dict(renamed, strict=True)
    image = to_model_input(synthetic_clip()[0], 256)[None]
    for our_map, their_map in zip(ours(image), theirs(image, return_dict=True).fpn_hidden_states, strict=True):
        assert (our_map - their_map).abs().max() <= 2e-4


def from_ours_to_vision_model(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Through the table, which wants a whole model's state dict; the rest is filled in and dropped."""
    needed = {"sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": torch.zeros(2, 128)}
    needed |= {f"sam_prompt_encoder.point_embeddings.{label}.weight": torch.zeros(1, 256) for label in range(4)}
    prefix = "vision_encoder."
    renamed = to_hugging_face(weights | needed)
    return {key.removeprefix(prefix): value for key, value in renamed.items() if key.startswith(prefix)}


@pytest.mark.slow
@torch.inference_mode()
def test_tracked_frames(run, theirs, images):
    session = transformers.models.sam2_video.modeling_sam2_video.Sam2VideoInferenceSession(
        video=images, video_height=480, video_width=640, dtype=torch.float32
    )
    at_input = torch.tensor(POINT) / torch.tensor([640.0, 480.0]) * 1024
    session.add_point_inputs(
        session.obj_id_to_idx(1),
        0,
        {"point_coords": at_input[None, None, None], "point_labels": torch.ones(1, 1, 1, dtype=torch.int32)},
    )
    session.obj_with_new_inputs = [1]
    for frame in range(NUM_FRAMES):
        answer = theirs(inference_session=session, frame_idx=frame)
        difference = torch.from_numpy(run.arrays["s1_low64"][frame, 0]) - answer.pred_masks[0, 0, ::4, ::4]
        assert difference.abs().max() <= 1e-3 and difference.square().mean().sqrt() <= 2e-4
        assert abs(run.arrays["s1_score"][frame, 0] - answer.object_score_logits.item()) <= 1e-4
    assert abs(run.arrays["s1_low64"][1] - run.arrays["s1_low64"][0]).max() > 1e-2  # neither would another frame
