import pytest
import torch

from mmmsvmamba.kernels import Route, decode_groups, encode_groups


def test_pixel_order_of_two_rows_and_three_columns():
    assert Route.ROW.pixel_order(2, 3).tolist() == [0, 1, 2, 3, 4, 5]
    assert Route.COLUMN.pixel_order(2, 3).tolist() == [0, 3, 1, 4, 2, 5]
    assert Route.ROW_REVERSED.pixel_order(2, 3).tolist() == [5, 4, 3, 2, 1, 0]
    assert Route.COLUMN_REVERSED.pixel_order(2, 3).tolist() == [5, 2, 4, 1, 3, 0]


@pytest.mark.parametrize('route', Route)
@pytest.mark.parametrize('size', [(1, 1), (1, 7), (7, 1), (3, 5)])
def test_pixel_order_visits_every_pixel_once(route, size):
    order = route.pixel_order(*size)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(size[0] * size[1]))


def test_pixel_order_does_not_depend_on_the_default_device():
    with torch.device('meta'):
        Route.COLUMN.pixel_order(11, 3)
    assert Route.COLUMN.pixel_order(11, 3).tolist()[:3] == [0, 3, 6]


def test_codes():
    assert [int(route) for route in Route] == [0, 1, 2, 3]  # what exported programs hold
    assert [route.by_column for route in Route] == [False, True, False, True]
    assert [route.reversed for route in Route] == [False, False, True, True]


def test_groups_survive_encoding():
    groups = [(Route.ROW,), (Route.ROW_REVERSED, Route.COLUMN, Route.COLUMN_REVERSED)]
    routes, sizes = encode_groups(iter(iter(group) for group in groups))
    assert (routes, sizes) == ([0, 2, 1, 3], [1, 3])
    assert all(type(code) is int for code in routes)
    assert decode_groups(routes, sizes) == groups
    assert decode_groups(*encode_groups([])) == []


@pytest.mark.parametrize(
    'routes, sizes, message',
    [
        ([0, 4], [2], r'unknown route 4; the routes are 0 \(ROW\), 1 \(COLUMN\), 2'),
        ([-1], [1], 'unknown route -1'),
        ([0, 1], [1], r'group_sizes \[1\] must be positive and add up to the number of routes, which is 2'),
        ([0, 1], [3], 'group_sizes'),
        ([0, 1], [2, 0], 'group_sizes'),
        ([0, 1], [3, -1], 'group_sizes'),
        ([], [1], 'group_sizes'),
    ],
)
def test_groups_that_do_not_decode(routes, sizes, message):
    with pytest.raises(ValueError, match=message):
        decode_groups(routes, sizes)
