"""Writes docs/api.md from the comments in the .proto files: python proto/reference.py [--check].

protoc itself reads the files and hands over what it understood, comments included, so that nothing
is parsed here. The same files always give the same bytes. --check fails if the committed page is
stale.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

ROOT = Path(__file__).resolve().parent
PAGE = ROOT.parent / "docs" / "api.md"
PACKAGE = "trimtab.v1"
GENERATED = (
    "<!-- Made by proto/reference.py from proto/trimtab/v1/*.proto: change the comments there. -->"
)

FIRST_FILES = ("recommendation", "steering", "concept", "bundle")
"""The order of the page; what is not named comes after, by name."""

_FILE_SERVICES, _FILE_MESSAGES, _FILE_ENUMS = (
    6,
    4,
    5,
)  # field numbers in descriptor.proto make the paths
_MESSAGE_FIELDS, _MESSAGE_ONEOFS, _ENUM_VALUES, _SERVICE_METHODS = 2, 8, 2, 2
_Path = tuple[int, ...]
_SCALARS = FieldDescriptorProto.Type


def main() -> None:
    """Writes the page, or compares with what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed page, write nothing"
    )
    page = reference(described())
    if not parser.parse_args().check:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        sys.exit(f"stale {PAGE.relative_to(ROOT.parent)}: run python proto/reference.py")


def described() -> list[FileDescriptorProto]:
    """The package's files as protoc understands them, in the page's order."""
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("trimtab/v1/*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "descriptors"
        includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
        wanted = ["--include_source_info", f"--descriptor_set_out={out}"]
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", *includes, *wanted, *sources], check=True
        )
        found = list(FileDescriptorSet.FromString(out.read_bytes()).file)

    def place(file: FileDescriptorProto) -> tuple[int, str]:
        name = Path(file.name).stem
        return (FIRST_FILES.index(name) if name in FIRST_FILES else len(FIRST_FILES), name)

    return sorted(found, key=place)


def reference(api: Sequence[FileDescriptorProto]) -> str:
    """The page: services first, then the messages and enums of each file."""
    commented = [_Commented(file) for file in api]
    lines = [
        "# The API",
        "",
        GENERATED,
        "",
        f"gRPC package `{PACKAGE}`. The `.proto` files under `proto/` are all that a client in another",
        "language needs. A field marked *optional* tells unset from zero; of the fields of a *oneof* at most",
        "one is set. Enum values of 0 mean what their comment says. A call that a release does not serve",
        "answers `UNIMPLEMENTED`.",
        "",
        *_contents(commented),
    ]
    for file in commented:
        for index, service in enumerate(file.proto.service):
            lines += _service(file, service, (_FILE_SERVICES, index))
    for file in commented:
        lines += ["", f"## {Path(file.proto.name).name}"]
        for index, message in enumerate(file.proto.message_type):
            lines += _message(file, message, (_FILE_MESSAGES, index))
        for index, enum in enumerate(file.proto.enum_type):
            lines += _enum(file, enum, (_FILE_ENUMS, index))
    return "\n".join(lines) + "\n"


class _Commented:
    """A file, and the comments before its declarations by their path."""

    def __init__(self, proto: FileDescriptorProto) -> None:
        self.proto = proto
        self._comments: dict[_Path, str] = {
            tuple(location.path): " ".join(
                (location.leading_comments + location.trailing_comments).split()
            )
            for location in proto.source_code_info.location
        }

    def comment(self, path: _Path) -> str:
        """What is written before a declaration, as one line of Markdown."""
        text = self._comments.get(path, "")
        return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _contents(api: Sequence[_Commented]) -> Iterator[str]:
    yield "| service | methods |"
    yield "| --- | --- |"
    for file in api:
        for service in file.proto.service:
            methods = ", ".join(
                f"[{method.name}](#{method.name.lower()})" for method in service.method
            )
            yield f"| [{service.name}](#{service.name.lower()}) | {methods} |"


def _service(file: _Commented, service: ServiceDescriptorProto, path: _Path) -> Iterator[str]:
    yield from ("", f"## {service.name}", "", file.comment(path))
    for index, method in enumerate(service.method):
        yield from _method(file, service, method, (*path, _SERVICE_METHODS, index))


def _method(
    file: _Commented, service: ServiceDescriptorProto, method: MethodDescriptorProto, path: _Path
) -> Iterator[str]:
    request = ("stream of " if method.client_streaming else "") + _link(method.input_type)
    response = ("stream of " if method.server_streaming else "") + _link(method.output_type)
    yield from ("", f"### {method.name}", "")
    if comment := file.comment(path):
        yield from (comment, "")
    yield f"`/{PACKAGE}.{service.name}/{method.name}`: {request} → {response}"


def _message(file: _Commented, message: DescriptorProto, path: _Path) -> Iterator[str]:
    yield from ("", f"### {message.name}", "")
    if comment := file.comment(path):
        yield from (comment, "")
    if not message.field:
        yield "No fields."
        return
    for index, oneof in enumerate(message.oneof_decl):
        if not _is_synthetic(message, index) and (
            comment := file.comment((*path, _MESSAGE_ONEOFS, index))
        ):
            yield from (f"*oneof {oneof.name}*: {comment}", "")
    yield "| field | type | no. | meaning |"
    yield "| --- | --- | --- | --- |"
    for index, field in enumerate(message.field):
        comment = file.comment((*path, _MESSAGE_FIELDS, index))
        yield f"| `{field.name}` | {_type(message, field)} | {field.number} | {comment} |"


def _enum(file: _Commented, enum: EnumDescriptorProto, path: _Path) -> Iterator[str]:
    yield from ("", f"### {enum.name}", "")
    if comment := file.comment(path):
        yield from (comment, "")
    yield "| value | no. | meaning |"
    yield "| --- | --- | --- |"
    for index, value in enumerate(enum.value):
        yield f"| `{value.name}` | {value.number} | {file.comment((*path, _ENUM_VALUES, index))} |"


def _type(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    for entry in message.nested_type:
        if entry.options.map_entry and field.type_name.endswith(f".{message.name}.{entry.name}"):
            key, value = (_type(entry, part) for part in entry.field)
            return f"map of {key} to {value}"
    name = (
        _link(field.type_name)
        if field.type_name
        else _SCALARS.Name(field.type).removeprefix("TYPE_").lower()
    )
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    if field.proto3_optional:
        return f"*optional* {name}"
    if field.HasField("oneof_index"):
        return f"{name}, *oneof {message.oneof_decl[field.oneof_index].name}*"
    return name


def _is_synthetic(message: DescriptorProto, oneof: int) -> bool:
    """True for the oneof that protoc makes of an optional field."""
    members = [f for f in message.field if f.HasField("oneof_index") and f.oneof_index == oneof]
    return all(field.proto3_optional for field in members)


def _link(type_name: str) -> str:
    """A type by its name; those of this package link to their heading, the others are shown in full."""
    short = type_name.removeprefix(f".{PACKAGE}.")
    return f"`{type_name.lstrip('.')}`" if short.startswith(".") else f"[{short}](#{short.lower()})"


if __name__ == "__main__":
    main()
