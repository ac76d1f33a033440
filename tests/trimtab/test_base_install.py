"""Tests that the client needs only the base install, without the extras."""

import subprocess
import sys
from pathlib import Path

BLOCKED = (
    *(
        "numpy",
        "pyarrow",
        "torch",
        "polars",
        "pandas",
        "scipy",
        "faiss",
        "onnxruntime",
        "redis",
        "pydantic",
    ),
    *("service", "training", "exporters"),
)
PRELUDE = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(f"{{name}} is not installed")
sys.meta_path.insert(0, Blocker())
"""


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_module_of_the_client_is_imported_without_the_extras() -> None:
    ran = _python(
        "import importlib, pkgutil, trimtab\n"
        "names = [m.name for m in pkgutil.walk_packages(trimtab.__path__, 'trimtab.')]\n"
        "for name in names:\n"
        "    if name != 'trimtab.__main__':\n"
        "        importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    assert ran.stderr == ""
    assert int(ran.stdout) > 30


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    path.write_bytes(b"PAR1")
    ran = _python(
        "from trimtab.cli import main\n"
        f"sys.exit(main(['--target', '127.0.0.1:1', 'record', '--from', {str(path)!r}]))\n"
    )
    assert ran.returncode == 2
    assert "pip install pyarrow" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_all_public_names_exist() -> None:
    ran = _python(
        "import trimtab\nprint(all(hasattr(trimtab, name) for name in trimtab.__all__))\n"
    )
    assert ran.stdout == "True\n"
