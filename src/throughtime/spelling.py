"""One spelling of a choice, in flags, config files, records and reports: `name` or `name:h=70,every=35`."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any


def parse(text: str, choices: Mapping[str, type], what: str = "choice") -> Any:
    """The frozen dataclass instance that a spelling names; parsed, never evaluated.

    choices maps each name to its dataclass; what is the word for it in an error.
    Raises ValueError for an unknown name or option, or a value of the wrong type.
    """
    name, _, options = text.strip().partition(":")
    if name not in choices:
        raise ValueError(f"{what} must be {_one_of(choices)}; got {name!r}.{_guess(name, choices)}")
    kind = choices[name]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    given: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, equals, value = (part.strip() for part in option.partition("="))
        if key not in fields or not equals:
            known = f"has {_one_of(fields, 'and')}" if fields else "has no options"
            raise ValueError(f"{what} {name!r} {known}; got {option!r}.{_guess(key, fields)}")
        if key in given:
            raise ValueError(f"{key} of {what} {name!r} must be given once; got it twice.")
        given[key] = _value(value, hints[key], f"{key} of {what} {name!r}")
    return kind(**given)


def spell(choice: Any, choices: Mapping[str, type]) -> str:
    """The spelling of a dataclass instance: its name and every field that is not at its default."""
    name = next(name for name, kind in choices.items() if kind is type(choice))
    options = ",".join(
        f"{field.name}={_plain(getattr(choice, field.name))}"
        for field in dataclasses.fields(choice)
        if getattr(choice, field.name) != field.default
    )
    return f"{name}:{options}" if options else name


def _plain(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _value(text: str, hint: Any, what: str) -> Any:
    kinds = typing.get_args(hint) or (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    if str in kinds:
        return text
    words = {type(None): "none", bool: "true or false"}
    names = " or ".join(words.get(kind, kind.__name__) for kind in kinds)
    raise ValueError(f"{what} must be {names}; got {text!r}.")


def _one_of(names: Mapping[str, Any], last: str = "or") -> str:
    *most, end = names
    return f"{', '.join(most)} {last} {end}" if most else end


def _guess(name: str, names: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
