"""How a configuration says what is wrong with it: one line that names the parameter and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError, ValidationInfo


def unknown_name(name: str, known) -> str:
    """The message for a parameter that does not exist, with the closest one that does."""
    return f"{name}: unknown parameter{did_you_mean(name, known) or '.'} Known are: {', '.join(sorted(known))}"


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """``; did you mean 'cifar10'?`` if one of the known names is close to the value, else nothing."""
    close = difflib.get_close_matches(value, list(known), n=1) if isinstance(value, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def numbers_are_no_booleans(cls: type[BaseModel], value: Any, info: ValidationInfo) -> Any:
    """The value, unless it is a truth value where none belongs: pydantic would take True for 1."""
    annotation = cls.model_fields[info.field_name].annotation
    if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
        raise ValueError("must not be True or False")
    return value


def readable(error: ValidationError) -> str:
    """All of a validation's complaints in one line, each with its parameter's name."""
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        known = re.findall("'([^']+)'", item["ctx"]["expected"]) if item["type"] == "literal_error" else []
        hint = did_you_mean(item["input"], known)
        lines.append(f"{name}: {message} (got {item['input']!r}){hint}" if name else message)
    return "; ".join(lines)
