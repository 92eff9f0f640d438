"""Named settings, of which single ones can be changed from outside."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from core.errors import InputError, UnknownNameError

Config = TypeVar("Config")


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
    changed: Config = replace(settings, **values)
    return changed
