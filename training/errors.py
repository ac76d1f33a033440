"""Defines the tree of errors; messages name a field or file, the expected and the found."""


class TrainingError(Exception):
    """An error that this package raises for wrong input.

    Its text is written for the person who ran the command.
    """


class ConfigError(TrainingError, ValueError):
    """A configuration that cannot mean anything."""


class DataError(TrainingError):
    """Input data that is absent, incomplete or malformed."""


class RunError(TrainingError):
    """A run directory that is incomplete, or holds another run than the one asked for."""


class DivergedError(TrainingError):
    """A loss that is no longer a number."""
