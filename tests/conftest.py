"""Fixtures for all tests."""

import pytest
import torch

import mmmsvmamba  # noqa: F401  makes the OpenMMLab packages importable before a test imports them


@pytest.fixture
def nan_memory():
    """Fills the memory of `torch.empty` with NaN, so that a value that is never written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
