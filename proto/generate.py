"""Generates the Python code beside the .proto files: python proto/generate.py [--check].

grpcio-tools is pinned to the release whose grpcio and protobuf are our lower bounds, so that the
generated code runs with every release the package allows. --check fails if the committed code is
stale.
"""

import argparse
import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent


def generate(out: Path) -> list[Path]:
    """Writes the generated modules of every .proto file under out and returns their paths."""
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("trimtab/**/*.proto"))
    includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    plugins = [f"--{name}_out={out}" for name in ("python", "grpc_python")]
    scripts = Path(sys.executable).parent  # where pip put the plugins, whatever PATH says
    for name in ("mypy", "mypy_grpc"):
        program = f"protoc-gen-{name}"
        plugins += [f"--plugin={program}={scripts / program}", f"--{name}_out=quiet:{out}"]
    if protoc.main(["protoc", *includes, *plugins, *sources]) != 0:
        raise SystemExit("protoc failed")
    return sorted(
        path for path in out.glob("trimtab/v1/*_pb2*.py*") if path.suffix in (".py", ".pyi")
    )


def main() -> None:
    """Generates in place, or compares with what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed code, write nothing"
    )
    if not parser.parse_args().check:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as scratch:
        fresh = generate(Path(scratch))
        stale = [
            path.name
            for path in fresh
            if not (committed := ROOT / path.relative_to(scratch)).exists()
            or not filecmp.cmp(path, committed, shallow=False)
        ]
    if stale:
        sys.exit(f"stale generated code, run `make proto`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
