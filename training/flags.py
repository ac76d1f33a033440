"""Reads the flags of trimtab-train: those of the run, and those of the chosen parts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from training.commandline import add_flags, read_flags
from training.concepts.config import ConceptConfig
from training.config import TrainConfig
from training.datasets import data_set_kind
from training.errors import ConfigError
from training.recommenders import RECOMMENDERS
from training.saes import SAES
from training.splits import SplitConfig


def read_config(
    arguments: Sequence[str],
    parser: argparse.ArgumentParser,
    add_others: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> tuple[argparse.Namespace, TrainConfig]:
    """Reads the flags in two steps: which parts are chosen, then the flags that those parts have.

    add_others adds the flags that decide nothing about the run to the parser.

    Raises:
        ConfigError: a part that there is not, or a value without meaning.
        DataError: a data set that there is not.
    """
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_flags(chooser, TrainConfig)
    chosen, _ = chooser.parse_known_args(arguments)
    for name, registry in (("recommender", RECOMMENDERS), ("sae", SAES)):
        if getattr(chosen, name) not in registry:
            raise ConfigError(
                f"--{name}: expected one of {', '.join(sorted(registry))}, "
                f"found {getattr(chosen, name)!r}"
            )
    kind = data_set_kind(chosen.data)
    sections: dict[str, tuple[str, type[Any]]] = {
        "split": ("split_", SplitConfig),
        "concepts": ("concepts_", ConceptConfig),
        "data_options": (kind.prefix, kind.options),
        "recommender_options": ("recommender_", RECOMMENDERS[chosen.recommender].options),
        "sae_options": ("sae_", SAES[chosen.sae].options),
    }
    add_others(parser)
    add_flags(parser, TrainConfig, title="run")
    for name, (prefix, options) in sections.items():
        add_flags(
            parser, options, prefix, title=f"{name.removesuffix('_options')} ({options.__name__})"
        )
    parsed = parser.parse_args(arguments)
    others = {
        name: read_flags(options, parsed, prefix) for name, (prefix, options) in sections.items()
    }
    return parsed, read_flags(TrainConfig, parsed, **others)


class RaisingParser(argparse.ArgumentParser):
    """A parser for flags that nobody typed: its errors are ours."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(message)
