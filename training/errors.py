"""Exceptions of the training tools."""

from hubmodels.errors import HubmodelsError


class DataError(HubmodelsError):
    """A data set is incomplete or wrong; the message names the file."""


class RecipeError(HubmodelsError):
    """A recipe file has an unknown key, a missing value or one out of range; the message names it."""


class DivergedError(HubmodelsError):
    """A loss is no number any more; the message says in which step."""


class OutputError(HubmodelsError):
    """A result cannot be written where it was asked for; the message names the place and the reason."""
