"""The Triton functions of the package."""

from __future__ import annotations

import importlib
import pkgutil

from triton.runtime.jit import JITFunction

from mmmsvmamba import kernels


def jitted() -> list[JITFunction]:
    """All jitted functions, by name: kernels and what they call; none where Triton interprets them."""
    names = [x.name for x in pkgutil.iter_modules(kernels.__path__) if x.name.startswith('triton_')]
    modules = [importlib.import_module(f'{kernels.__name__}.{name}') for name in names]
    found = {x for module in modules for x in vars(module).values() if isinstance(x, JITFunction)}
    return sorted(found, key=lambda x: x.__name__)
