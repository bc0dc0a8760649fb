"""Fixtures for all tests."""

import functools
import logging
import sys

import pytest
import torch

import mmmsvmamba  # noqa: F401  makes the OpenMMLab packages importable before a test imports them

#: The files that take longest, the longest first.
SLOW = (
    'test_triton_processes',
    'test_gpu_check',
    'test_guides',
    'test_sweep_zoo',
    'test_swap_trains',
    'test_train_and_test',
    'test_tta_memory',
    'test_three_lines',
    'test_every_arch',
)


def pytest_collection_modifyitems(items):
    """Starts with the slow files: where each process takes a file at a time, the last ones should be short."""
    ranks = {name: rank for rank, name in enumerate(SLOW)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(SLOW)))


@pytest.fixture(autouse=True)
def forget_runners():
    """A runner leaves its default scope and its visualizer behind, in which the next test would then look."""
    yield
    if registry := sys.modules.get('mmengine.registry'):
        registry.DefaultScope._instance_dict.clear()
    if visualization := sys.modules.get('mmengine.visualization'):
        kinds = [visualization.Visualizer]
        while kinds:  # each library's subclass keeps its own
            kind = kinds.pop()
            kind._instance_dict.clear()
            kinds += kind.__subclasses__()


@pytest.fixture(scope='module')
def bases_found_once():
    """What `mmdet::…` and the like stand for, mmengine would look up anew for each config: most of a second."""
    from mmengine.config import Config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, '_get_cfg_path', staticmethod(functools.cache(Config._get_cfg_path)))
        yield


@pytest.fixture
def nan_memory():
    """Fills the memory of `torch.empty` with NaN, so that a value that is never written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def log():
    """What is logged, as a list that grows."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
