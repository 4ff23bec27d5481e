"""The official builders: every official name and path, overrides, weights from files."""

import inspect

import pytest
import torch
from nano_video import nano_predictor

from sam2 import build_sam
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.build_sam import build_sam2, build_sam2_hf, build_sam2_video_predictor, build_sam2_video_predictor_hf
from sam2.config import find_config
from sam2.errors import BadInput
from sam2.model import NUM_MEMORIES, SAM2
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.video_state import MAX_POINTERS

OFFICIAL = {  # argument names that scripts rely on, in order
    build_sam2: ["config_file", "ckpt_path", "device", "mode", "hydra_overrides_extra", "apply_postprocessing"],
    build_sam2_video_predictor: [
        *("config_file", "ckpt_path", "device", "mode", "hydra_overrides_extra", "apply_postprocessing"),
        "vos_optimized",
    ],
    SAM2VideoPredictor.init_state: [
        *("self", "video_path", "offload_video_to_cpu", "offload_state_to_cpu", "async_loading_frames")
    ],
    SAM2VideoPredictor.add_new_points_or_box: [
        *("self", "inference_state", "frame_idx", "obj_id", "points", "labels"),
        *("clear_old_points", "normalize_coords", "box"),
    ],
    SAM2VideoPredictor.add_new_mask: ["self", "inference_state", "frame_idx", "obj_id", "mask"],
    SAM2VideoPredictor.propagate_in_video: [
        *("self", "inference_state", "start_frame_idx", "max_frame_num_to_track", "reverse")
    ],
    SAM2VideoPredictor.clear_all_prompts_in_frame: ["self", "inference_state", "frame_idx", "obj_id", "need_output"],
    SAM2VideoPredictor.remove_object: ["self", "inference_state", "obj_id", "strict", "need_output"],
    SAM2VideoPredictor.reset_state: ["self", "inference_state"],
    SAM2ImagePredictor.__init__: ["self", "sam_model", "mask_threshold", "max_hole_area", "max_sprinkle_area"],
    SAM2ImagePredictor.set_image: ["self", "image"],
    SAM2ImagePredictor.set_image_batch: ["self", "image_list"],
    SAM2ImagePredictor.predict: [
        *("self", "point_coords", "point_labels", "box", "mask_input"),
        *("multimask_output", "return_logits", "normalize_coords"),
    ],
    SAM2ImagePredictor.predict_batch: [
        *("self", "point_coords_batch", "point_labels_batch", "box_batch", "mask_input_batch"),
        *("multimask_output", "return_logits", "normalize_coords"),
    ],
    SAM2AutomaticMaskGenerator.__init__: [
        *("self", "model", "points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh"),
        *("stability_score_offset", "mask_threshold", "box_nms_thresh", "crop_n_layers", "crop_nms_thresh"),
        *("crop_overlap_ratio", "crop_n_points_downscale_factor", "point_grids", "min_mask_region_area"),
        *("output_mode", "use_m2m", "multimask_output"),
    ],
}


@pytest.mark.parametrize("function", OFFICIAL, ids=lambda f: f.__qualname__)
def test_arguments_have_the_official_names_and_order(function):
    got = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    assert got == OFFICIAL[function]


@pytest.mark.parametrize(
    ("config_file", "name"),
    [
        ("configs/sam2.1/sam2.1_hiera_b+.yaml", "sam2.1_hiera_base_plus"),
        ("configs/sam2/sam2_hiera_t.yaml", "sam2_hiera_tiny"),
        ("sam2_hiera_s.yaml", "sam2_hiera_small"),
        ("facebook/sam2.1-hiera-large", "sam2.1_hiera_large"),
    ],
)
def test_official_config_names(config_file, name):
    with torch.device("meta"):
        assert build_sam2(config_file, device="meta").config.name == name


def test_unknown_config_names_the_variants():
    with pytest.raises(BadInput, match="sam2.1_hiera_tiny"):
        build_sam2("configs/sam2.1/sam2.1_hiera_xl.yaml", device="cpu")


def test_postprocessing_switches():
    plain, processed = (build_sam2_video_predictor("nano", device="cpu", apply_postprocessing=p) for p in (False, True))
    for predictor, is_on in ((plain, False), (processed, True)):
        assert predictor.fill_hole_area == (8 if is_on else 0)
        assert predictor.binarize_mask_from_pts_for_mem_enc is is_on
        assert predictor.sam_mask_decoder.dynamic_multimask_via_stability is is_on
    assert build_sam2("nano", device="cpu").sam_mask_decoder.dynamic_multimask_via_stability


@pytest.mark.parametrize(("postprocessing", "hole", "delta"), [(False, 3, 0.01), (True, 8, 0.05)])
def test_overrides_and_what_postprocessing_sets_over_them(postprocessing, hole, delta):
    """Upstream appends the options of its postprocessing to the caller's."""
    predictor = build_sam2_video_predictor(
        "nano",
        device="cpu",
        hydra_overrides_extra=[
            "++model.fill_hole_area=3",
            "++model.non_overlap_masks=true",
            "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.01",
        ],
        apply_postprocessing=postprocessing,
    )
    assert (predictor.fill_hole_area, predictor.non_overlap_masks) == (hole, True)
    assert predictor.sam_mask_decoder.dynamic_multimask_stability_delta == delta


OF_ALL = {  # what every official YAML file says, and defaults that none changes
    "num_maskmem": 7,
    "max_cond_frames_in_attn": -1,
    "max_obj_ptrs_in_encoder": 16,
    "memory_temporal_stride_for_eval": 1,
    "non_overlap_masks_for_mem_enc": False,
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "soft_no_obj_ptr": False,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "use_mlp_for_obj_ptr_proj": True,
    "backbone_stride": 16,
}
OF_VERSION = ("add_tpos_enc_to_obj_ptrs", "proj_tpos_enc_in_obj_ptrs", "use_signed_tpos_enc_to_obj_ptrs")


@pytest.mark.parametrize(("config_file", "is_newer"), [("nano", True), ("configs/sam2/sam2_hiera_t.yaml", False)])
def test_what_says_how_the_model_is_is_taken_and_read(config_file, is_newer):
    is_so = OF_ALL | dict.fromkeys(OF_VERSION, is_newer)
    told = [f"++model.{name}={value}" for name, value in (is_so | {"no_obj_embed_spatial": is_newer}).items()]
    told += ["model._target_=sam2.modeling.sam2_base.SAM2Base", "++model.compile_image_encoder=False"]
    with torch.device("meta"):
        model = build_sam2(config_file, device="meta", hydra_overrides_extra=told)
    for name, value in is_so.items():
        assert getattr(model, name) == value
        setattr(model, name, value)
        with pytest.raises(BadInput, match=f"^{name}: expected {value}, the only value here, got 3; "):
            setattr(model, name, 3)
    assert model.num_maskmem == NUM_MEMORIES and model.max_obj_ptrs_in_encoder == MAX_POINTERS


@pytest.mark.parametrize("target", ["SAM2VideoPredictor", "SAM2VideoPredictorVOS"])
def test_a_compiled_video_predictor_is_the_same_one(target):
    told = [f"++model._target_=sam2.sam2_video_predictor.{target}", "++model.compile_image_encoder=true"]
    assert type(build_sam2_video_predictor("nano", device="cpu", hydra_overrides_extra=told)) is SAM2VideoPredictor
    with pytest.raises(BadInput, match="expected an option"):
        build_sam2("nano", device="cpu", hydra_overrides_extra=told[:1])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("max_cond_frames_in_attn=4", r"expected -1, the only value here, got 4; .*prompted_memories"),
        ("num_maskmem=2", r"expected 7, .* got 2; .*recent_memories"),
        ("max_obj_ptrs_in_encoder=8", r"expected 16, .*pointers"),
        ("use_mask_input_as_output_without_sam=false", "expected True, .* got False; only Meta's"),
        ("sigmoid_bias_for_mem_enc=low", "expected -10.0, .* got 'low'"),
        ("proj_tpos_enc_in_obj_ptrs=false", "expected True, .* got False"),
    ],
)
def test_an_override_of_what_has_one_value_names_it(override, says):
    with pytest.raises(BadInput, match=f"^{override.partition('=')[0]}: {says}"):
        build_sam2("nano", device="cpu", hydra_overrides_extra=["++model." + override])


@pytest.mark.parametrize("build", [build_sam2, build_sam2_video_predictor])
def test_the_input_size_can_be_overridden(build):
    model = build("nano", device="cpu", hydra_overrides_extra=["++model.image_size=128"])
    assert model.image_size == 128
    with pytest.raises(BadInput, match="image_size: expected a multiple of 32 from 64 to 2048, got 100"):
        build("nano", device="cpu", hydra_overrides_extra=["++model.image_size=100"])


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        *(
            (name, "an option")
            for name in ("++model.memory_stride=2", "++model.dump_patches=true", "++model.training=1")
        ),
        *(
            (name, "an option")
            for name in ("no_obj_embed_spatial=false", "compile_image_encoder=2", "_target_=SAM2", "__module__=x")
        ),
        *((name, "an option") for name in ("++model.image_size=big", "")),
        *(
            (f"++model.fill_hole_area={value}", "an integer >= 0")
            for value in ("many", "nan", "inf", "2.7", "-3", "true")
        ),
        ("fill_hole_area", "an integer >= 0"),
        *((f"++model.non_overlap_masks={value}", "true or false") for value in ("0.5", "1", "")),
        *(
            (f"++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh={value}", "a finite number")
            for value in ("nan", "high")
        ),
    ],
)
def test_an_override_that_would_do_nothing_or_something_else_is_refused(override, wanted):
    with pytest.raises(BadInput, match=f"hydra_overrides_extra: expected {wanted}"):
        build_sam2_video_predictor("nano", device="cpu", hydra_overrides_extra=[override])


def test_an_image_model_takes_no_option_of_the_video_predictor():
    with pytest.raises(BadInput, match="expected an option"):
        build_sam2("nano", device="cpu", hydra_overrides_extra=["++model.fill_hole_area=8"])


def test_mode():
    assert not build_sam2("nano", device="cpu").training
    assert build_sam2("nano", device="cpu", mode="train").training


def test_a_checkpoint_in_the_official_layout_loads_strictly(tmp_path):
    saved = nano_predictor()
    torch.save({"model": saved.state_dict()}, tmp_path / "nano.pt")
    loaded = build_sam2_video_predictor("nano", str(tmp_path / "nano.pt"), device="cpu")
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), saved.state_dict().values(), strict=True)
    )


def test_hugging_face_builders_ask_for_the_named_weights(tmp_path, monkeypatch):
    torch.save({"model": nano_predictor().state_dict()}, tmp_path / "nano.pt")
    asked = []
    monkeypatch.setattr(build_sam, "download_weights", lambda model_id: asked.append(model_id) or tmp_path / "nano.pt")
    name = "facebook/sam2.1-hiera-nano"
    assert type(build_sam2_hf(name, device="cpu")) is SAM2
    assert isinstance(build_sam2_video_predictor_hf(name, device="cpu"), SAM2VideoPredictor)
    assert isinstance(SAM2ImagePredictor.from_pretrained(name, device="cpu"), SAM2ImagePredictor)
    assert asked == [name] * 3


def test_the_table_of_model_ids_has_upstream_s_name_and_entries():
    table = build_sam.HF_MODEL_ID_TO_FILENAMES
    assert len(table) == 8
    assert table["facebook/sam2.1-hiera-base-plus"] == (
        "configs/sam2.1/sam2.1_hiera_b+.yaml",
        "sam2.1_hiera_base_plus.pt",
    )
    for model_id, (config_file, file) in table.items():
        assert find_config(config_file) is find_config(model_id) and file == f"{find_config(model_id).name}.pt"


def test_hugging_face_builders_use_what_the_hub_s_library_has_downloaded(tmp_path, monkeypatch):
    torch.save({"model": nano_predictor().state_dict()}, tmp_path / "nano.pt")
    monkeypatch.setattr(build_sam, "find_in_hub_cache", lambda model_id: tmp_path / "nano.pt")
    monkeypatch.setattr(build_sam, "download_weights", lambda model_id: pytest.fail("nothing is missing"))
    assert type(build_sam2_hf("facebook/sam2.1-hiera-nano", device="cpu")) is SAM2
