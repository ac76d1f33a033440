from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

VARIANTS: dict[str, dict[str, Any]] = {
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
FACTORY = Path(__file__).parent.parent / "fixtures" / "bundle_factory.py"


def _load_factory() -> ModuleType:
    name = "exporters_bundle_factory"
    spec = importlib.util.spec_from_file_location(name, FACTORY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def factory() -> ModuleType:
    return _load_factory()


@pytest.fixture(scope="session")
def contents(factory: ModuleType) -> Any:
    return factory.make_contents()


@pytest.fixture(scope="session", params=VARIANTS)
def any_contents(request: pytest.FixtureRequest, factory: ModuleType) -> Any:
    return factory.make_contents(**VARIANTS[request.param])


@pytest.fixture(scope="session")
def any_bundle(any_contents: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from exporters.bundle import write_bundle

    out = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(any_contents, out)
    return out


@pytest.fixture(scope="session")
def bundle_path(contents: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from exporters.bundle import write_bundle

    out = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(contents, out)
    return out


@pytest.fixture(scope="session")
def indexed_path(contents: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an approximate index."""
    from exporters.bundle import write_bundle
    from exporters.index import IndexOptions

    out = tmp_path_factory.mktemp("bundles") / "indexed"
    write_bundle(contents, out, index=IndexOptions(flat_limit=0, kinds=("sq8",)))
    return out
