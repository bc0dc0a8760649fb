"""Builds parts of a config, and tells what a library refuses in one message instead of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmmsvmamba.loading import CheckpointError

from .class_name import class_name
from .errors import UserError
from .scopes import Scope


@contextmanager
def build_errors(what: str) -> Iterator[None]:
    """Turns what constructors raise on options that they do not take into a `UserError` that begins with `what`."""
    try:
        yield
    except (UserError, CheckpointError):
        raise
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        reason = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
        raise UserError(f'{what}: {reason or type(error).__name__}') from error


def build_model(cfg: Config, scope: Scope) -> nn.Module:
    """Builds the whole model of a config, with random weights.

    Raises:
        UserError: if the library refuses it.
    """
    with MODELS.switch_scope_and_registry(scope.name) as registry, build_errors('building the model failed'):
        return registry.build(deepcopy(cfg.model))


def build_own_backbone(cfg: Config, scope: Scope) -> nn.Module | None:
    """Builds the backbone of a config with random weights if it is one of this package, otherwise returns None.

    Raises:
        UserError: if an option does not fit it.
    """
    import mmmsvmamba.backbones as ours

    backbone = cfg.model.get('backbone')
    if not isinstance(backbone, dict):
        return None
    if class_name(backbone.get('type')) not in ours.__all__:
        return None
    with MODELS.switch_scope_and_registry(scope.name) as registry, build_errors('model.backbone'):
        return registry.build({key: value for key, value in backbone.items() if key != 'init_cfg'})
