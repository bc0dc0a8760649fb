"""Fixtures for all tests."""

import sys

import pytest
import torch

import mmmsvmamba  # noqa: F401  makes the OpenMMLab packages importable before a test imports them


@pytest.fixture(autouse=True)
def default_scope():
    """A runner leaves its default scope behind, in which the next test would then look for its models."""
    yield
    if registry := sys.modules.get('mmengine.registry'):
        registry.DefaultScope._instance_dict.clear()


@pytest.fixture
def nan_memory():
    """Fills the memory of `torch.empty` with NaN, so that a value that is never written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
