"""The nine variants: one frozen dataclass, one table, one line each.

Sizes differ only in the trunk; 2 and 2.1 differ only in `version`; everything else that the official YAML files spell
out has a single value and is written where it is used (`sam2/configs/*.yaml` of facebookresearch/sam2).
"""

from dataclasses import dataclass, replace

from sam2.errors import BadInput


@dataclass(frozen=True)
class ModelConfig:
    """A variant's sizes. Source: `sam2/configs` of facebookresearch/sam2; nano is this package's own."""

    name: str  # "sam2.1_hiera_tiny"
    embed_dim: int  # channels of the trunk's first stage; doubles at each of the next three
    num_heads: int  # of the first stage; doubles likewise
    stages: tuple[int, int, int, int]  # blocks per stage
    global_attention_blocks: tuple[int, ...]  # block indices that attend over the whole grid
    window_sizes: tuple[int, int, int, int]  # tokens per window side, per stage
    pos_embed_size: tuple[int, int]  # of the learned background position embedding
    version: str = "2.1"  # "2": no time code on pointers, no no-object embedding in memory
    image_size: int = 1024  # the network's square input, pixels
    d_model: int = 256  # channels of features, tokens and pointers
    memory_dim: int = 64  # channels of a stored memory
    memory_attention_layers: int = 4
    feedforward_dim: int = 2048  # of memory attention and of the mask decoder

    @property
    def grid_size(self) -> int:
        """Side of the stride-16 feature grid that memories and prompts live on."""
        return self.image_size // 16

    @property
    def stores_occlusion(self) -> bool:
        """2.1 marks the memory of a frame without the object (`no_obj_embed_spatial`)."""
        return self.version == "2.1"

    @property
    def pointers_carry_time(self) -> bool:
        """2.1 tells memory attention how long ago each pointer was made (`obj_ptr_tpos_proj`)."""
        return self.version == "2.1"


_TINY = ModelConfig("sam2.1_hiera_tiny", 96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), (7, 7))
_SMALL = ModelConfig("sam2.1_hiera_small", 96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), (7, 7))
_BASE_PLUS = ModelConfig("sam2.1_hiera_base_plus", 112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), (14, 14))
_LARGE = ModelConfig("sam2.1_hiera_large", 144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), (7, 7))
_NANO = ModelConfig(
    "sam2.1_hiera_nano", 32, 1, (1, 2, 4, 1), (4, 6), (8, 8, 8, 8), (8, 8),
    image_size=256, d_model=128, memory_dim=32, memory_attention_layers=2, feedforward_dim=768,
)  # fmt: skip

CONFIGS: dict[str, ModelConfig] = {  # by official name
    config.name: config
    for config in (
        *(_NANO, _TINY, _SMALL, _BASE_PLUS, _LARGE),
        *(replace(c, name=c.name.replace("2.1", "2"), version="2") for c in (_TINY, _SMALL, _BASE_PLUS, _LARGE)),
    )
}

_SHORT_SIZES = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large"}  # as in the official YAML names


def official_yaml(name: str) -> str:
    """ "sam2.1_hiera_tiny" -> "configs/sam2.1/sam2.1_hiera_t.yaml"."""
    version, _, size = name.partition("_hiera_")
    short = next(short for short, long in _SHORT_SIZES.items() if long == size)
    return f"configs/{version}/{version}_hiera_{short}.yaml"


def find_config(name: str) -> ModelConfig:
    """The variant called `name`.

    Accepted, for tiny of 2.1: "tiny", "sam2.1_hiera_tiny", "facebook/sam2.1-hiera-tiny", "sam2.1_hiera_t",
    "sam2.1_hiera_t.yaml", "configs/sam2.1/sam2.1_hiera_t.yaml"; a bare size means 2.1.

    Raises BadInput naming the variants.
    """
    stem = name.split("/")[-1].removesuffix(".yaml").replace("-", "_")
    version, _, size = stem.rpartition("_hiera_") if "_hiera_" in stem else ("sam2.1", "", stem)
    full = f"{version}_hiera_{_SHORT_SIZES.get(size, size)}"
    if full not in CONFIGS:
        names = ", ".join(("nano", *_SHORT_SIZES.values(), *sorted(CONFIGS)))
        raise BadInput(f"model {name!r}: expected one of {names}")
    return CONFIGS[full]
