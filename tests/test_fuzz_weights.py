"""Damaged weights files: hundreds of mutations, each refused or noticed; none crashes, hangs or passes for weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import struct
from collections.abc import Callable, Iterator
from types import MappingProxyType

import numpy as np
import pytest
import torch
from safetensors.torch import save

import hubmodels
from hubmodels import Segmenter, WeightsError
from hubmodels.config import ModelConfig
from hubmodels.entries import ENTRIES
from hubmodels.hub import load_regions
from hubmodels.labels import FASHION, PERSON, LabelSet
from hubmodels.saved_regions import read_regions
from hubmodels.weights_files import parse_tensors, read_verified

CONFIG = ModelConfig("tiny", "u2net_small", {}, PERSON, 64)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """The weights file of a small network with float16 tensors, some 2 MB."""
    torch.manual_seed(0)
    state = {key: v.half() if v.is_floating_point() else v for key, v in CONFIG.build().state_dict().items()}
    return save(state, metadata={"hubmodels": "{}"})


def split(data: bytes) -> tuple[dict, bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(header: dict | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def raw_mutations(data: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Cut, flipped, overwritten, doubled and replaced bytes; nothing knows the format."""
    header_end = 8 + int.from_bytes(data[:8], "little")
    for cut in [
        0,
        1,
        7,
        8,
        9,
        header_end - 1,
        header_end,
        header_end + 1,
        len(data) - 1,
        *rng.integers(0, len(data), 41),
    ]:
        yield f"cut at {cut}", data[:cut]
    for _ in range(120):
        at, bit = int(rng.integers(0, header_end)), int(rng.integers(0, 8))
        yield f"header bit {at}.{bit}", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    for _ in range(40):
        at, bit = int(rng.integers(header_end, len(data))), int(rng.integers(0, 8))
        yield f"data bit {at}.{bit}", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    for _ in range(30):
        at, count = int(rng.integers(0, len(data) - 64)), int(rng.integers(1, 64))
        yield f"noise at {at}", data[:at] + rng.bytes(count) + data[at + count :]
    for count in (1, 8, 1000):
        yield f"tail of {count}", data + bytes(count)
        yield f"zeros for the first {count}", bytes(count) + data[count:]
        yield f"shifted by {count}", bytes(count) + data
    for size in (0, 1, 2**20, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1):
        yield f"header of {size} bytes", struct.pack("<Q", size) + data[8:]
    yield "doubled", data + data
    yield "web page", b"<!DOCTYPE html><html><body>Not Found</body></html>"
    yield "LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"pickle {protocol}", pickle.dumps({"weight": [1.0, 2.0]}, protocol=protocol)
    yield "zip", b"PK\x03\x04" + data[4:]


def header_mutations(data: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Headers that are valid JSON and lie about names, shapes, kinds and places."""
    header, body = split(data)
    names = [name for name in header if name != "__metadata__"]

    def changed(name: str, **values: object) -> bytes:
        if {**header[name], **values} == header[name]:  # what it was says nothing
            return data
        return join({**header, name: {**header[name], **values}}, body)

    for name in rng.choice(names, min(12, len(names)), replace=False):
        shape, (start, end) = header[name]["shape"], header[name]["data_offsets"]
        yield f"{name} reversed", changed(name, shape=[*shape, 7])
        yield f"{name} negative", changed(name, shape=[-1])
        yield f"{name} huge", changed(name, shape=[2**40, 2**40])
        yield f"{name} overflowing", changed(name, shape=[2**63, 2])
        yield f"{name} text", changed(name, shape="big")
        yield f"{name} float", changed(name, shape=[1.5])
        yield f"{name} null", changed(name, shape=None)
        for kind in ("F32", "F64", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "X", 3):
            yield f"{name} {kind}", changed(name, dtype=kind)
        for offsets in ([end, start], [0, 0], [start, end + 1], [start + 1, end], [-1, end], [0, 2**63], [0], "all"):
            yield f"{name} {offsets}", changed(name, data_offsets=offsets)
        yield f"{name} gone", join({key: value for key, value in header.items() if key != name}, body)
        yield f"{name} renamed", join({f"{key}x" if key == name else key: v for key, v in header.items()}, body)
        yield f"{name} nothing", join({**header, name: {}}, body)
        yield f"{name} number", join({**header, name: 5}, body)
    yield "no tensors", join({}, b"")
    yield "a list", join([], body)  # type: ignore[arg-type]
    yield "deep", join(b"[" * 100_000 + b"]" * 100_000, body)
    yield "not UTF-8", join(b'{"\xff": 1}', body)
    yield "metadata of numbers", join({**header, "__metadata__": {"hubmodels": 5}}, body)
    yield "metadata a list", join({**header, "__metadata__": []}, body)


def value_mutations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that are in order, with values or tensors that cannot be."""
    state = CONFIG.build().state_dict()
    for key in list(state)[:6]:
        for value in (float("nan"), float("inf"), -float("inf")):
            if state[key].is_floating_point():
                yield f"{key} {value}", save({**state, key: torch.full_like(state[key], value)})
    variance = next(key for key in state if key.endswith("running_var"))
    yield "negative variance", save({**state, variance: -state[variance]})
    yield "one more", save({**state, "more": torch.zeros(1)})
    yield "of another network", save({"weight": torch.zeros(3)})
    yield "integers", save({**state, variance: state[variance].long()})
    header, body = split(data)
    pairs = {"dtype": "C64", "shape": [state[variance].numel() // 2]}
    yield "complex", join({**header, variance: {**header[variance], **pairs}}, body)  # older safetensors save none


@pytest.fixture(scope="module")
def mutations(whole) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    found = {**dict(raw_mutations(whole, rng)), **dict(header_mutations(whole, rng)), **dict(value_mutations(whole))}
    found = {name: data for name, data in found.items() if data != whole}
    assert len(found) >= 300
    return found


def refused(call: Callable[[], object], name: str) -> bool:
    """Whether a call raised WeightsError; any other exception fails the test."""
    try:
        call()
    except WeightsError as error:
        assert len(str(error)) < 2000 and "\n" not in str(error), name
        return True
    return False


def tensors_of(data: bytes, wanted: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """What `parse_tensors` makes of a file; nothing if it refuses it."""
    found: dict[str, torch.Tensor] = {}
    refused(lambda: found.update(parse_tensors(data, wanted, what="w", remedy="r")), name)
    return found


def test_a_pinned_file_is_refused_whatever_is_changed(whole, mutations, tmp_path):
    entry = dataclasses.replace(ENTRIES["deeplabv3plus_person"])
    facts = {**entry.measured, "sha256": hashlib.sha256(whole).hexdigest(), "size_bytes": len(whole)}
    object.__setattr__(entry, "measured", MappingProxyType(facts))
    path = tmp_path / "w.safetensors"
    path.write_bytes(whole)
    assert read_verified(entry, path) == whole
    for name, data in mutations.items():
        path.write_bytes(data)
        assert refused(lambda: read_verified(entry, path), name), name


def test_a_saved_folder_is_refused_whatever_is_changed(whole, mutations, tmp_path):
    """Nobody pinned it, but its config.json holds the digest of what was saved."""
    (tmp_path / "config.json").write_text(CONFIG.to_json(weights_sha256=hashlib.sha256(whole).hexdigest()))
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole)
    hubmodels.load(tmp_path)
    for name, data in list(mutations.items())[
        ::5
    ]:  # the network is built for each: a fifth is enough for the way there
        path.write_bytes(data)
        assert refused(lambda: hubmodels.load(tmp_path), name), name


def test_without_any_digest_only_finite_tensors_of_the_right_shapes_get_through(whole, mutations):
    """A changed value cannot be told from a trained one; everything else is refused by what it is."""
    wanted = CONFIG.build().state_dict()
    body_start = 8 + int.from_bytes(whole[:8], "little")
    right = parse_tensors(whole, wanted, what="w", remedy="r")
    passed = []
    for name, data in mutations.items():
        found = tensors_of(data, wanted, name)
        if found:
            passed.append(name)
            assert {key: value.shape for key, value in found.items()} == {key: v.shape for key, v in wanted.items()}
            assert all(torch.isfinite(value).all() for value in found.values())
            same = all(torch.equal(found[key], right[key]) for key in right)
            # The header may differ where nothing reads it; values only if the bytes after it do.
            assert same or data[:body_start] != whole[:body_start] or data[body_start:] != whole[body_start:]
            assert name.startswith(("data bit", "noise", "header bit", "metadata")), name
    assert 10 < len(passed) < len(mutations) / 4


def test_a_folder_whose_config_was_made_to_fit_behaves_the_same(whole, mutations, tmp_path):
    """Files that lie, with a config.json that vouches for them: refused, or a model whose answers are numbers."""
    chosen = [name for name in mutations if not name.startswith(("cut", "header bit", "data bit", "noise"))][::9]
    for name in chosen:
        digest = hashlib.sha256(mutations[name]).hexdigest()
        (tmp_path / "config.json").write_text(CONFIG.to_json(weights_sha256=digest))
        (tmp_path / "model.safetensors").write_bytes(mutations[name])
        assert refused(lambda: hubmodels.load(tmp_path), name) or name.startswith("metadata"), name


def test_region_classifiers_are_refused_whatever_is_changed(monkeypatch, tmp_path):
    whole = (hubmodels.hub.WEIGHTS_FOLDER / "regions_fashion.safetensors").read_bytes()
    monkeypatch.setenv("HUBMODELS_WEIGHTS", str(tmp_path))
    for name, data in raw_mutations(whole, np.random.default_rng(1)):
        if data != whole:
            (tmp_path / "regions_fashion.safetensors").write_bytes(data)
            assert refused(lambda: load_regions("regions_fashion"), name), name


def test_a_region_classifier_beside_a_model_is_refused_or_sound_whatever_is_changed(tmp_path, astronaut):
    """A config.json that vouches for each file: what gets through is a classifier whose answers are labels."""
    whole = (hubmodels.hub.WEIGHTS_FOLDER / "regions_fashion.safetensors").read_bytes()
    rng = np.random.default_rng(2)
    changed = {**dict(raw_mutations(whole, rng)), **dict(header_mutations(whole, rng))}
    changed = {name: data for name, data in changed.items() if data != whole}
    path = tmp_path / "region_classifier.safetensors"
    segments = np.repeat(np.arange(32), 2)[:, None].repeat(64, 1)
    probs = np.full((7, 64, 64), 1 / 7, np.float32)
    passed = 0
    for name, data in changed.items():
        path.write_bytes(data)
        facts = {"digest": hashlib.sha256(data).hexdigest(), "labels": FASHION, "what": "w"}
        if not refused(lambda facts=facts: read_regions(path, **facts), name):
            passed += 1
            assert read_regions(path, **facts).vote(astronaut[:64, :64], segments, probs).max() < 7, name
            assert name.startswith(("data bit", "noise", "header bit", "metadata")), name
    assert len(changed) >= 300 and 10 < passed < len(changed) / 3


CONFIG_LIES = {
    "arch": ["deeplabv4", 5, None, ["u2net"], "../u2net"],
    "network": [{"channels": 10**9}, {"backbone": "resnet9999"}, {"evil": 1}, [], None, "x", {"channels": True},
                {"channels": -1}, {"channels": 1.5}, {"output_stride": 7}, {"separable": 1}, {"channels": [1] * 9},
                {"dense_upsampling": 1}],
    "id2label": [{}, {"0": "a"}, {"0": "a", "1": "a"}, {"0": "a", "2": "b"}, {"0": 1, "1": 2}, [], "ab",
                 {str(i): str(i) for i in range(300)}, {"0": "a\n", "1": "b"}, {"0": "", "1": "b"}],
    "label2id": [{}, {"background": 1, "person": 0}, None, []],
    "palette": [[], ["#000000"], ["red", "blue"], [[0, 0, 0], [1, 1, 1]], None, "#000000"],
    "input_px": [0, -5, 10**9, "576", True, 1.5, None],
    "name": ["", "a" * 101, "a\nb", "\x1b[31m", 5, None],
    "task": ["", 5, "a\tb"],
    "weights_sha256": ["", "0" * 63, "g" * 64, 5, None, "A" * 64],
    "format_version": [0, 2, "1", None, [1]],
    "region_classifier": [None, {}, "region_classifier.safetensors", [], {"file": "region_classifier.safetensors"},
                          {"file": "../../secret", "sha256": "0" * 64},
                          {"file": "model.safetensors", "sha256": "0" * 64},
                          {"file": "region_classifier.safetensors", "sha256": "0" * 63},
                          {"file": "region_classifier.safetensors", "sha256": "0" * 64, "more": 1}],
}  # fmt: skip


LITTLE = {"arch": "deeplabv3", "channels": 8}
MEMBER_LIES = [
    None, {}, "ab", [], [LITTLE], [LITTLE] * 5, [LITTLE, None], [LITTLE, "deeplabv3"], [LITTLE, {"channels": 8}],
    [LITTLE, {"arch": "deeplabv4"}], [LITTLE, {"arch": ["u2net"]}], [LITTLE, {**LITTLE, "channels": 10**9}],
    [LITTLE, {**LITTLE, "evil": 1}], [LITTLE, {"arch": "ensemble", "members": [LITTLE, LITTLE]}],
]  # fmt: skip


def test_a_config_that_lies_is_refused_before_anything_is_built(whole, tmp_path, monkeypatch):
    good = json.loads(CONFIG.to_json(weights_sha256=hashlib.sha256(whole).hexdigest()))
    (tmp_path / "model.safetensors").write_bytes(whole)
    monkeypatch.setattr(ModelConfig, "build", lambda *_: pytest.fail("a network was built"))
    deeplab = {"arch": "deeplabv3plus"}
    cases = [
        {**good, **(deeplab if key == "network" else {}), key: value}
        for key, lies in CONFIG_LIES.items()
        for value in lies
    ]
    cases += [{**good, "arch": "ensemble", "network": {"members": members}} for members in MEMBER_LIES]
    cases += [{**good, "arch": "ensemble", "network": network} for network in ({}, LITTLE, {"channels": 8})]
    cases += [{key: value for key, value in good.items() if key != gone} for gone in good]
    cases += [{**good, "auto_map": {"AutoModel": "evil.py"}}, [], "text", 5, None]
    texts = [json.dumps(case).encode() for case in cases]
    texts += [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 100_000, b'{"a": NaN}', b" " * 300_000]
    for text in texts:
        (tmp_path / "config.json").write_bytes(text)
        assert refused(lambda: Segmenter.from_pretrained(tmp_path), text[:80].decode(errors="replace")), text[:300]


@pytest.mark.parametrize("member", [False, True])
@pytest.mark.parametrize(
    "network, most",
    [
        ({"output_stride": 32}, 16),
        ({}, 67),
        ({"channels": 1024, "output_stride": 8}, 67),
        ({"output_stride": 8}, 256),
        ({"arch": "deeplabv3plus", "decoder_channels": 1024}, 256),
    ],
)
def test_dense_upsampling_cannot_ask_for_gigabytes_of_weights(network, most, member):
    """Its channels grow with the labels and the square of the stride."""
    network = {"arch": "deeplabv3", "dense_upsampling": True, **network}

    def config(count: int) -> ModelConfig:
        labels = LabelSet.custom([f"label {index}" for index in range(count)])
        if member:
            return ModelConfig("x", "ensemble", {"members": [network, LITTLE]}, labels, 64)
        options = dict(network)
        return ModelConfig("x", options.pop("arch"), options, labels, 64)

    assert config(most).labels.names[-1] == f"label {most - 1}"
    if most < 256:  # as many as there can be
        with pytest.raises(ValueError, match=f"is for up to {most} labels; got {most + 1}"):
            config(most + 1)


def test_files_that_are_no_files_are_refused(whole, tmp_path):
    import os

    assert refused(lambda: hubmodels.load(tmp_path), "empty folder")
    (tmp_path / "config.json").write_text(CONFIG.to_json(weights_sha256=hashlib.sha256(whole).hexdigest()))
    assert refused(lambda: hubmodels.load(tmp_path), "no weights")
    weights = tmp_path / "model.safetensors"
    weights.mkdir()
    assert refused(lambda: hubmodels.load(tmp_path), "a folder")
    weights.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(weights)  # opening it would wait for ever
        assert refused(lambda: hubmodels.load(tmp_path), "a pipe")
        weights.unlink()
    with weights.open("wb") as file:
        file.truncate(2**40)  # a terabyte of nothing: refused by its size
    assert refused(lambda: hubmodels.load(tmp_path), "a terabyte")
