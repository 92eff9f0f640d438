"""Named settings, of which single ones can be changed from outside."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from core.errors import InputError, UnknownNameError

Config = TypeVar("Config")
Range = tuple[int, int] | tuple[float, float]


def configured(recipes: Mapping[str, Config], name: str, changes: Sequence[str]) -> Config:
    """Return a recipe with single settings changed.

    Args:
        recipes: Recipes by name.
        name: Which one.
        changes: "field=value", where the value has the field's type.

    Raises:
        UnknownNameError: If the name or a field is unknown.
        InputError: If a change is not of the form field=value or its value does not fit.
    """
    if name not in recipes:
        raise UnknownNameError("recipe", name, recipes, param="recipe")
    settings: Any = recipes[name]
    kinds = get_type_hints(type(settings))
    known = {field.name for field in fields(settings)}
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            now = ", ".join(f"{name}={getattr(settings, name)}" for name in kinds)
            raise InputError(f"{change!r} is no field=value. There are: {now}.", param="set")
        if key not in known:
            raise UnknownNameError("setting", key, known, param="set")
        try:
            values[key] = TypeAdapter(kinds[key]).validate_python(text)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise InputError(f"{key}: {reason}, not {text!r}.", param=f"set.{key}") from error
        if isinstance(values[key], float) and not math.isfinite(values[key]):
            raise InputError(f"{key}: give a finite number, not {text!r}.", param=f"set.{key}")
    changed: Config = replace(settings, **values)
    return changed


def check_ranges(settings: object, ranges: Mapping[str, Range]) -> None:
    """Refuse settings outside of their ranges, by name.

    Args:
        settings: Any dataclass.
        ranges: Least and most of a field, both allowed.

    Raises:
        InputError: If a field lies outside, or is not a number.
    """
    for name, (least, most) in ranges.items():
        value = getattr(settings, name)
        if not least <= value <= most:
            raise InputError(f"{name} {value}: give {least:g} to {most:g}.", param=f"set.{name}")


COUNT = (1, 2**31 - 1)
"""A number of things, at least one."""

AMOUNT = (0, 2**31 - 1)
"""A number of things that may be none."""

SEED = (0, 2**32 - 1)
"""What a generator takes."""

RATE = (1e-12, 10.0)
"""A learning rate."""

WEIGHT = (0.0, 1e6)
"""The weight of a loss term."""
