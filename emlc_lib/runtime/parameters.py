"""What configurations have in common, and how they say what is wrong with them.

That is one line, which names the parameter and what is allowed.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator


class Expected(Exception):
    """What a user can put right: commands show its message in one line, and of anything else the traceback."""


class ConfigError(Expected, ValueError):
    """A parameter has a name or a value that is not allowed. The message names it and what is."""


class Parameters(BaseModel):
    """Checked parameters that cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would take True for 1.
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError("must not be True or False")
        return value


P = TypeVar("P", bound=Parameters)


def checked(cls: type[P], **values: Any) -> P:
    """``cls(**values)``, whose complaints are a :class:`ConfigError`."""
    try:
        return cls(**values)
    except ValidationError as error:
        raise ConfigError(readable(error)) from None


def check_options(options: object, taken: Iterable[str] = ()) -> dict[str, Any]:
    """Further parameters by name, as a parameter ``options`` has them; none for None.

    Args:
        taken: names that are parameters beside it.

    Raises:
        ConfigError: they are no dictionary of names, or one is among ``taken``.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        example = """-y '{"options": {"lr": 0.1}}'"""
        raise ConfigError(f"options: must be a dictionary by name, as in {example} (got {options!r})")
    twice = sorted(options.keys() & set(taken))
    if twice:
        raise ConfigError(f"options: {twice[0]} is a parameter by itself; give it there, and once")
    if "device_here" in options:
        raise ConfigError("device_here: unknown parameter; give device")
    return dict(options)


def refuse_unknown(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises :class:`ConfigError` about the first of the names that is not known."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ConfigError(unknown_name(name, known))


def unknown_name(name: str, known) -> str:
    """The message for a parameter that does not exist, with the closest one that does."""
    return f"{name}: unknown parameter{did_you_mean(name, known) or '.'} Known are: {', '.join(sorted(known))}"


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """``; did you mean 'cifar10'?`` if one of the known names is close to the value, else nothing."""
    close = difflib.get_close_matches(value, list(known), n=1) if isinstance(value, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


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


class DataUnavailable(Expected, RuntimeError):
    """A data set, or a part of it, is not on this machine or is damaged. The message says what to do."""
