"""Makes dataclasses of options: frozen, checked when built, documented at each field."""

from __future__ import annotations

import dataclasses
from functools import wraps
from typing import Annotated, Any, NamedTuple, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from training.errors import ConfigError

Kind = TypeVar("Kind", bound=type[Any])

Count = Annotated[int, Field(ge=1)]
"""A whole number of at least 1."""
CountOrZero = Annotated[int, Field(ge=0)]
"""A whole number of at least 0."""
Positive = Annotated[float, Field(gt=0)]
"""A number above 0."""
PositiveOrZero = Annotated[float, Field(ge=0)]
"""A number of at least 0."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A share from 0 to 1."""
ShareBelow1 = Annotated[float, Field(ge=0, lt=1)]
"""A share from 0 to below 1."""
InnerShare = Annotated[float, Field(gt=0, lt=1)]
"""A share above 0 and below 1."""

_CONFIG = ConfigDict(use_attribute_docstrings=True, extra="forbid")
_PLAIN_WORDS = {
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
    "a valid integer": "a whole number",
    "a valid number": "a number",
}


class Option(NamedTuple):
    """One field of a dataclass of options: its type without bounds, its default and its text."""

    annotation: Any
    default: Any
    text: str


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def options(kind: Kind) -> Kind:
    """Makes a frozen dataclass whose fields pydantic checks, and which refuses with ConfigError.

    The text under a field is its documentation. Messages begin with the class variable title, if
    there is one, and name the field.
    """
    checked: Any = dataclass(frozen=True, config=_CONFIG)(kind)
    build = checked.__init__

    @wraps(build)
    def init(self: Any, *values: Any, **named: Any) -> None:
        try:
            build(self, *values, **named)
        except ValidationError as error:
            raise ConfigError(_message(checked, error)) from error

    checked.__init__ = init
    return checked  # type: ignore[no-any-return]


def documented(kind: type[Any]) -> dict[str, Option]:
    """Returns the fields that have a text under them, there or in a class that kind extends."""
    texts: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        for name, field in getattr(part, "__pydantic_fields__", {}).items():
            if field.description:
                texts[name] = " ".join(field.description.split())
    fields: dict[str, Any] = kind.__pydantic_fields__
    return {
        name: Option(field.annotation, field.default, texts[name])
        for name, field in fields.items()
        if name in texts
    }


def _message(kind: type[Any], error: ValidationError) -> str:
    """Returns the first fault as one line: TITLE: FIELD: expected X, found Y."""
    fault = error.errors(include_url=False)[0]
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return str(cause)
    title = getattr(kind, "title", "")
    names = [*([title] if title else []), *map(str, fault["loc"])]
    if fault["type"] == "unexpected_keyword_argument":
        return f"{': '.join(names)}: there is no such option"
    expected = fault["msg"].removeprefix("Input should be ")
    for text, plain in _PLAIN_WORDS.items():
        expected = expected.replace(text, plain)
    return f"{': '.join(names)}: expected {expected}, found {fault['input']!r}"
