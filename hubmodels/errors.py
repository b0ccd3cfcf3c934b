"""Exceptions that callers of hubmodels can catch. Wrong arguments raise ValueError or TypeError instead."""


class HubmodelsError(Exception):
    """Base of every exception that hubmodels raises for reasons outside the calling code."""


class ImageError(HubmodelsError):
    """The photo cannot be read: not an image, truncated, too large, or of an unsupported kind."""


class ModelNotFoundError(HubmodelsError, LookupError):
    """No published model has that name; the message lists those that exist."""


class WeightsError(HubmodelsError):
    """Weights are missing, damaged, or not those of this model; the message says expected, got and remedy."""


class RegionsError(HubmodelsError, ValueError):
    """A photo falls into too many superpixels for what the settings want to do with them."""


class OutputError(HubmodelsError):
    """A result cannot be written where it was asked for; the message names the place and the reason."""


class ExportError(HubmodelsError):
    """A model cannot be written in another format, or what was written answers otherwise."""
