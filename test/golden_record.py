"""Records a predictor's run: the decoder's choices and the tensors between the stages.

Encoded images are kept across cases, because most cases share the encoder's weights and all share the clip; in files
too, for the other processes of a run.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sam2.files import in_turn
from sam2.mask_decoder import stability
from sam2.model import Features
from sam2.position import sine_grid
from sam2.sam2_video_predictor import SAM2VideoPredictor

Arrays = dict[str, np.ndarray]
_ENCODED: OrderedDict[tuple, tuple[Features, Arrays]] = OrderedDict()  # newest last
_MAX_ENCODED = 32  # about 17 MB each
_STRIDES = (16, 8, 4, 2)  # of the stored samples of the four levels, so that each is 16 x 16


class Recorder:
    """Wraps the stages of one predictor instance, which then works as before and is recorded here."""

    def __init__(self, predictor: SAM2VideoPredictor, case: dict):
        self.predictor = predictor
        self.last_image: Tensor | None = None  # (B, 3, S, S)
        self._encoder_key = _encoder_key(predictor, case)
        self._choices: list[tuple[Tensor, Arrays]] = []  # with the pointer that identifies the result
        self._stages: Arrays = {}  # after the encoder, of the object being processed
        self._finished: list[tuple[Tensor, Arrays]] = []  # of propagated objects, with the pointer
        predictor.sam_mask_decoder.transformer.register_forward_hook(self._on_transformer)
        # `_listening` looks methods up on the class at each call, so that a test may patch the class afterwards.
        cls = type(predictor)
        for name in ("attend", "decode", "encode_memory", "select", "_propagate_object"):
            setattr(predictor, name, self._listening(cls, name, getattr(self, f"_on_{name.lstrip('_')}")))
        predictor.encode_image = self._encode_image

    def choice(self, pointer: Tensor) -> Arrays:
        """The decoder's choice for the result with this pointer; NaN and -1 for a mask prompt."""
        for known, said in self._choices:
            if known is pointer:
                return said
        nothing = np.array(np.nan, np.float32)
        return {"iou4": np.full(4, nothing), "iou_selected": nothing, "token": np.array(-1), "stability": nothing}

    def stages_of(self, pointer: Tensor, image: Tensor) -> Arrays:
        """The tensors between the stages for the result with this pointer; image (3, S, S)."""
        _, encoder_stages = self._encode(image[None])
        for known, stages in self._finished:
            if known is pointer:
                return encoder_stages | stages
        stages, self._stages = self._stages, {}  # not propagated, so of the prompt given last
        return encoder_stages | stages

    def _listening(self, cls: type, name: str, callback):
        def stage(*args, **kwargs):
            result = getattr(cls, name)(self.predictor, *args, **kwargs)
            callback(result, *args, **kwargs)
            return result

        return stage

    def _encode_image(self, images: Tensor) -> Features:
        self.last_image = images
        return self._encode(images)[0]

    def _encode(self, images: Tensor) -> tuple[Features, Arrays]:
        key = self._encoder_key, sha256(images.numpy().data).digest()
        if key not in _ENCODED:
            _ENCODED[key] = _shared(key, lambda: encode_in_stages(self.predictor, images))
            if len(_ENCODED) > _MAX_ENCODED:
                _ENCODED.popitem(last=False)
        _ENCODED.move_to_end(key)
        return _ENCODED[key]

    def _on_attend(self, out, stride16, memory, memory_pos, num_pointer_tokens):
        first_pointer = memory.shape[1] - num_pointer_tokens
        self._stages |= _numpy(
            memattn_in_memory_seq_b_c=memory.transpose(0, 1)[::64, :, ::4],
            memattn_in_memory_pos=memory_pos.transpose(0, 1)[::64, :, ::4],
            memattn_ptr_tokens=memory.transpose(0, 1)[first_pointer:],
            memattn_ptr_pos=memory_pos.transpose(0, 1)[first_pointer:],
            memattn_lens=torch.tensor([memory.shape[1], num_pointer_tokens]),
            memattn_out_seq_b_c=out.flatten(2).permute(2, 0, 1)[::32],
        )

    def _on_decode(self, decoded, features, pixels, points_xy_model=None, labels=None, mask_input=None):
        encoder = self.predictor.sam_prompt_encoder
        if points_xy_model is None:
            points_xy_model, labels = torch.zeros(pixels.shape[0], 1, 2), torch.full((pixels.shape[0], 1), -1)
        side = pixels.shape[-1]
        self._stages |= _numpy(
            prompt_sparse=encoder.sparse(points_xy_model, labels),
            prompt_dense=encoder.dense(mask_input).expand(-1, -1, side, side)[:, ::4, ::8, ::8],
            dense_pe=encoder.grid_position()[:, ::4, ::8, ::8],
            dec_masks4=decoded.masks[:, :, ::4, ::4],
            dec_iou4=decoded.iou,
            dec_obj_score=decoded.object_score,
            dec_mask_tokens=decoded.mask_tokens,
        )

    def _on_transformer(self, module, args, out):
        tokens, pixels = out
        self._stages |= _numpy(dec_hs=tokens, dec_src=pixels[:, ::16, ::4])

    def _on_encode_memory(self, maskmem, *args, **kwargs):
        position = sine_grid(*maskmem.shape[1:], maskmem.device)
        self._stages |= _numpy(maskmem_fp32=maskmem[:, ::4, ::4, ::4], maskmem_pos_enc=position[:, ::4, ::4, ::4])

    def _on_propagate_object(self, logits, state, obj, frame_index, reverse):
        result = obj.prompted.get(frame_index) or obj.recent[frame_index]
        self._finished.append((result.pointer, self._stages))
        self._stages = {}

    def _on_select(self, answer, decoded, multimask):
        delta = self.predictor.sam_mask_decoder.dynamic_multimask_stability_delta
        said = _numpy(
            iou4=decoded.iou[0],
            iou_selected=answer.iou[0],
            token=answer.token[0],
            stability=stability(decoded.masks[:, 0], delta)[0],
        )
        self._choices.append((answer.pointer, said))


@torch.inference_mode()
def encode_in_stages(predictor: SAM2VideoPredictor, images: Tensor) -> tuple[Features, Arrays]:
    """Runs `encode_image`; also returns samples of every tensor on the way; images (1, 3, S, S)."""
    stages: Arrays = {}

    def keep_patches(module, args, out):
        stages.update(_numpy(patch_embed_nhwc=out[:, ::16, ::16, ::4]))

    def keep_placed(module, args):
        stages.update(_numpy(patch_plus_pos_nhwc=args[0][:, ::16, ::16, ::4]))

    def keep_block(index):
        def keep(module, args, out):
            x = out.double()
            figures = torch.stack((x.mean(), x.std(correction=0), x.abs().max()))
            stages[f"block{index:02}_mean_std_absmax"] = figures.numpy()

        return keep

    def keep_levels(name, every):
        def keep(module, args, out):
            for level, (x, stride) in enumerate(zip(out, _STRIDES, strict=True)):
                stages.update(_numpy(**{f"{name}{level}": x[:, ::every, ::stride, ::stride]}))

        return keep

    trunk, neck = predictor.image_encoder.trunk, predictor.image_encoder.neck
    hooks = [
        trunk.patch_embed.register_forward_hook(keep_patches),
        trunk.blocks[0].register_forward_pre_hook(keep_placed),
        *(block.register_forward_hook(keep_block(index)) for index, block in enumerate(trunk.blocks)),
        trunk.register_forward_hook(keep_levels("trunk_stage", 8)),
        neck.register_forward_hook(keep_levels("neck", 8)),
    ]
    features = type(predictor).encode_image(predictor, images)
    for hook in hooks:
        hook.remove()
    for level, (x, stride) in enumerate(zip(features, _STRIDES[:3], strict=True)):
        position = sine_grid(predictor.config.d_model, *x.shape[2:], x.device)
        stages[f"backbone_fpn{level}"] = x[:, ::4, ::stride, ::stride].numpy().copy()
        stages[f"vision_pos_enc{level}"] = position[:, ::8, ::stride, ::stride].numpy().copy()
    return features, stages


def _shared(key: tuple, encode: Callable) -> tuple[Features, Arrays]:
    """What `encode` returns, or has returned in another process of this test run."""
    file = Path(os.environ["ENCODED_IMAGES"], sha256(repr(key).encode()).hexdigest(), "features.pt")
    with in_turn(file.parent, "waiting for another process to encode the same image"):
        if not file.exists():
            torch.save(encode(), file)
    return torch.load(file, weights_only=False)


def _encoder_key(predictor: SAM2VideoPredictor, case: dict) -> tuple:
    """Everything the encoder's weights depend on; 2 and 2.1 of a size share them."""
    trunk = predictor.config.embed_dim, predictor.config.stages, case.get("salt", "")
    return *trunk, *(item for item in case.get("overrides", {}).items() if item[0].startswith("image_encoder"))


def _numpy(**tensors: Tensor) -> Arrays:
    """Copies, so that the samples do not keep the whole tensors alive."""
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}
