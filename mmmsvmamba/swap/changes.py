"""A config that remembers what was changed in it, and why."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mmengine.config import Config, ConfigDict


class Absent(Enum):
    """Stands for a key that is not there."""

    ABSENT = 0


ABSENT = Absent.ABSENT


@dataclass(frozen=True)
class Change:
    """One changed key of a config.

    Attributes:
        path: Keys from the root, joined by dots; elements of lists by their number.
        before: The value that was there, or `ABSENT`.
        after: The value that is there now, or `ABSENT`.
        why: The reason, for the user.
    """

    path: str
    before: Any
    after: Any
    why: str

    def __str__(self) -> str:
        lines = [f'{sign} {self.path} = {_spell(value)}' for sign, value in (('-', self.before), ('+', self.after))]
        shown = [line for line, value in zip(lines, (self.before, self.after), strict=True) if value is not ABSENT]
        return '\n'.join([f'# {self.why}', *shown])


class ConfigEditor:
    """Changes a copy of a config and notes each change.

    Args:
        cfg: Stays as it is.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = copy.deepcopy(cfg)
        self.changes: list[Change] = []

    def get(self, path: str, default: Any = None) -> Any:
        """The value at a path, or the default."""
        node = self.cfg
        for key in path.split('.'):
            if isinstance(node, list | tuple):
                node = node[int(key)]
            elif isinstance(node, dict | Config) and key in node:
                node = node[key]
            else:
                return default
        return node

    def set(self, path: str, value: Any, why: str) -> None:
        """Sets a value; nothing happens where it is there already."""
        parent, key = self._parent(path)
        before = self._value(parent, key)
        if before is not ABSENT and type(before) is type(value) and before == value:
            return
        self.changes.append(Change(path, copy.deepcopy(before), copy.deepcopy(value), why))
        parent[key] = ConfigDict(value) if isinstance(value, dict) else value

    def delete(self, path: str, why: str) -> None:
        """Removes a key, if it is there."""
        parent, key = self._parent(path)
        before = self._value(parent, key)
        if before is not ABSENT:
            self.changes.append(Change(path, copy.deepcopy(before), ABSENT, why))
            del parent[key]

    def _parent(self, path: str) -> tuple[Any, Any]:
        *keys, last = path.split('.')
        parent = self.get('.'.join(keys)) if keys else self.cfg
        return parent, int(last) if isinstance(parent, list | tuple) else last

    @staticmethod
    def _value(parent: Any, key: Any) -> Any:
        if isinstance(parent, list | tuple):
            return parent[key]
        return parent.get(key, ABSENT)


def _spell(value: Any) -> str:
    return repr(value.to_dict() if isinstance(value, ConfigDict) else value)
