"""Settings with one mistake in them, to see it found."""

import copy
from typing import Any, TypeVar

Settings = TypeVar("Settings", bound=dict[str, Any])
GONE = object()
"""In place of a value: there is none."""


def broken(settings: Settings, where: str, instead: Any) -> Settings:
    """A copy with another value at a path such as `a/0/b`, where `|` stands for a slash of a key. instead: the value,
    (text, other text) to replace in it, or `GONE`."""
    settings = copy.deepcopy(settings)
    *path, last = (part.replace("|", "/") for part in where.split("/"))
    place: Any = settings
    for part in path:
        place = place[int(part) if isinstance(place, list) else part]
    key = int(last) if isinstance(place, list) else last
    if instead is GONE:
        del place[key]
    elif isinstance(instead, tuple):
        assert instead[0] in place[key], "nothing to replace"
        place[key] = place[key].replace(*instead)
    else:
        place[key] = instead
    return settings
