"""Edits as a person writes them: "Film-Noir=+1", "#123=-0.5".

    edit     = target "=" number [raw]            ADD:  Film-Noir=+1    #123=-0.3raw
             | target ":" name "=" number [raw]   SET, CAP, SCALE, BLEND, BOOST (and ADD):
                 Film-Noir:cap=.5
             | target ":ablate"                   ABLATE
    target   = "#" digits                         a neuron
             | '"' any text '"'                   a concept, whatever its name looks like
             | any other text                     a concept

The split is at the last "=", so that names may hold "=", ":", "#" and spaces.
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
# Looks like a neuron, right or wrong.
_NEURON = re.compile(r"#[+-]?[0-9.]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE | re.ASCII)


class SteerTextError(ValueError):
    """A text that is no edit; the message says what was found and what was expected."""


def parse_edit(text: str) -> Edit:
    """Reads one edit.

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
            f"{text!r}: no strength found, expected for instance '{stripped or 'Film-Noir'}=+1'"
        )
    target, operation = _split_operator(head.rstrip(), text)
    edit = parse_target(target, text)
    edit.operation = operation
    _read_strength(edit, tail, text)
    return edit


def parse_target(target: str, text: str | None = None) -> Edit:
    """An edit with just its target: "#123" is a neuron, all else a concept's name.

    Args:
        target: a neuron or a concept, as the grammar has it.
        text: what it is part of, for the error.

    Raises:
        SteerTextError: no name, or a neuron's index that is none.
    """
    context = repr(target if text is None else text)
    target = target.strip()
    if len(target) > 2 and target.startswith('"') and target.endswith('"'):
        return Edit(concept=target[1:-1])
    if not target or target == '""':
        raise SteerTextError(
            f"{context}: no target found, expected a concept's name or '#' and a neuron's index"
        )
    if not _NEURON.fullmatch(target):
        return Edit(concept=target)
    digits = target[1:]
    if not digits.isdecimal() or len(digits) > 10 or int(digits) > MAX_NEURON:
        raise SteerTextError(
            f"{context}: neuron {digits} found, expected a whole number from 0 (quote a concept of that name)"
        )
    return Edit(neuron=int(digits))


def format_edit(edit: Edit) -> str:
    """Writes one edit so that `parse_edit` reads the same back.

    Raises:
        SteerTextError: the edit has no target, a weight vector as target, or no strength.
    """
    target = format_target(edit)
    operation = edit.operation or Operation.OPERATION_ADD
    if operation == Operation.OPERATION_ABLATE:
        return target + _ABLATE
    if not edit.HasField("strength"):
        raise SteerTextError(f"an edit of {target} has no strength: it cannot be written as text")
    number = _shortest(edit.strength)
    raw = RAW_SUFFIX if edit.unit == Unit.UNIT_RAW else ""
    if operation == Operation.OPERATION_ADD:
        sign = "" if number.startswith("-") else "+"
        return f"{target}={sign}{number}{raw}"
    return f"{target}:{_NAMES[operation]}={number}{raw}"


def format_target(edit: Edit) -> str:
    """An edit's target as the grammar has it.

    Raises:
        SteerTextError: the edit has no target, or one that has no text.
    """
    kind = edit.WhichOneof("target")
    if kind == "neuron":
        return f"#{edit.neuron}"
    if kind != "concept" or not edit.concept:
        raise SteerTextError(
            "only an edit of a neuron or of a named concept can be written as text"
        )
    name = edit.concept
    looks_else = _NEURON.fullmatch(name) or _OPERATOR.fullmatch(name) or name.startswith('"')
    return f'"{name}"' if looks_else or name != name.strip() else name


def _split_operator(head: str, text: str) -> "tuple[str, Operation.ValueType]":
    match = _OPERATOR.fullmatch(head)
    if match is None:
        return head, Operation.OPERATION_ADD
    if match[2] == "ablate":
        raise SteerTextError(
            f"{text!r}: ablate with a strength found, expected '{match[1]}{_ABLATE}'"
        )
    return match[1], _OPERATIONS[match[2]]


def _read_strength(edit: Edit, tail: str, text: str) -> None:
    number = tail.strip()
    raw = number.endswith(RAW_SUFFIX)
    number = number.removesuffix(RAW_SUFFIX).rstrip()
    if not _NUMBER.fullmatch(number) or not math.isfinite(strength := float(number)):
        raise SteerTextError(f"{text!r}: strength {tail.strip()!r} found, expected a finite number")
    if math.isinf(_float32(strength)):
        raise SteerTextError(f"{text!r}: strength {number} found, too large for a 32-bit number")
    edit.strength = strength
    if edit.operation in _UNITLESS:
        if raw:
            name = _NAMES[edit.operation]
            raise SteerTextError(
                f"{text!r}: '{RAW_SUFFIX}' found, but {name} takes a bare number without a unit"
            )
        return
    edit.unit = Unit.UNIT_RAW if raw else Unit.UNIT_TYPICAL


def _shortest(value: float) -> str:
    """The fewest digits that give the same float32 back: 9 are always enough."""
    return next(
        digits for size in range(1, 10) if _float32(float(digits := f"{value:.{size}g}")) == value
    )


def _float32(value: float) -> float:
    """The nearest float32, infinite where there is none. struct's native form rounds; the others refuse."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
