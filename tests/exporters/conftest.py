"""Contents of bundles of every kind, and bundles written from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.choose_index import IndexOptions
from exporters.contents import BundleContents
from exporters.publish import write_bundle
from tests.support.bundle_factory import WorldOptions, make_contents

VARIANTS: dict[str, WorldOptions] = {
    "plain": {},
    "head and bias": {"with_head": True, "with_bias": True},
    "context": {"with_context": True},
    "standard": {
        "with_bias": True,
        "scale_rule": "standard",
        "scale_factor": 2.5,
        "padded": True,
        "k": 128,
    },
}


@pytest.fixture(scope="session")
def contents() -> BundleContents:
    return make_contents()


@pytest.fixture(scope="session", params=VARIANTS)
def any_contents(request: pytest.FixtureRequest) -> BundleContents:
    return make_contents(**VARIANTS[request.param])


@pytest.fixture(scope="session")
def any_bundle(any_contents: BundleContents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(any_contents, out)
    return out


@pytest.fixture(scope="session")
def bundle_path(contents: BundleContents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(contents, out)
    return out


@pytest.fixture(scope="session")
def indexed_path(contents: BundleContents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a bundle with an approximate index."""
    out = tmp_path_factory.mktemp("bundles") / "indexed"
    write_bundle(contents, out, index=IndexOptions(flat_limit=0, kinds=("sq8",)))
    return out
