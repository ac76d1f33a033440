"""The layout: fresh generated code, and which packages import which."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_generated_code_is_fresh() -> None:
    checked = run(sys.executable, "proto/generate.py", "--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_server_never_imports_torch_or_the_offline_packages() -> None:
    """Imports the whole program while a finder refuses the other packages."""
    program = """
import sys
OFFLINE = {"torch", "polars", "scipy", "onnx", "onnxscript", "training", "exporters"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OFFLINE:
            raise ImportError(f"the server imported {name}")
sys.meta_path.insert(0, Refuse())
import service.app, service.process.server, service.process.worker, service.process.supervisor
"""
    imported = run(sys.executable, "-c", program)
    assert imported.returncode == 0, imported.stderr


def test_the_arrows_between_the_packages_hold() -> None:
    linted = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    assert linted.returncode == 0, linted.stdout
