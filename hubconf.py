"""torch.hub entry points: a table of contents. `torch.hub.load(REPO, NAME)` returns a Segmenter in eval mode.

Nothing heavy is imported here; every callable without a leading underscore is one published model, or `segmenter`.
"""

from hubmodels.entries import ENTRIES as _ENTRIES
from hubmodels.entry_docs import entry_docstring as _entry_docstring

dependencies = ["torch"]  # torch.hub names what is missing, but not how to get it: `_check_packages` does

# What loading and labelling need, by import name, with the name that pip knows.
_PACKAGES = {
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "numpy": "numpy",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "scipy": "scipy",
}


def _warn_of_another_package():
    """Python keeps what it has imported, though torch.hub has put this checkout first on its path."""
    import sys
    import warnings
    from pathlib import Path

    here = Path(__file__).resolve().parent / "hubmodels"
    used = Path(sys.modules["hubmodels"].__file__).resolve().parent
    if used != here:
        warnings.warn(
            f"models come from {used}, which this program has imported already, and not from {here}: load them before "
            "anything imports hubmodels, or from there",
            RuntimeWarning,
            stacklevel=2,
        )


_warn_of_another_package()


def _check_packages():
    from importlib.util import find_spec

    missing = [package for name, package in _PACKAGES.items() if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"hubmodels needs {', '.join(missing)}; install with: pip install {' '.join(missing)}"
        )


def segmenter(
    name,
    *,
    pretrained=True,
    device="cpu",
    num_classes=None,
    labels=None,
    revision=None,
    token=None,
    runtime="torch",
):
    """Any model, as `hubmodels.load` takes it.

    Args:
        name: one of the other entry points, a folder that `save_pretrained` wrote, or "user/name" on the Hugging Face
            Hub.
        pretrained: load the weights; False leaves the network as initialised.
        device: where it goes.
        num_classes: for a model of other labels, to be trained: keeps all weights but those of the last layers.
        labels: names of these labels, the background first.
        revision: branch, tag or commit of a repository on the Hugging Face Hub.
        token: of the Hub, for private repositories.
        runtime: "torch"; "onnx", which is faster on CPU and cannot be trained; or "auto", the faster that works.
    """
    _check_packages()
    from hubmodels.hub import load_model

    return load_model(
        name,
        pretrained=pretrained,
        device=device,
        num_classes=num_classes,
        labels=labels,
        revision=revision,
        token=token,
        runtime=runtime,
    )


def _entry_point(name):
    def load(*, pretrained=True, device="cpu", num_classes=None, labels=None, runtime="torch"):
        return segmenter(
            name, pretrained=pretrained, device=device, num_classes=num_classes, labels=labels, runtime=runtime
        )

    load.__name__ = load.__qualname__ = name
    load.__doc__ = _entry_docstring(_ENTRIES[name])
    return load


def _regions_entry_point(name):
    def load():
        _check_packages()
        from hubmodels.hub import load_regions

        return load_regions(name)

    load.__name__ = load.__qualname__ = name
    load.__doc__ = f"""{_ENTRIES[name].title}, for `Refinement(superpixel_scale=60, vote="classifier")`.

    Returns:
        A RegionClassifier in eval mode: (R, F) float32 region features to (R, C) logits. `vote(image, segments,
        probs)` takes a photo, its superpixels and a network's probabilities and returns labels.
    """
    return load


# torch.hub takes every callable here for an entry point: one per row, and none for what makes them.
globals().update(
    {_name: (_entry_point if _entry.is_network else _regions_entry_point)(_name) for _name, _entry in _ENTRIES.items()}
)
