"""config.json: what it says, which values it takes and where they end, and what is said of others."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from hubmodels import LabelSet, WeightsError
from hubmodels.config import ModelConfig, config_of, parse_config
from hubmodels.entries import ENTRIES
from hubmodels.labels import PERSON

DIGEST, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
LITTLE = {"arch": "deeplabv3", "channels": 8}


def config(
    arch: str = "deeplabv3", *, name: str = "mine", labels: LabelSet = PERSON, px: int = 64, **network: Any
) -> ModelConfig:
    return ModelConfig(name, arch, network, labels, px)


def read(values: Any) -> tuple[ModelConfig, str, str | None]:
    return parse_config(json.dumps(values).encode(), what="w")


GOOD: dict[str, Any] = json.loads(config("deeplabv3plus", channels=8).to_json(weights_sha256=DIGEST))


def test_the_file_says_all_that_a_model_is_in_words_that_people_read():
    labels = LabelSet("hats", ("nothing", "Mütze"), ((0, 0, 0), (230, 159, 1)))
    text = config("deeplabv3plus", name="mine", labels=labels, channels=8).to_json(weights_sha256=DIGEST)
    assert json.loads(text) == {
        "format_version": 1,
        "library_name": "hubmodels",
        "name": "mine",
        "arch": "deeplabv3plus",
        "network": {"channels": 8},
        "task": "hats",
        "id2label": {"0": "nothing", "1": "Mütze"},
        "label2id": {"nothing": 0, "Mütze": 1},
        "palette": ["#000000", "#e69f01"],
        "input_px": 64,
        "weights_sha256": DIGEST,
    }
    assert '  "name": "mine",\n' in text and "Mütze" in text and text.endswith("}\n")


@pytest.mark.parametrize("regions", [None, OTHER], ids=["alone", "with a region classifier"])
def test_what_is_written_is_read_again(regions):
    published = [config_of(entry) for entry in ENTRIES.values() if entry.is_network]
    for written in (config("ensemble", members=[{**LITTLE, "separable": True}, {"arch": "u2net_small"}]), *published):
        text = written.to_json(weights_sha256=DIGEST, regions_sha256=regions)
        assert parse_config(text.encode(), what="w") == (written, DIGEST, regions)


def test_published_networks_are_described_as_their_rows_have_them():
    entry = ENTRIES["deeplabv3plus_person"]
    got = config_of(entry)
    assert (got.name, got.arch, got.labels, got.input_px) == (entry.name, entry.arch, entry.labels, entry.input_px)
    assert dict(got.network) == dict(entry.network)


def test_a_network_is_built_for_as_many_labels_as_there_are_or_as_are_asked_for():
    made = config("deeplabv3plus", channels=8, decoder_channels=8, backbone="tf_efficientnet_lite0")
    assert made.build().classifier.out_channels == 2 and made.build(num_classes=5).classifier.out_channels == 5


@pytest.mark.parametrize(
    ("arch", "key", "least", "most"),
    [
        ("deeplabv3", "channels", 1, 1024),
        ("deeplabv3plus", "channels", 1, 1024),
        ("deeplabv3plus", "decoder_channels", 1, 1024),
        ("deeplabv3plus", "low_channels", 1, 512),
    ],
)
def test_widths_end_where_weights_would_take_too_much_memory(arch, key, least, most):
    for width in (least, most):
        assert config(arch, **{key: width}).network == {key: width}
    for width in (least - 1, most + 1):
        with pytest.raises(ValueError, match=rf"^{key} must be in {least}\.\.{most}; got {width}$"):
            config(arch, **{key: width})


def test_photos_go_through_networks_with_a_long_side_of_32_to_4096_pixels():
    assert [config(px=px).input_px for px in (32, 4096)] == [32, 4096]
    for px in (31, 4097):
        with pytest.raises(ValueError, match=rf"^input_px must be in 32\.\.4096; got {px}$"):
            config(px=px)


def test_strides_are_those_that_the_backbones_have():
    assert [config(output_stride=stride).network["output_stride"] for stride in (8, 16, 32)] == [8, 16, 32]
    for stride in (4, 64):
        with pytest.raises(ValueError, match=rf"^output_stride must be in \[8, 16, 32\]; got {stride}$"):
            config(output_stride=stride)


@pytest.mark.parametrize(
    ("arch", "option"),
    [("deeplabv3plus", "separable"), ("deeplabv3", "decoder_channels"), ("u2net", "dense_upsampling")],
)
def test_options_of_one_architecture_are_not_those_of_another(arch, option):
    assert config("deeplabv3", separable=True) and config("deeplabv3plus", decoder_channels=8)
    with pytest.raises(ValueError, match=rf"^{arch} has no options \['{option}'\]; it has \["):
        config(arch, **{option: 1})


def test_an_ensemble_has_two_to_four_members():
    for count in (2, 4):
        assert len(config("ensemble", members=[LITTLE] * count).network["members"]) == count
    for count in (1, 5):
        with pytest.raises(ValueError, match=r"^members must be a list of 2\.\.4 networks; got "):
            config("ensemble", members=[LITTLE] * count)
    assert config("ensemble", members=(LITTLE, LITTLE)).network == {"members": [LITTLE, LITTLE]}


def test_names_have_a_hundred_printable_characters_at_most():
    longest, labels = "é" * 100, LabelSet("t" * 100, ("a", "b" * 100), ((0, 0, 0), (1, 1, 1)))
    assert config(name=longest, labels=labels).name == longest
    for key, change in (
        ("name", {"name": longest + "é"}),
        ("name", {"name": "a\u202eb"}),  # would turn the rest of the line around
        ("name", {"name": ""}),
        ("task", {"labels": LabelSet("t" * 101, labels.names, labels.palette)}),
        ("a label", {"labels": LabelSet("t", ("a", "b" * 101), labels.palette)}),
    ):
        with pytest.raises(ValueError, match=rf"^{key} must be 1 to 100 printable characters; got "):
            config(**change)


def test_a_config_does_not_change_with_what_it_was_made_of():
    """What was checked is what is built."""
    member, options = dict(LITTLE), {"channels": 8}
    single = ModelConfig("mine", "deeplabv3", options, PERSON, 64)
    several = config("ensemble", members=[member, LITTLE])
    options["channels"] = member["channels"] = 10**9
    assert single.network == {"channels": 8} and several.network["members"][0] == LITTLE


def test_dense_upsampling_has_forty_million_weights_at_most():
    """From 1,000 channels at a stride of 8 a label takes 9 x 1,000 x 64 = 576,000, so that 69 are 39.7 million."""
    labels = [LabelSet.custom(count) for count in (69, 70)]
    dense = {"channels": 1000, "output_stride": 8, "dense_upsampling": True}
    assert len(config(labels=labels[0], **dense).labels) == 69
    refused = r"^dense_upsampling from 1000 channels at stride 8 is for up to 69 labels; got 70: leave it off, or"
    with pytest.raises(ValueError, match=refused):
        config(labels=labels[1], **dense)
    assert config(labels=labels[1], **{**dense, "dense_upsampling": False})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 2}, "format_version is 2, this release reads 1"),
        ({"auto_map": {}, "more": 1}, "missing keys [], unknown keys ['auto_map', 'more']"),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, "unknown keys ['a', 'b', 'c']"),
        ({"arch": ["u2net"]}, "arch must be text; got ['u2net']"),
        ({"arch": "u3net"}, "arch must be one of deeplabv3, deeplabv3plus, ensemble, u2net, u2net_small; got 'u3net'"),
        ({"network": []}, "network must be an object; got list"),
        ({"network": {"channels": True}}, "channels must be in 1..1024; got True"),
        ({"network": {"dense_upsampling": 1}}, "dense_upsampling must be in [False, True]; got 1"),
        ({"arch": "ensemble", "network": {"members": [LITTLE, "u2net"]}}, "a member must be an object with its arch"),
        ({"arch": "ensemble", "network": {"members": [LITTLE, {}]}}, "arch of a member must be text; got None"),
        ({"arch": "ensemble", "network": {"members": [LITTLE, {"arch": "ensemble", "members": [LITTLE] * 2}]}},
         "a member of an ensemble must be a single network; got an ensemble"),
        ({"id2label": {"0": "a", "2": "b"}}, 'id2label must map "0", "1", ... to names'),
        ({"id2label": {"0": "a", "1": 2}}, "a label must be text; got 2"),
        ({"label2id": {"background": 1, "person": 0}}, "label2id must be the inverse of id2label"),
        ({"palette": ["#000000", "#E69F00"]}, 'palette must be a list of colours like "#e69f00"'),
        ({"palette": ["#000000", "#e69f000"]}, 'palette must be a list of colours like "#e69f00"'),
        ({"palette": {"#000000": 0, "#e69f00": 1}}, 'palette must be a list of colours like "#e69f00"'),
        ({"palette": ["#000000"]}, "expected one colour per label; got 2 names, 1 colours"),
        ({"input_px": 64.0}, "input_px must be in 32..4096; got 64.0"),
        ({"task": 5}, "task must be text; got 5"),
        ({"weights_sha256": DIGEST[:-1]}, "weights_sha256 must be 64 hexadecimal digits; got '0123"),
        ({"weights_sha256": DIGEST.upper()}, "weights_sha256 must be 64 hexadecimal digits; got '0123"),
        ({"region_classifier": {"file": "model.safetensors", "sha256": DIGEST}},
         'region_classifier must be {"file": "region_classifier.safetensors", "sha256": ...}; got {'),
        ({"region_classifier": {"file": "region_classifier.safetensors", "sha256": 5}},
         "region_classifier: sha256 must be 64 hexadecimal digits; got 5"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_expected_and_what_was_found(change, said):
    read(GOOD)
    with pytest.raises(WeightsError, match=rf"^w: config\.json: .*{re.escape(said)}.*; save the model again with"):
        read({**GOOD, **change})


@pytest.mark.parametrize("key", GOOD)
def test_a_key_that_is_missing_is_named(key):
    said = rf"missing keys \['{key}'\], unknown keys \[\]" if key != "format_version" else "format_version is None, "
    with pytest.raises(WeightsError, match=rf"^w: config\.json: {said}"):
        read({each: value for each, value in GOOD.items() if each != key})


def test_what_is_no_json_object_is_said_to_be_none():
    for data in (b"{", b"\xff\xfe", b"[" * 100_000, '{"é": 1}'.encode("latin-1")):
        with pytest.raises(WeightsError, match=r"^w: config\.json is not JSON \(.*\); save the model again with"):
            parse_config(data, what="w")
    for values, kind in (([], "list"), ("text", "str"), (None, "NoneType")):
        with pytest.raises(WeightsError, match=rf"^w: config\.json: expected an object; got {kind}; save"):
            read(values)
