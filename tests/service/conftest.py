"""Bundles of every kind with their torch models: contexts, scale rules, padded codes."""

from functools import cache

import pytest

from service.bundle.open import open_bundle
from tests.support.bundle_factory import MakeBundle, WorldOptions, make_world
from tests.support.servers import StartProgram, run_program
from tests.support.variants import MakeVariant, Variant

KINDS: dict[str, WorldOptions] = {
    "unit": {},
    "standard": {"with_bias": True, "scale_rule": "standard", "scale_factor": 2.5},
    "context": {
        "with_context": True,
        "k": 128,
        "padded": True,
        "scale_rule": "none",
        "scale_factor": 0.5,
    },
}


@pytest.fixture(scope="session")
def variant(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> MakeVariant:
    """Makes the bundle of a kind, once."""

    @cache
    def make(kind: str) -> Variant:
        path = make_bundle(tmp_path_factory.mktemp("bundles") / kind, **KINDS[kind])
        return Variant(path, open_bundle(path), make_world(**KINDS[kind]))

    return make


@pytest.fixture(scope="session")
def program() -> StartProgram:
    """Runs trimtab-serve as a process: bundle, data directory, port, then flags."""
    return run_program
