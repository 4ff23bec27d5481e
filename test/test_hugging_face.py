"""Hugging Face's names of the weights: the table that renames them is a bijection, and knows transformers' names."""

import re

import pytest
import torch

from sam2 import hugging_face
from sam2.config import CONFIGS
from sam2.hugging_face import from_hugging_face, is_hugging_face, to_hugging_face
from sam2.model import SAM2


def meta_state(name):
    with torch.device("meta"):
        return SAM2(CONFIGS[name]).state_dict()


@pytest.mark.parametrize("name", [n for n in CONFIGS if "nano" not in n])
def test_renaming_is_a_bijection(name):
    ours = meta_state(name)
    theirs = to_hugging_face(ours)
    assert is_hugging_face(theirs) and not is_hugging_face(ours)
    back = from_hugging_face(theirs)
    assert back.keys() == ours.keys()
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in ours.items()}
    untouched = set(ours) & set(theirs)
    assert untouched == {"mask_downsample.weight", "mask_downsample.bias"} | {
        n
        for n in ours
        if re.fullmatch(r"memory_attention\.layers\.\d\.(linear\d|(self|cross)_attn\w*\.[qkv]_proj)\.\w+", n)
    }


def test_renaming_gives_the_names_of_transformers():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        theirs = transformers.Sam2VideoModel(transformers.Sam2VideoConfig()).state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    got = {name: tuple(tensor.shape) for name, tensor in to_hugging_face(meta_state("sam2.1_hiera_tiny")).items()}
    assert got == expected


def test_a_wrong_line_of_the_table_is_noticed(monkeypatch):
    swapped = [(theirs, ours.replace("q_proj", "k_proj")) for theirs, ours in hugging_face._PAIRS]
    monkeypatch.setattr(hugging_face, "_TO_OURS", hugging_face._patterns(swapped))
    ours = meta_state("sam2.1_hiera_tiny")
    assert from_hugging_face(to_hugging_face(ours)).keys() != ours.keys()
