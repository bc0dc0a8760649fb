from tiny_data import ade_shapes, shapes  # noqa: F401  fixtures
