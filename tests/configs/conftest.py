import pytest
from tiny_data import ade_shapes, shapes  # noqa: F401  fixtures


@pytest.fixture(autouse=True, scope='module')
def quick_reading(bases_found_once):
    """Every test here reads configs."""
