"""torch.hub entry points: a table of contents. `torch.hub.load(REPO, NAME)` returns a Segmenter in eval mode.

Nothing heavy is imported here; every callable without a leading underscore is one published model, or `segmenter`.
"""

from hubmodels.entries import ENTRIES as _ENTRIES
from hubmodels.entry_docs import entry_docstring as _entry_docstring

dependencies = ["torch", "timm", "safetensors", "numpy", "PIL", "skimage", "scipy"]  # import names


def segmenter(name, *, pretrained=True, device="cpu"):
    """Any published model by name, as `hubmodels.load` does.

    Args:
        name: one of the other entry points.
        pretrained: load the shipped weights; False leaves the network as initialised.
        device: where it goes.
    """
    from hubmodels.hub import load_model

    return load_model(name, pretrained=pretrained, device=device)


def _entry_point(name):
    def load(*, pretrained=True, device="cpu"):
        return segmenter(name, pretrained=pretrained, device=device)

    load.__name__ = load.__qualname__ = name
    load.__doc__ = _entry_docstring(_ENTRIES[name])
    return load


def _regions_entry_point(name):
    def load():
        from hubmodels.hub import load_regions

        return load_regions(name)

    load.__name__ = load.__qualname__ = name
    load.__doc__ = f"""{_ENTRIES[name].title}, for `Refinement(vote="classifier")`.

    Returns:
        A RegionClassifier in eval mode: (R, F) float32 region features to (R, C) logits. `vote(image, segments,
        probs)` takes a photo, its superpixels and a network's probabilities and returns labels.
    """
    return load


deeplabv3_resnet101 = _entry_point("deeplabv3_resnet101")
deeplabv3plus_fashion = _entry_point("deeplabv3plus_fashion")
deeplabv3plus_person = _entry_point("deeplabv3plus_person")
deeplabv3plus_resnet101 = _entry_point("deeplabv3plus_resnet101")
regions_fashion = _regions_entry_point("regions_fashion")
u2net_small_person = _entry_point("u2net_small_person")
