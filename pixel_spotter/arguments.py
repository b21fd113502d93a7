"""Values that a user sets, held against the types of the arguments that they are for."""

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from pixel_spotter.errors import BadValueError


def require(fits: bool, key: str, wanted: str, value: object) -> None:
    """Refuse a setting's value that does not fit, saying what is wanted."""
    if not fits:
        shown = " ".join(repr(value).split())  # arrays have several lines
        raise BadValueError(f"{key} must be {wanted}, got {shown:.200}")


def require_whole(key: str, value: object, least: int) -> None:
    """Refuse a setting that is no whole number of at least ``least``."""
    fits = type(value) is int and value >= least
    require(fits, key, f"a whole number of at least {least}", value)


def check_arguments(made: Callable[..., Any], values: Mapping[str, Any], key: str) -> None:
    """Refuse a value that is not of its argument's type; what has no readable type may be any.

    Args:
        made: the class or function that takes them.
        values: by the arguments' names.
        key: what their settings' names begin with, for messages.

    Raises:
        UserError: naming the setting.
    """
    try:
        hints = typing.get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except Exception:  # whatever a user's own annotations come up with
        return
    for name, value in values.items():
        if name not in hints:
            continue
        hint = hints[name]
        try:
            check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
            fits = not isinstance(value, bool) or "bool" in str(hint) or hint is Any
        except TypeCheckError:
            fits = False
        except Exception:  # hints beyond what can be checked
            fits = True
        words = hint.__name__ if isinstance(hint, type) else str(hint)
        words = re.sub(r"\b(collections\.abc|typing|torch)\.", "", words)
        require(fits, f"{key}.{name}", words, value)
