"""Fixtures for all tests."""

import sys

import pytest
import torch

import mmmsvmamba  # noqa: F401  makes the OpenMMLab packages importable before a test imports them


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


@pytest.fixture
def nan_memory():
    """Fills the memory of `torch.empty` with NaN, so that a value that is never written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
