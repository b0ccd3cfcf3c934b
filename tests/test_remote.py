"""The Hub as users meet it: the real client in fresh processes, against a hub on loopback that can misbehave."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from hubmodels.config import ModelConfig
from hubmodels.entries import ENTRIES
from hubmodels.labels import PERSON, LabelSet
from hubmodels.weights_files import WEIGHTS_FOLDER
from tests.exporting import needs_tracing
from tests.hub_processes import TINY, start, told
from tests.hub_server import LoopbackHub

ENTRY = ENTRIES["deeplabv3plus_person"]

MARKED = ("commit", "large_row")

PUSH = """
for seed in (1, 2):
    torch.manual_seed(seed)
    model = hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=64, config=config).eval()
    tell(f"sum {seed}", sum_of(model))
    tell(f"commit {seed}", model.push_to_hub("me/tiny", commit_message="A model"))
attempt("forbidden", lambda: model.push_to_hub("forbidden/tiny"))
attempt("bad name", lambda: model.push_to_hub("tiny"))
from hubmodels.publish import publish
tell("publish", publish(hubmodels.ENTRIES["deeplabv3plus_person"], "me/person"))
"""

PULL = """
print("ready", flush=True)
sys.stdin.readline()
model = hubmodels.load("me/tiny")
tell("main", sum_of(model))
first, second = sys.argv[1:]
if first == "-":
    sys.exit()
from_pretrained = hubmodels.Segmenter.from_pretrained
tell("pinned", sum_of(hubmodels.load("me/tiny", revision=first)))
tell("repo prefix", sum_of(hubmodels.load("hf://me/tiny", revision=second)))
mark("before cached commit")
tell("cached commit", sum_of(hubmodels.load("me/tiny", revision=first)))
for variable in ("HUBMODELS_OFFLINE", "HF_HUB_OFFLINE"):
    os.environ[variable] = "1"
    tell(f"main with {variable}", sum_of(hubmodels.load("me/tiny")))
    attempt(f"uncached with {variable}", lambda: hubmodels.load("me/person"))
    attempt(f"push with {variable}", lambda: model.push_to_hub("me/other"))
    del os.environ[variable]
attempt("folder name", lambda: hubmodels.load("weights/tiny"))
attempt("dot", lambda: hubmodels.load("./me/tiny"))
attempt("absolute", lambda: hubmodels.load("/nowhere/tiny"))
os.mkdir("here")
attempt("folder that is here", lambda: hubmodels.load("here/tiny"))
mark("after cached commit")
tell("wanted digest", sum_of(from_pretrained("me/tiny", revision=second, sha256=json.loads(open(
    hubmodels.remote.fetch("me/tiny", "config.json", revision=second)).read())["weights_sha256"])))
attempt("other digest", lambda: from_pretrained("me/tiny", sha256="0" * 64))
for repo in ("none", "gated", "cut", "page", "empty", "tampered", "pickled", "wrong_arch", "wrong_classes", "not_ours",
             "page_weights", "lfs_weights"):
    attempt(repo, lambda: hubmodels.load(f"me/{repo}"))
attempt("revision", lambda: hubmodels.load("me/tiny", revision="v9"))

import dataclasses
from pathlib import Path
from hubmodels import hub, weights_files
person = hubmodels.load("deeplabv3plus_person")
weights_files.WEIGHTS_FOLDER = Path("nowhere")
row = dataclasses.replace(hubmodels.ENTRIES["deeplabv3plus_person"], large=True, hub_repo="me/person")
tell("large row", sum_of(hub._published(row, pretrained=True)) - sum_of(person))
mark("before cached large row")
hub._published(row, pretrained=True)
mark("after cached large row")
tell("published repository", sum_of(hubmodels.load("me/person")) - sum_of(person))
attempt("large row, other weights",
        lambda: hub._published(dataclasses.replace(row, hub_repo="me/tiny"), pretrained=True))
attempt("large row, no repository", lambda: hub._published(dataclasses.replace(row, hub_repo=""), pretrained=True))
attempt("die", lambda: hubmodels.load("me/die"))
attempt("unreachable", lambda: hubmodels.load("me/never_asked"))
tell("cached though unreachable", sum_of(hubmodels.load("me/tiny")))
attempt("large row, unreachable",
        lambda: hub._published(dataclasses.replace(row, hub_repo="me/never_asked"), pretrained=True))
attempt("push, unreachable", lambda: model.push_to_hub("me/tiny"))
"""


def prepare(hub: LoopbackHub) -> None:
    """Repositories that are wrong in one way each, from the one that was pushed."""
    files = list(hub.commits["me/tiny"].values())[-1]
    config, weights = json.loads(files["config.json"]), files["model.safetensors"]
    for name in ("gated", "cut", "page", "die"):
        hub.faults[f"me/{name}"] = name
        hub.commit(f"me/{name}", files)
    hub.commit("me/empty", {"README.md": b"nothing"})
    hub.commit("me/tampered", {**files, "model.safetensors": weights[:-5] + bytes([weights[-5] ^ 1]) + weights[-4:]})
    hub.commit("me/pickled", {"config.json": files["config.json"], "pytorch_model.bin": b"\x80\x02"})
    other = ModelConfig("tiny", "deeplabv3", {"channels": 8}, PERSON, 64)
    digest = config["weights_sha256"]
    hub.commit("me/wrong_arch", {**files, "config.json": other.to_json(weights_sha256=digest).encode()})
    three = ModelConfig("tiny", "deeplabv3plus", TINY, LabelSet.custom(3), 64)
    hub.commit("me/wrong_classes", {**files, "config.json": three.to_json(weights_sha256=digest).encode()})
    hub.commit("me/page_weights", {**files, "model.safetensors": b"<!DOCTYPE html><html>Not found</html>"})
    hub.commit("me/lfs_weights", {**files, "model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid 0\n"})
    hub.commit("me/not_ours", {**files, "config.json": b'{"model_type": "segformer"}'})


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """One session of pushing, then two processes with one empty cache that pull at once; what they told."""
    folder = tmp_path_factory.mktemp("hub")
    pusher = tmp_path_factory.mktemp("pusher")
    with LoopbackHub() as hub:
        hub.commit("me/marks", {f"{when}_cached_{what}": b"" for when in ("before", "after") for what in MARKED})
        pushed = told(start(PUSH, hub, pusher))
        prepare(hub)
        first, second = (pushed[f"commit {n}"].rsplit("/", 1)[1] for n in (1, 2))
        pullers = [start(PULL, hub, folder, "-", "-"), start(PULL, hub, folder, first, second)]
        for process in pullers:
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        for process in pullers:
            process.stdin.write("go\n")
            process.stdin.flush()
        beside, pulled = (told(process) for process in pullers)
        yield {"hub": hub, "pushed": pushed, "pulled": pulled, "beside": beside, "first": first, "second": second}


def between(hub: LoopbackHub, start: str, end: str) -> list[str]:
    """Requests between two marks."""
    names = [request.rsplit("/", 1)[-1] for request in hub.requests]
    return hub.requests[names.index(start.replace(" ", "_")) + 1 : names.index(end.replace(" ", "_"))]


def test_a_pushed_model_holds_config_weights_and_a_card(session):
    files = session["hub"].commits["me/tiny"][session["second"]]
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    config = json.loads(files["config.json"])
    assert config["weights_sha256"] == hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert config["id2label"] == {"0": "background", "1": "person"} and config["label2id"] == {
        "background": 0,
        "person": 1,
    }
    assert files["README.md"].startswith(b"---\n") and session["hub"].pages[0].encode() == files["README.md"]


def test_a_published_model_is_pushed_with_its_very_bytes(session):
    (files,) = session["hub"].commits["me/person"].values()
    assert set(files) == {"README.md", "config.json", "model.safetensors", "example.jpg"}
    assert files["model.safetensors"] == (WEIGHTS_FOLDER / ENTRY.filename).read_bytes()
    assert session["pulled"]["published repository"] == 0


def test_two_processes_pull_at_once_what_was_pushed(session):
    assert session["pulled"]["main"] == session["beside"]["main"] == session["pushed"]["sum 2"]


def test_a_revision_pins_and_a_full_hash_needs_no_request(session):
    pulled, pushed = session["pulled"], session["pushed"]
    assert pushed["sum 1"] != pushed["sum 2"]
    assert pulled["pinned"] == pulled["cached commit"] == pushed["sum 1"]
    assert pulled["repo prefix"] == pulled["wanted digest"] == pushed["sum 2"]


@pytest.mark.parametrize("variable", ["HUBMODELS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_means_the_cache_or_an_error_at_once(session, variable):
    pulled = session["pulled"]
    assert pulled[f"main with {variable}"] == session["pushed"]["sum 2"]
    for what, words in (("uncached", "not in the cache"), ("push", "nothing is sent")):
        kind, message, seconds = pulled[f"{what} with {variable}"]
        assert kind == "WeightsError" and words in message and variable in message
        assert seconds < 2


def test_nothing_was_requested_for_what_is_cached_offline_or_a_path(session):
    for name in ("folder name", "dot", "absolute", "folder that is here"):
        kind, message, _ = session["pulled"][name]
        assert kind == "WeightsError" and "no such folder" in message and "hf://user/name" in message
    assert between(session["hub"], "before cached commit", "after cached commit") == []


FAILURES = {
    "none": "no such repository.*log in",
    "gated": "access is restricted; ask for it at .*/me/gated",
    "cut": "peer closed connection|try again",
    "page": "config.json is a web page",
    "empty": "no such file.*push_to_hub",
    "tampered": "sha256 is .*expected.*delete it to have it downloaded again",
    "pickled": "model.safetensors: the repository has no such file",
    "wrong_arch": "tensors missing",
    "wrong_classes": r"classifier.* is \(2.*expected \(3",
    "not_ours": "format_version",
    "page_weights": "a web page, not weights; .*delete it to have it downloaded again",
    "lfs_weights": "a Git LFS pointer, not weights; .*git lfs pull",
    "revision": "no such branch, tag or commit",
    "other digest": "other weights than the ones asked for",
    "large row, other weights": "expected .* at most",
    "large row, no repository": "clone the project with git.*HUBMODELS_WEIGHTS",
    "die": "try again",
    "unreachable": "cannot be reached; connect once",
    "large row, unreachable": "cannot be reached.*clone of the project with git.*HUBMODELS_WEIGHTS",
    "push, unreachable": "cannot be reached",
}


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_is_one_error_with_the_remedy(session, name):
    kind, message, _ = session["pulled"][name]
    assert kind in ("WeightsError", "MissingError", "MissingRevisionError"), kind
    assert re.search(FAILURES[name], message), message
    assert "\n" not in message


@pytest.mark.parametrize("name, words", [("forbidden", "no write access.*token"), ("bad name", "expected user/name")])
def test_a_push_that_fails_says_why(session, name, words):
    kind, message, _ = session["pushed"][name]
    assert kind == "WeightsError" and re.search(words, message)


def test_weights_of_other_libraries_are_not_downloaded(session):
    """They may have gigabytes, and their config.json says that they are not ours."""
    asked = [request for request in session["hub"].requests if "/me/not_ours/" in request]
    assert asked and not any("safetensors" in request for request in asked)


def test_no_pickled_file_was_asked_for(session):
    assert not [request for request in session["hub"].requests if request.endswith((".bin", ".pt", ".pth"))]


def test_large_weights_come_from_the_hub_once_and_from_the_cache_then(session):
    assert session["pulled"]["large row"] == 0
    assert between(session["hub"], "before cached large row", "after cached large row") == []


def test_an_unreachable_hub_is_noticed_at_once_and_the_cache_used(session):
    pulled = session["pulled"]
    assert pulled["cached though unreachable"] == session["pushed"]["sum 2"]
    for name in ("unreachable", "push, unreachable"):
        assert pulled[name][2] < 2


def test_a_damaged_download_is_replaced_once_the_file_that_the_message_names_is_deleted(tmp_path):
    """In the cache a file is a link to a blob: deleting the link would only bring the damage back."""
    script = """
import re
from pathlib import Path
from hubmodels import remote
model = hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=64, config=config).eval()
model.push_to_hub("me/tiny")
blob = remote.fetch("me/tiny", "model.safetensors").resolve()
blob.write_bytes(blob.read_bytes()[:-7])
try:
    hubmodels.load("me/tiny")
except hubmodels.WeightsError as error:
    Path(re.search("([^ ;]+) is damaged: delete it", str(error))[1]).unlink()
tell("difference", sum_of(hubmodels.load("me/tiny")) - sum_of(model))
"""
    with LoopbackHub() as hub:
        assert told(start(script, hub, tmp_path))["difference"] == 0


def test_a_card_on_the_hub_is_written_anew_until_somebody_edits_it(tmp_path):
    script = """
import warnings
from pathlib import Path
from hubmodels import remote
model = hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=64, config=config).eval()
scores = {"miou": 0.25, "data": "my photos"}
card = lambda: remote.fetch("me/tiny", "README.md").read_text()
warnings.simplefilter("error")
model.push_to_hub("me/tiny")
model.push_to_hub("me/tiny", license="mit", metrics=scores)
tell("anew", "license: mit" in card() and "25.00" in card())
remote.upload(Path("edited"), "me/tiny", message="my own words")
model.save_pretrained("saved", push_to_hub=True, repo_id="me/tiny")
tell("kept", card())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model.push_to_hub("me/tiny", metrics=scores)
tell("warning", [str(each.message) for each in caught])
tell("still kept", card())
Path("saved/README.md").write_text("newer words")
model.save_pretrained("saved", push_to_hub=True, repo_id="me/tiny")
tell("from the folder", card())
Path("saved/notes.txt").write_text("private")
model.save_pretrained("saved", push_to_hub=True, repo_id="me/tiny")
"""
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "README.md").write_text("my own words")
    with LoopbackHub() as hub:
        said = told(start(script, hub, tmp_path))
        assert set(list(hub.commits["me/tiny"].values())[-1]) == {"README.md", "config.json", "model.safetensors"}
    assert said["anew"] is True and said["kept"] == said["still kept"] == "my own words"
    assert said["from the folder"] == "newer words"
    (warning,) = said["warning"]
    assert "README.md of me/tiny is kept" in warning and "write metrics into it" in warning


def test_a_branch_that_is_not_there_is_made_and_begins_as_main_with_its_card(tmp_path):
    script = """
def model(seed):
    torch.manual_seed(seed)
    return hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=64, config=config).eval()
model(0).push_to_hub("me/tiny")
hubmodels.remote.upload(hubmodels.remote.Path("edited"), "me/tiny", message="my own words")
for seed in (1, 2):
    model(seed).push_to_hub("me/tiny", branch="for/later")
for name, revision in (("main", None), ("branch", "for/later")):
    loaded = sum_of(hubmodels.load("me/tiny", revision=revision))
    tell(name, [seed for seed in range(3) if sum_of(model(seed)) == loaded])
model(3).push_to_hub("me/new", branch="first")  # a repository that is not there yet
attempt("pull request", lambda: model(1).push_to_hub("me/tiny", branch="other", create_pr=True))
"""
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "README.md").write_text("my own words")
    with LoopbackHub() as hub:
        said = told(start(script, hub, tmp_path))
        history = list(hub.branches["me/tiny", "for/later"].values())
        assert set(hub.branches) == {("me/tiny", "for/later"), ("me/new", "first")}
    assert said["main"] == [0] and said["branch"] == [2]
    assert [commit["README.md"] for commit in history] == [b"my own words"] * 3
    assert said["pull request"][0] == "ValueError" and "leave out one" in said["pull request"][1]


def test_a_card_that_cannot_be_looked_at_just_now_is_not_replaced(tmp_path):
    """Not even by what the cache has of it, which may be older than what somebody wrote."""
    script = """
model = hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=64, config=config).eval()
attempt("push", lambda: model.push_to_hub("me/tiny"))
"""
    made = """
model = hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=64, config=config).eval()
model.push_to_hub("me/tiny")
"""
    with LoopbackHub() as hub:
        told(start(made, hub, tmp_path))
        hub.commit("me/tiny", {"README.md": b"my own words"})
        for fault in ("503", "429"):
            hub.faults["me/tiny/README.md"] = fault
            said = told(start(script, hub, tmp_path))
            assert f"status {fault}" in said["push"][1]
        del hub.faults["me/tiny/README.md"]
        assert list(hub.commits["me/tiny"].values())[-1]["README.md"] == b"my own words"


def test_after_an_update_that_broke_off_the_commit_that_is_whole_is_named(tmp_path):
    make = """
model = hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=64, config=config).eval()
model.push_to_hub("me/tiny")
hubmodels.load("me/tiny")
"""
    update = """
model = hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=96, config=config).eval()
model.push_to_hub("me/tiny")
"""
    load = """
attempt("load", lambda: hubmodels.load("me/tiny"))
attempt("whole", lambda: hubmodels.load("me/tiny", revision={!r}))
"""
    with LoopbackHub() as hub:
        told(start(make, hub, tmp_path))
        whole = hub.find("me/tiny", "main")
        told(start(update, hub, tmp_path))
        hub.faults["me/tiny/model.safetensors"] = "503"
        said = told(start(load.format(whole), hub, tmp_path))
    assert f"the cache has all of an earlier commit: revision={whole!r}" in said["load"][1]
    assert said["whole"][0] == "loaded"


def test_a_region_classifier_goes_to_the_hub_and_comes_back(tmp_path):
    script = """
import numpy
from hubmodels import Refinement
from hubmodels.refine import RegionClassifier
from hubmodels.refine.region_classifier import RegionSettings
torch.manual_seed(0)
classifier = RegionClassifier(RegionSettings("felzenszwalb", 60.0, config.labels.names)).eval()
torch.nn.init.normal_(classifier.correction[-1].weight)
model = hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=64, config=config,
                            region_classifier=lambda: classifier).eval()
commit = model.push_to_hub("me/tiny").rsplit("/", 1)[1]
settings = Refinement(superpixel_scale=60, vote="classifier")
photo = numpy.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(numpy.uint8)
pulled = hubmodels.load("me/tiny", revision=commit)
print("ready", flush=True)
sys.stdin.readline()
os.environ["HUBMODELS_OFFLINE"] = "1"  # it was downloaded with the rest
expected = model.predict(photo, refinement=settings).labels
for name, each in (("pulled", pulled), ("cached", hubmodels.load("me/tiny", revision=commit))):
    tell(name, bool((each.predict(photo, refinement=settings).labels == expected).all()))
del os.environ["HUBMODELS_OFFLINE"]
lacking = hubmodels.load("me/lacking")
lacking.predict(photo)
attempt("lacking", lambda: lacking.predict(photo, refinement=settings))
"""
    with LoopbackHub() as hub:
        process = start(script, hub, tmp_path)
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        (files,) = hub.commits["me/tiny"].values()
        hub.commit("me/lacking", {key: data for key, data in files.items() if key != "region_classifier.safetensors"})
        said = told(process)
    assert said["pulled"] is True and said["cached"] is True
    kind, message, _ = said["lacking"]
    assert kind == "WeightsError" and re.search(
        "region_classifier.safetensors: the repository has no such file", message
    )


@needs_tracing
def test_the_commands_take_a_repository_at_a_revision(tmp_path, astronaut):
    from PIL import Image

    Image.fromarray(astronaut[:128, :128]).save(tmp_path / "a.png")
    script = """
import numpy
from PIL import Image
from hubmodels.cli import main
models = []
for seed in (1, 2):
    torch.manual_seed(seed)
    model = hubmodels.Segmenter(config.build(), config.labels, name="tiny", input_px=64, config=config).eval()
    models.append((model, model.push_to_hub("me/tiny").rsplit("/", 1)[1]))
(first, commit), (second, _) = models
options = ["--runtime", "torch", "--task", "person", "--preset", "gentle"]
tell("label", main(["label", "a.png", "--out", "out", "--model", "me/tiny", "--revision", commit, *options]))
settings = hubmodels.Refinement.preset("gentle", task="person")
labels = numpy.asarray(Image.open("out/a_mask.png"))
tell("equal", [bool((labels == m.predict("a.png", refinement=settings).labels).all()) for m in (first, second)])
tell("export", main(["export", "hf://me/tiny", "--revision", commit, "--format", "torch", "--out", "x.pt2"]))
x = torch.rand(2, 3, 50, 64)
with torch.inference_mode():
    logits = torch.export.load("x.pt2").module()(x)
    tell("difference", [float((logits - m(x)).abs().max()) for m in (first, second)])
tell("none", main(["label", "a.png", "--out", "out", "--model", "me/none"]))
"""
    with LoopbackHub() as hub:
        said = told(start(script, hub, tmp_path))
    assert said["label"] == said["export"] == 0 and said["none"] == 2
    assert said["equal"] == [True, False]
    assert said["difference"][0] < 1e-3 < said["difference"][1]
