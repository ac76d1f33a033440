"""Tests which libraries the service's inner packages load when they are imported.

Import contracts read the source; these tests run it, and so see the packages' `__init__` files too.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LIBRARIES = ("grpc", "google", "redis", "faiss", "onnxruntime", "prometheus_client", "pyarrow")

PROGRAM = """
import importlib
import sys
for name in sys.argv[1].split(","):
    importlib.import_module(name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def modules_of(package: str) -> list[str]:
    files = (ROOT / package.replace(".", "/")).rglob("*.py")
    parts = (file.relative_to(ROOT).with_suffix("").parts for file in files)
    return [".".join(part for part in path if part != "__init__") for path in parts]


def loaded_by(modules: list[str]) -> set[str]:
    command = [sys.executable, "-c", PROGRAM, ",".join(modules)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("package", ["service.steering", "service.ranking"])
def test_the_numbers_load_numpy_alone(package: str) -> None:
    modules = modules_of(package)
    assert len(modules) > 2
    loaded = loaded_by(modules)
    assert "numpy" in loaded
    assert not loaded & {*LIBRARIES, "trimtab"}


def test_a_query_loads_no_store_no_index_and_no_model_runtime() -> None:
    # The manifest's messages are part of the client's package, whose __init__ loads grpc.
    loaded = loaded_by(["service.engine.query", "service.engine.compute"])
    assert not loaded & {"redis", "faiss", "onnxruntime", "prometheus_client"}
