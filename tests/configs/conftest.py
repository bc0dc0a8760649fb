from tiny_data import shapes  # noqa: F401  a fixture
