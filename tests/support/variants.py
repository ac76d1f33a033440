"""A bundle together with the torch models behind it."""

from pathlib import Path
from typing import NamedTuple, Protocol

from service.bundle.bundle import Bundle
from tests.support.bundle_factory import World


class Variant(NamedTuple):
    """A bundle and its torch models."""

    path: Path
    bundle: Bundle
    world: World


class MakeVariant(Protocol):
    """Makes the bundle of a kind, by the kind's name."""

    def __call__(self, kind: str, /) -> Variant: ...
