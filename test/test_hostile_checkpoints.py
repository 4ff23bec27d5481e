"""Weights files made to harm: no memory beyond the file's size, no flood of words, and nothing but a sentence."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from sam2.checkpoint import fill, load_model, read_weights
from sam2.config import find_config
from sam2.errors import BadCheckpoint
from sam2.model import SAM2

MB = 1 << 20


def repacked(path, change, **how):
    """The archive again, with each entry as `change` wants it."""
    with zipfile.ZipFile(path) as old:
        entries = [(entry, old.read(entry)) for entry in old.infolist()]
    with zipfile.ZipFile(path, "w", **how) as new:
        for entry, content in entries:
            change(new, entry.filename, content)
    return path


def deflated(path):
    return repacked(path, zipfile.ZipFile.writestr, compression=zipfile.ZIP_DEFLATED)


def shared(path):
    """Each part is in the file once, and twenty times in its list."""

    def write(archive, name, content):
        archive.writestr(name, content)
        archive.filelist.extend(archive.filelist[-1:] * 19)

    return repacked(path, write)


def hidden(path):
    """Python's reader takes the last words of the comment for the end of the archive, torch's does not."""
    deflated(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK\x05\x06"
    return path


@pytest.mark.parametrize("pack", [deflated, shared, hidden])
def test_an_archive_that_is_larger_in_memory_than_on_disk_is_not_opened(pack, tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.zeros(MB)}, path)
    assert read_weights(path)["weight"].shape == (MB,)
    pack(path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("was opened"))
    with pytest.raises(BadCheckpoint, match="compressed one or one whose parts overlap|damaged"):
        read_weights(path)


def test_a_small_file_does_not_take_the_memory_of_a_large_one(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.zeros(64 * MB)}, path)
    assert deflated(path).stat().st_size < MB
    peak = "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    code = f"""
import resource, sys
from sam2.checkpoint import read_weights
before = {peak}
try:
    read_weights(sys.argv[1])
except Exception as error:
    print(type(error).__name__, {peak} - before)
"""
    said = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    name, kilobytes = said.split()
    assert name == "BadCheckpoint" and int(kilobytes) < 30_000


@pytest.mark.parametrize("new", [True, False], ids=["archive", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_what_torch_saves_in_16_or_64_bits_becomes_float32(dtype, new, tmp_path):
    weights = {f"weight{n}": torch.nn.Parameter(torch.full((3, n), 0.5, dtype=dtype)) for n in range(5)}
    torch.save(weights, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    assert all(torch.equal(v, weights[k].float()) for k, v in read_weights(tmp_path / "a.pt").items())


@pytest.mark.parametrize(
    "odd",
    [{"epoch": 3}, {"epoch": "many"}, {"epoch": {}}, {"epoch": torch.arange(3)}, {"epoch": torch.ones(2) * 1j}]
    + [{"epoch": torch.zeros(1).expand(10**13)}, {7: torch.zeros(3)}],
)
def test_one_entry_that_is_no_weight_is_one_too_many(odd, tmp_path):
    torch.save({"weight": torch.zeros(3), **odd}, tmp_path / "a.pt")
    with pytest.raises(BadCheckpoint, match="expected a dict of float tensors by name"):
        read_weights(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_is_no_weight(tmp_path):
    torch.save({"weight": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])}, tmp_path / "a.pt")
    with pytest.raises(BadCheckpoint, match="expected a dict of float tensors by name"):
        read_weights(tmp_path / "a.pt")


NARROW = [name for name in ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu") if hasattr(torch, name)]


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_floats_of_8_bits_are_refused(name, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    (torch.save if suffix == "pt" else save_file)({"weight": torch.ones(2, 2).to(getattr(torch, name))}, path)
    with pytest.raises(BadCheckpoint, match=f"expected floats of 16, 32 or 64 bits, got torch.{name} in 'weight'"):
        read_weights(path)


def test_what_is_infinite_as_float32_is_refused(tmp_path):
    torch.save({"weight": torch.tensor([1e300], dtype=torch.float64)}, tmp_path / "a.pt")
    with pytest.raises(BadCheckpoint, match="NaN or infinity in 'weight'"):
        read_weights(tmp_path / "a.pt")


def test_names_in_a_file_are_no_text_of_ours(tmp_path):
    """A hundred kilobytes of them filled the log, with lines of their own."""
    evil = "evil\n[FATAL] forged " + "x" * 100_000
    with torch.device("meta"):
        nano = SAM2(find_config("nano"))
    torch.save({evil: torch.tensor([torch.nan])}, tmp_path / "a.pt")
    with pytest.raises(BadCheckpoint, match="infinity in 'evil") as not_finite:
        read_weights(tmp_path / "a.pt")
    known = nano.state_dict()
    many = dict(known, **{evil: torch.zeros(1)})
    with pytest.raises(BadCheckpoint, match="'evil.* is unknown") as unknown:
        fill(nano, many, "a.pt")
    for refusal in (not_finite, unknown):
        assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 1000


@pytest.mark.parametrize("path", ["a" * 300, "a\0b", "a\udc80b"])
def test_what_is_no_name_of_a_file_is_refused(path):
    with pytest.raises(BadCheckpoint, match=f"checkpoint {re.escape(path)}: expected a "):
        load_model("nano", checkpoint=path, device="cpu")


def test_a_file_in_a_folder_that_is_closed_is_refused(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(BadCheckpoint, match="expected a readable file, got: Permission denied"):
        load_model("nano", checkpoint="closed/a.pt", device="cpu")


def test_a_header_whose_length_reads_like_markup_is_no_web_page(tmp_path):
    """A safetensors file begins with its header's length: this one is " <", and zeros."""
    wanted, weights = int.from_bytes(b" <", "little"), {"weight": torch.ones(1)}
    spare = wanted - int.from_bytes(save(weights, {"about": ""})[:8], "little")
    content = save(weights, {"about": spare * "x"})
    assert content.startswith(b" <\0\0")
    (tmp_path / "own.safetensors").write_bytes(content)
    assert read_weights(tmp_path / "own.safetensors").keys() == weights.keys()
