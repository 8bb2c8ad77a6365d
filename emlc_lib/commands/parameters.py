"""Parameters on a command line, in papermill's syntax, and their list in a command's help."""

import functools
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo
from yaml import YAMLError, safe_load

from ..runtime.files import as_path
from ..runtime.parameters import ConfigError, check_options

Rows = list[tuple[str, str]]
NAMES = {int: "integer", float: "number", str: "text", bool: "True or False", types.NoneType: "None"}
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def value_of(text: str) -> Any:
    """What papermill makes of the text behind ``-p NAME``; a list or a dictionary is YAML, e.g. ``[0.5, 0.9]``.

    Raises:
        ConfigError: it begins as a list or a dictionary, and is none.
    """
    if text in ("True", "False", "None"):
        return {"True": True, "False": False}.get(text)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return _from_yaml(text, "-p") if text.startswith(("[", "{")) else text


def given(function: Callable) -> Callable:
    """Adds papermill's options ``-p``, ``-r``, ``-f``, ``-y``; the function gets ``parameters``, a dictionary."""

    @click.option("-p", "--parameters", "p", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter.")
    @click.option(
        "-r",
        "--parameters_raw",
        "r",
        nargs=2,
        multiple=True,
        metavar="NAME TEXT",
        help="A parameter whose value is text, even if it looks like a number.",
    )
    @click.option(
        "-y",
        "--parameters_yaml",
        "y",
        multiple=True,
        metavar="YAML",
        help="Parameters as YAML or JSON: '{noise: 0.9, lr: 0.1}'.",
    )
    @click.option("-f", "--parameters_file", "f", type=PathOf(), multiple=True, help="A file of them, likewise.")
    @functools.wraps(function)
    def with_parameters(*args, p, r, y, f, **others):
        sources = [_mapping(_text(file), str(file)) for file in f] + [_mapping(text, "-y") for text in y]
        sources += [{name: value_of(text)} for name, text in p] + [dict(r)]
        merged = functools.reduce(lambda before, after: before | after, sources, {})
        return function(*args, parameters=merged, **others)

    return with_parameters


def flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with those among them that stand under ``options``, as notebooks have them.

    Raises:
        ConfigError: see :func:`emlc_lib.runtime.parameters.check_options`.
    """
    others = {name: value for name, value in parameters.items() if name != "options"}
    return check_options(others) | check_options(parameters.get("options"), others)


class PathOf(click.ParamType):
    """A path whose check is one of :mod:`emlc_lib.runtime.files`, under the name of its option."""

    name = "path"

    def __init__(self, check: Callable[[object, str], Path] = as_path):
        self.check = check

    def convert(self, value, param, ctx):
        return self.check(value, param.opts[-1] if param.opts[-1].startswith("-") else param.human_readable_name)


class Described(click.Command):
    """A command whose help ends with lists of parameters.

    Args:
        sections: makes them: a title, and rows of a name and what is allowed.
    """

    def __init__(self, *args, sections: Callable[[], Iterable[tuple[str, Rows]]], **kwargs):
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_epilog(self, ctx, formatter):
        for title, rows in self.sections():
            with formatter.section(title):
                formatter.write_dl(rows)


def allowed(field: FieldInfo, *, choices: Iterable[str] = (), default: str | None = None) -> str:
    """Type, range, default and description of a parameter, in a line.

    Args:
        choices: in place of its type. default: in place of the field's own.
    """
    bounds = [f"{sign} {getattr(m, n)}" for m in field.metadata for n, sign in BOUNDS.items() if hasattr(m, n)]
    text = ", ".join([", ".join(choices) or _kind(field.annotation), *bounds])
    if default is None and not field.is_required():
        default = f"{field.default}"
    text += f"; default {default}" if default else ""
    return f"{text}. {field.description}" if field.description else text


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in get_args(annotation))
    return NAMES.get(annotation, "dictionary" if get_origin(annotation) is dict else str(annotation))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"-f: {file} is no UTF-8 text") from None


def _mapping(text: str, source: str) -> dict[str, Any]:
    values = _from_yaml(text, source)
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError(f"{source}: must be a dictionary of parameters by name (got {values!r})")
    return values


def _from_yaml(text: str, source: str) -> Any:
    try:
        return safe_load(text)
    except (YAMLError, ValueError) as error:  # a ValueError: a date that there is not
        raise ConfigError(f"{source}: {text!r} is not YAML ({error})") from None
