"""save_pretrained, from_pretrained and push_to_hub of a model: config.json, model.safetensors and a card.

Built on huggingface_hub's mixin, which on its own loads with missing weights, falls back to pickled ones, and sends
mistyped paths to the network. Here files must fit exactly, only safetensors are read, and paths stay local.
"""

from __future__ import annotations

import difflib
import functools
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from safetensors.torch import save
from torch import nn

from hubmodels import remote
from hubmodels.cards import is_generated, model_card
from hubmodels.checks import check_tensors
from hubmodels.config import CONFIG, CONFIG_BYTES_MAX, REGIONS, WEIGHTS, ModelConfig, parse_config
from hubmodels.errors import WeightsError
from hubmodels.files import write_bytes
from hubmodels.labels import LabelSet
from hubmodels.model_names import find_saved
from hubmodels.model_upload import (
    CARD,
    COMMIT_MESSAGE,
    stated_facts,
    upload_model,
    upload_options,
    warn_of_kept_card,
)
from hubmodels.onnx_network import OnnxNetwork
from hubmodels.refine import RegionClassifier
from hubmodels.saved_regions import LoadedOnce, check_made_for, read_regions
from hubmodels.weights_files import check_digest, kind_of, most_bytes, parse_tensors, read_file, sha256


class Pretrained(nn.Module, PyTorchModelHubMixin):
    """Saving and loading for a class whose `__init__` is that of Segmenter."""

    network: nn.Module
    labels: LabelSet
    name: str
    input_px: int
    config: ModelConfig | None
    region_classifier: Callable[[], RegionClassifier] | None

    @classmethod
    def from_pretrained(  # type: ignore[override]  # fewer options than the mixin's: no pickle, never lenient
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        sha256: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        map_location: str | torch.device = "cpu",
    ) -> Self:
        """A model that was saved by `save_pretrained` or `push_to_hub`, in eval mode.

        Args:
            pretrained_model_name_or_path: a folder, or a repository "user/name" of the Hub. What looks like a path is
                never sent to the network; "hf://user/name" always is a repository.
            revision: branch, tag or commit of the repository. A full commit hash never changes, and is served from
                the cache without a request.
            sha256: refuse weights with another digest.
            token: of the Hub, for private repositories.
            cache_dir, force_download, local_files_only: as of `huggingface_hub.hf_hub_download`.
            map_location: where the model goes.

        Raises:
            TypeError: `sha256` is no text.
            WeightsError: no such folder or repository, no connection, or files that are damaged or do not fit.
        """
        if not isinstance(sha256, str | None):
            raise TypeError(f"sha256 must be 64 hexadecimal digits as text; got {sha256!r:.100}")
        pinned = sha256.lower() if sha256 else None
        source = find_saved(pretrained_model_name_or_path, revision=revision)
        if isinstance(source, Path):
            return cls._from_files(
                source / CONFIG,
                source.joinpath,
                what=str(source),
                pinned=pinned,
                remedy="restore it, or save the model again",
            ).to(map_location)
        options: dict[str, Any] = {
            "token": token,
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
        }
        config = remote.fetch(source, CONFIG, revision=revision, **options)
        # All files of one commit, even if the branch moves between two downloads.
        commit = remote.commit_of(config) or revision
        find = functools.partial(remote.fetch, source, revision=commit, **options)
        where = f"{source}@{commit[:12]}" if commit else source
        # The cache of the Hub holds links to files. Messages name the file: a link that is deleted alone is only made
        # again, to the same damaged one.
        remedy = "delete it to have it downloaded again"
        try:
            return cls._from_files(config, find, what=where, pinned=pinned, remedy=remedy).to(map_location)
        except WeightsError as error:
            older = None if config.with_name(WEIGHTS).exists() else remote.complete_commit(config, (CONFIG, WEIGHTS))
            if older is None:
                raise
            raise WeightsError(f"{error}; the cache has all of an earlier commit: revision={older!r}") from error

    @classmethod
    def _from_files(
        cls, config_path: Path, find: Callable[[str], Path], *, what: str, pinned: str | None, remedy: str
    ) -> Self:
        """A model from its config.json and from files that `find` finds by their names; `remedy`: for damaged ones."""
        if not os.path.lexists(config_path):
            raise WeightsError(f"{what}: has no {CONFIG}; expected what save_pretrained or push_to_hub wrote")
        saved = f"was it written by save_pretrained? If so, {config_path.resolve()} is damaged: {remedy}"
        text = read_file(config_path, most_bytes=CONFIG_BYTES_MAX, what=what, remedy=saved)
        if kind := kind_of(text):
            raise WeightsError(f"{what}: config.json is {kind}{saved}")
        config, digest, regions_digest = parse_config(text, what=what)
        wanted = config.meta_state_dict()
        weights_path = find(WEIGHTS)  # not before it is clear that it is a model of ours: others have gigabytes
        if not os.path.lexists(weights_path):
            raise WeightsError(f"{what}: {weights_path} is missing; {remedy}")
        remedy = f"{weights_path.resolve()} is damaged: {remedy}"
        data = read_file(weights_path, most_bytes=most_bytes(wanted), what=what, remedy=remedy)
        if pinned is not None:
            check_digest(
                data, pinned, what=f"{what} (sha256=)", remedy="these are other weights than the ones asked for"
            )
        check_digest(data, digest, what=what, remedy=remedy)
        state = parse_tensors(data, wanted, what=what, remedy=remedy)
        network = config.build()  # not before: a made-up config.json may ask for a gigabyte
        network.load_state_dict(state)
        regions = _find_regions(find, regions_digest, config.labels, what) if regions_digest else None
        return cls.from_network(network, config, region_classifier=regions)

    @classmethod
    def from_network(
        cls,
        network: nn.Module,
        config: ModelConfig,
        *,
        region_classifier: Callable[[], RegionClassifier] | None = None,
    ) -> Self:
        """A model in eval mode of a network that `config.build()` made, with whatever weights it has by now."""
        return cls(
            network.to(memory_format=torch.channels_last),  # about three times as fast in depthwise convolutions on CPU
            config.labels,
            name=config.name,
            input_px=config.input_px,
            config=config,
            region_classifier=region_classifier,
        ).eval()

    @classmethod
    def _from_pretrained(cls, **kwargs: Any) -> Any:
        """The mixin's hook; `from_pretrained` needs no hook, and nothing else may load around its checks."""
        raise NotImplementedError("use from_pretrained")

    @classmethod
    def _load_as_pickle(cls, *args: Any, **kwargs: Any) -> Any:
        raise WeightsError("pickled weights are never read; convert them with python -m training.import_checkpoint")

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        license: str = "",
        data: str = "",
        limits: str = "",
        metrics: Mapping[str, Any] | str | Path | None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_options: Any,
    ) -> str | None:
        """Write config.json, model.safetensors and README.md (the model card) into a folder.

        A region classifier that the model has is written beside them, as region_classifier.safetensors.

        A README.md that is there already is kept, unless it is a card of this method's that nobody edited.

        Args:
            save_directory: the folder, made if it is missing.
            license, data, limits, metrics: for the card, as of `hubmodels.cards.model_card`: licence of the weights,
                what the model was trained on, what its labels mean and where it fails, and its scores, or a file with
                them that `python -m training.evaluate` wrote.
            push_to_hub, repo_id: also commit these files to the Hub, to the repository "user/name"; further options are
                those of `push_to_hub`.

        Returns:
            The commit's address if it was pushed.

        Raises:
            ValueError: the network is one that config.json cannot describe, or scores that cannot be.
            WeightsError: weights that no model can have, such as NaN, before anything is written; or the push failed.
        """
        folder = Path(save_directory).expanduser()  # as from_pretrained reads it
        if wrong := sorted(set(push_options) - set(upload_options())):
            near = difflib.get_close_matches(wrong[0], [*upload_options(), "license", "data", "limits", "metrics"], 1)
            raise TypeError(f"no option {wrong[0]!r}{f'; did you mean {near[0]!r}?' if near else ''}")
        if not push_to_hub and (push_options or repo_id):
            raise TypeError(f"options of push_to_hub without push_to_hub=True: {sorted(push_options) or repo_id}")
        facts = {"license": license, "data": data, "limits": limits, "metrics": metrics}
        if not push_to_hub:
            self._save(folder, facts)
            return None
        if not repo_id:  # the folder's name, which other libraries take, says no user
            raise TypeError(f"push_to_hub=True needs a repository, such as repo_id='user/{folder.name}'")
        remote.check_name(repo_id)
        return upload_model(folder, self._save(folder, facts), repo_id, stated_facts(facts), **push_options)

    def _save_pretrained(self, save_directory: Path) -> None:
        """The mixin's hook, which none of its methods reaches any more."""
        self._save(save_directory, {})

    def _save(self, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """Write the files of the model; returns their names."""
        config, state = self._described()
        card = model_card(config, **facts)  # wrong scores are said before anything is written
        # One key only: with several, their order and so the digest would vary from run to run.
        about = {"name": config.name, "arch": config.arch, "labels": config.labels.names}
        data = save(state, metadata={"hubmodels": json.dumps(about, sort_keys=True)})
        files = {WEIGHTS: data}
        if self.region_classifier is not None:
            try:
                classifier = self.region_classifier()
            except WeightsError as error:
                hint = "or set model.region_classifier = None to save the model without it"
                raise WeightsError(f"{error}; {hint}") from error
            check_made_for(classifier, config.labels, what=f"region classifier of {config.name}")
            files[REGIONS] = classifier.to_bytes()
        # Config last: a folder that was left half written has one that does not fit, or none.
        digests = {name: sha256(data) for name, data in files.items()}
        text = config.to_json(weights_sha256=digests[WEIGHTS], regions_sha256=digests.get(REGIONS))
        for name, data in (*files.items(), (CONFIG, text.encode())):
            write_bytes(data, folder / name)
        path = folder / CARD
        if not path.exists() or is_generated(path.read_bytes()):
            write_bytes(card.encode(), path)
        else:
            warn_of_kept_card(str(path), stated_facts(facts))
        return [*files, CONFIG, CARD]

    def _described(self) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
        """The config and the state dict in one piece, once it is certain that the config builds this network."""
        if self.config is None:
            if isinstance(self.network, OnnxNetwork):
                raise ValueError("ONNX Runtime runs this model; load it with runtime='torch' to save it")
            raise ValueError(
                "this Segmenter was made from a network of your own; pass config=ModelConfig(...) that builds it"
            )
        config = ModelConfig(self.name, self.config.arch, self.config.network, self.labels, self.input_px)
        state = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items()}
        kinds = {value.dtype for value in state.values() if value.is_floating_point()}
        if len(kinds) > 1:  # files are of one precision; float32 holds what the others do
            state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        wanted = config.meta_state_dict()
        shapes, expected = ({key: tuple(value.shape) for key, value in each.items()} for each in (state, wanted))
        if shapes != expected:
            other = sorted(key for key in {*shapes, *expected} if shapes.get(key) != expected.get(key))
            raise ValueError(
                f"the network is not the one that its config describes: {len(other)} tensors differ, "
                f"such as {other[0]}: {shapes.get(other[0])}, expected {expected.get(other[0])}"
            )
        remedy = "nothing was saved: go back to a checkpoint before that"
        check_tensors(state, wanted, what=f"weights of {self.name}", remedy=remedy)
        return config, state

    def push_to_hub(  # type: ignore[override]  # fewer options than the mixin's, and facts for the card
        self,
        repo_id: str,
        *,
        license: str = "",
        data: str = "",
        limits: str = "",
        metrics: Mapping[str, Any] | str | Path | None = None,
        commit_message: str = COMMIT_MESSAGE,
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Commit config.json, model.safetensors and a model card to a repository of the Hub, made if there is none.

        A card that the repository has already is kept, unless it is one of this method's that nobody edited.

        Args:
            repo_id: "user/name".
            license, data, limits, metrics: for the card, as of `save_pretrained`.
            commit_message, private, token, create_pr: as of `huggingface_hub.ModelHubMixin.push_to_hub`.
            branch: where to, `main` unless given. One that the repository lacks is made, and begins as `main`.

        Returns:
            The address of the commit.

        Raises:
            ValueError: the network is one that config.json cannot describe, or scores that cannot be; or both a branch
                and a pull request, which is to the default branch.
            WeightsError: offline, not allowed, or the connection failed.
        """
        remote.check_sending(repo_id)
        facts = {"license": license, "data": data, "limits": limits, "metrics": metrics}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = self._save(folder, facts)  # what cannot be saved is said before anything is sent
            return upload_model(
                folder,
                files,
                repo_id,
                stated_facts(facts),
                commit_message=commit_message,
                private=private,
                token=token,
                branch=branch,
                create_pr=create_pr,
            )

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """The card that `save_pretrained` writes; facts as of `hubmodels.cards.model_card`."""
        return ModelCard(model_card(self._described()[0], **facts), ignore_metadata_errors=False)


def _find_regions(find: Callable[[str], Path], digest: str, labels: LabelSet, what: str) -> LoadedOnce:
    """The region classifier beside a model: found now, as there may be no connection later, read when it is used."""
    path: Path | str
    try:
        path = find(REGIONS)
    except WeightsError as error:  # the model works without
        path = str(error)
    return LoadedOnce(functools.partial(read_regions, path, digest=digest, labels=labels, what=f"{what}: {REGIONS}"))
