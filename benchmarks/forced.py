"""Another implementation of the kernels for a while."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from unittest import mock

from mmmsvmamba.kernels import backend

T = TypeVar('T')


@contextmanager
def forced(name: str) -> Iterator[None]:
    """Forces a backend of `mmmsvmamba.kernels.backend` in this process, for whatever runs inside."""
    with mock.patch.dict(os.environ, {backend.VARIABLE: name}):
        yield


def on_backend(name: str, function: Callable[..., T], *args) -> T:
    """Calls a function on a forced backend."""
    with forced(name):
        return function(*args)
