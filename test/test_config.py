"""Names people use find the right variant; anything else is refused with the list."""

import pytest

from sam2.config import CONFIGS, find_config
from sam2.errors import BadInput


@pytest.mark.parametrize(
    "name, expected",
    [
        ("tiny", "sam2.1_hiera_tiny"),
        ("nano", "sam2.1_hiera_nano"),
        ("sam2_hiera_large", "sam2_hiera_large"),
        ("facebook/sam2.1-hiera-base-plus", "sam2.1_hiera_base_plus"),
        ("configs/sam2.1/sam2.1_hiera_b+.yaml", "sam2.1_hiera_base_plus"),
        ("sam2_hiera_s.yaml", "sam2_hiera_small"),
    ],
)
def test_names(name, expected):
    assert find_config(name).name == expected


def test_nine_variants():
    assert len(CONFIGS) == 9


def test_unknown_name_is_refused_with_the_list():
    with pytest.raises(BadInput, match="sam2.1_hiera_small"):
        find_config("medium")
