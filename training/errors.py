"""One tree of errors: each message says what was found and what was expected."""


class TrainingError(Exception):
    """Anything that this package refuses.

    Its text is written for the person who ran the command.
    """


class ConfigError(TrainingError, ValueError):
    """A configuration that cannot mean anything."""


class DataError(TrainingError):
    """Input data that is absent, incomplete or malformed."""


class RunError(TrainingError):
    """A run directory that is missing something, or holds something else than was asked for."""


class DivergedError(TrainingError):
    """A loss that is no longer a number."""
