"""Reads and writes edits as text, for instance "Film-Noir=+1" and "#123=-0.5".

    edit     = target "=" number [raw]            ADD:  Film-Noir=+1    #123=-0.3raw
             | target ":" name "=" number [raw]   SET, CAP, SCALE, BLEND, BOOST (and ADD):
                 Film-Noir:cap=0.5
             | target ":ablate"                   ABLATE
    target   = "#" digits                         a neuron
             | '"' any text '"'                   a concept with any name
             | any other text                     a concept

The text is split at the last "=", so that names may contain "=", ":", "#" and spaces.
"""

import math
import re
import struct

from trimtab.v1.steering_pb2 import Edit, Operation, Unit

RAW_SUFFIX = "raw"
MAX_NEURON = 2**32 - 1

_OPERATIONS: "dict[str, Operation.ValueType]" = {
    "add": Operation.OPERATION_ADD,
    "set": Operation.OPERATION_SET,
    "scale": Operation.OPERATION_SCALE,
    "cap": Operation.OPERATION_CAP,
    "blend": Operation.OPERATION_BLEND,
    "boost": Operation.OPERATION_BOOST,
}
_NAMES = {operation: name for name, operation in _OPERATIONS.items()}
_UNITLESS = {Operation.OPERATION_SCALE, Operation.OPERATION_BLEND, Operation.OPERATION_BOOST}
_ABLATE = ":ablate"
_OPERATOR = re.compile(rf"(.*):\s*({'|'.join(_OPERATIONS)}|ablate)", re.DOTALL)
_NEURON = re.compile(r"#[+-]?[0-9.]+")
"""A neuron, also with an invalid index."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE | re.ASCII)


class SteerTextError(ValueError):
    """A text that is not an edit; the message names what was expected and what was found."""


def parse_edit(text: str) -> Edit:
    """Reads one edit from a text.

    Raises:
        SteerTextError: the text does not fit the grammar.
    """
    stripped = text.strip()
    if stripped.endswith(_ABLATE):
        edit = parse_target(stripped.removesuffix(_ABLATE), text)
        edit.operation = Operation.OPERATION_ABLATE
        return edit
    head, equals, tail = stripped.rpartition("=")
    if not equals:
        raise SteerTextError(
            f"{text!r}: expected a strength such as '{stripped or 'Film-Noir'}=+1', found none"
        )
    target, operation = _split_operator(head.rstrip(), text)
    edit = parse_target(target, text)
    edit.operation = operation
    _read_strength(edit, tail, text)
    return edit


def parse_target(target: str, text: str | None = None) -> Edit:
    """Returns an edit that has only a target: "#123" is a neuron, any other text a concept's name.

    Args:
        target: a neuron or a concept in the grammar of this module.
        text: the whole text, for the error message.

    Raises:
        SteerTextError: an empty name, or an invalid index of a neuron.
    """
    context = repr(target if text is None else text)
    target = target.strip()
    if len(target) > 2 and target.startswith('"') and target.endswith('"'):
        return Edit(concept=target[1:-1])
    if not target or target == '""':
        raise SteerTextError(
            f"{context}: expected a concept's name or '#' and a neuron's index, found no target"
        )
    if not _NEURON.fullmatch(target):
        return Edit(concept=target)
    digits = target[1:]
    if not digits.isdecimal() or len(digits) > 10 or int(digits) > MAX_NEURON:
        raise SteerTextError(
            f"{context}: expected a whole number from 0 as neuron, found {digits}"
            " (put quotes around the name of a concept)"
        )
    return Edit(neuron=int(digits))


def format_edit(edit: Edit) -> str:
    """Returns an edit as text, from which `parse_edit` reads the same edit.

    Raises:
        SteerTextError: the edit has no target, a weight vector as target, or no strength.
    """
    target = format_target(edit)
    operation = edit.operation or Operation.OPERATION_ADD
    if operation == Operation.OPERATION_ABLATE:
        return target + _ABLATE
    if not edit.HasField("strength"):
        raise SteerTextError(f"edit of {target}: expected a strength, found none")
    number = _shortest(edit.strength)
    raw = RAW_SUFFIX if edit.unit == Unit.UNIT_RAW else ""
    if operation == Operation.OPERATION_ADD:
        sign = "" if number.startswith("-") else "+"
        return f"{target}={sign}{number}{raw}"
    return f"{target}:{_NAMES[operation]}={number}{raw}"


def format_target(edit: Edit) -> str:
    """Returns the target of an edit as text.

    Raises:
        SteerTextError: the target is missing, or is neither a neuron nor a named concept.
    """
    kind = edit.WhichOneof("target")
    if kind == "neuron":
        return f"#{edit.neuron}"
    if kind != "concept" or not edit.concept:
        raise SteerTextError(
            f"target: expected a neuron or the name of a concept, found {kind or 'none'}"
        )
    name = edit.concept
    is_ambiguous = _NEURON.fullmatch(name) or _OPERATOR.fullmatch(name) or name.startswith('"')
    return f'"{name}"' if is_ambiguous or name != name.strip() else name


def _split_operator(head: str, text: str) -> "tuple[str, Operation.ValueType]":
    match = _OPERATOR.fullmatch(head)
    if match is None:
        return head, Operation.OPERATION_ADD
    if match[2] == "ablate":
        raise SteerTextError(
            f"{text!r}: expected '{match[1]}{_ABLATE}', found ablate with a strength"
        )
    return match[1], _OPERATIONS[match[2]]


def _read_strength(edit: Edit, tail: str, text: str) -> None:
    number = tail.strip()
    raw = number.endswith(RAW_SUFFIX)
    number = number.removesuffix(RAW_SUFFIX).rstrip()
    if not _NUMBER.fullmatch(number) or not math.isfinite(strength := float(number)):
        raise SteerTextError(
            f"{text!r}: expected a finite number as strength, found {tail.strip()!r}"
        )
    if math.isinf(_float32(strength)):
        raise SteerTextError(
            f"{text!r}: expected a strength that fits a 32-bit float, found {number}"
        )
    edit.strength = strength
    if edit.operation in _UNITLESS:
        if raw:
            name = _NAMES[edit.operation]
            raise SteerTextError(
                f"{text!r}: expected a number without a unit for {name}, found '{RAW_SUFFIX}'"
            )
        return
    edit.unit = Unit.UNIT_RAW if raw else Unit.UNIT_TYPICAL


def _shortest(value: float) -> str:
    """Returns the fewest digits that give the same float32; 9 digits are always enough."""
    return next(
        digits for size in range(1, 10) if _float32(float(digits := f"{value:.{size}g}")) == value
    )


def _float32(value: float) -> float:
    """Rounds to the nearest float32, or to infinity. Only struct's native format rounds."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
