"""The name of the class that a part of a config asks for, however the config spells it."""

from __future__ import annotations


def class_name(kind: object) -> str:
    """Name of a class, without scope or module.

    Args:
        kind: A `type` as configs have it: a name, one with a scope such as `mmdet.FPN`, or the class itself. Anything
            else, such as a part without a type, has no name: the result is empty.
    """
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2]
