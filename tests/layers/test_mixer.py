"""The mixer against its definition, written as loops over pixels in float64."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mmmsvmamba.kernels import Route
from mmmsvmamba.layers import RouteScan, ScanMixer

ROW, COLUMN, ROW_REVERSED, COLUMN_REVERSED = Route.ROW, Route.COLUMN, Route.ROW_REVERSED, Route.COLUMN_REVERSED
RELEASED = dict(full_routes=[(ROW,)], half_routes=[(ROW_REVERSED, COLUMN, COLUMN_REVERSED)])
OWN = [(ROW,), (COLUMN,), (ROW_REVERSED,), (COLUMN_REVERSED,)]


def make(dim=6, inner_dim=8, seed=0, **kwargs) -> ScanMixer:
    options = dict(
        RELEASED,
        full_kernel=3,
        half_kernel=7,
        conv_bias=True,
        d_state=1,
        dt_rank=2,
        merge='norm-each+bilinear',
        gate=True,
        se_reduction=2,
        eps=1e-5,
    )
    torch.manual_seed(seed)
    mixer = ScanMixer(dim=dim, inner_dim=inner_dim, **{**options, **kwargs}).double()
    for parameter in mixer.parameters():  # nothing stays zero or one
        torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.3)
    return mixer


def walk(route: Route, height: int, width: int) -> list[tuple[int, int]]:
    rows = [(i, j) for i in range(height) for j in range(width)]
    columns = [(i, j) for j in range(width) for i in range(height)]
    return {ROW: rows, COLUMN: columns, ROW_REVERSED: rows[::-1], COLUMN_REVERSED: columns[::-1]}[route]


def scan(u: torch.Tensor, branch, groups) -> list[torch.Tensor]:
    """One map (B, H, W, D) per route; the state is carried over the joins of a group."""
    s6 = branch.scan
    rank, states = s6.dt_weight.shape[2], s6.A_log.shape[2]
    maps = []
    for g, group in enumerate(groups):
        h = u.new_zeros(u.shape[0], u.shape[3], states)
        for route in group:
            y = torch.zeros_like(u)
            for i, j in walk(route, *u.shape[1:3]):
                low_rank, B, C = (u[:, i, j] @ s6.x_proj_weight[g].t()).split([rank, states, states], dim=1)
                delta = F.softplus(low_rank @ s6.dt_weight[g].t() + s6.dt_bias[g])
                decay = torch.exp(-delta[..., None] * s6.A_log[g].exp())
                h = decay * h + (delta * u[:, i, j])[..., None] * B[:, None]
                y[:, i, j] = (h * C[:, None]).sum(2) + s6.D[g] * u[:, i, j]
            maps.append(y)
    return maps


def conv(x: torch.Tensor, module, stride: int) -> torch.Tensor:
    """SiLU of a depthwise convolution of (B, H, W, D), tap by tap; outside the map is zero."""
    if module is None:
        return x * x.sigmoid()
    size, (height, width) = module.weight.shape[2], x.shape[1:3]
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    out = x.new_zeros(x.shape[0], rows, columns, x.shape[3])
    for i in range(rows):
        for j in range(columns):
            for a in range(size):
                for b in range(size):
                    row, column = i * stride + a - size // 2, j * stride + b - size // 2
                    if 0 <= row < height and 0 <= column < width:
                        out[:, i, j] += x[:, row, column] * module.weight[:, 0, a, b]
    if module.bias is not None:
        out += module.bias
    return out * out.sigmoid()


def norm(x: torch.Tensor, module) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * module.weight + module.bias


def upsample(x: torch.Tensor, size: torch.Size, merge: str) -> torch.Tensor:
    options = dict(mode='nearest') if merge == 'nearest+norm' else dict(mode='bilinear', align_corners=False)
    return F.interpolate(x.permute(0, 3, 1, 2), size=size, **options).permute(0, 2, 3, 1)


def definition(x: torch.Tensor, mixer: ScanMixer, full_routes, half_routes, merge: str) -> torch.Tensor:
    inner = x @ mixer.in_proj.weight.t()
    full, half = [], []
    if full_routes:
        full = scan(conv(inner, mixer.full_res.conv, 1), mixer.full_res, full_routes)
    if half_routes:
        half = scan(conv(inner, mixer.half_res.conv, 2), mixer.half_res, half_routes)
    if merge == 'norm-each+bilinear':
        full, half = ([norm(y, mixer.norm) for y in maps] for maps in (full, half))
    y = sum(full)
    if half:
        y = y + upsample(sum(half), x.shape[1:3], merge)
    if merge == 'nearest+norm':
        y = norm(y, mixer.norm)
    if mixer.se is not None:
        hidden = (y.mean((1, 2)) @ mixer.se.squeeze.weight.t()).clamp_min(0)
        y = y * (hidden @ mixer.se.excite.weight.t()).sigmoid()[:, None, None]
    if mixer.gate_proj is not None:
        gate = x @ mixer.gate_proj.weight.t()
        y = y * gate * gate.sigmoid()
    return y @ mixer.out_proj.weight.t()


ROUTES = {
    'released': RELEASED,
    'cross-scan': dict(full_routes=OWN, half_routes=[]),
    '3-1': dict(full_routes=OWN[:3], half_routes=OWN[3:]),
    '2-2': dict(full_routes=OWN[:2], half_routes=[(ROW_REVERSED, COLUMN_REVERSED)]),
    '0-4': dict(full_routes=[], half_routes=OWN, half_kernel=3),
    'all in one': dict(full_routes=[(ROW, COLUMN, ROW_REVERSED, COLUMN_REVERSED)], half_routes=[]),
}


@pytest.mark.parametrize('size', [(4, 6), (5, 3), (1, 7), (1, 1)], ids=str)
@pytest.mark.parametrize('merge', ['norm-each+bilinear', 'nearest+norm'])
@pytest.mark.parametrize('routes', ROUTES)
def test_equals_its_definition(routes, merge, size, nan_memory):
    options = dict(ROUTES[routes], d_state=3 if routes == '3-1' else 1)
    mixer = make(merge=merge, **options)
    x = torch.randn(2, *size, 6, dtype=torch.float64)
    expected = definition(x, mixer, options['full_routes'], options['half_routes'], merge)
    torch.testing.assert_close(mixer(x), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    'options',
    [
        dict(gate=False),
        dict(se_reduction=None),
        dict(gate=False, se_reduction=None),
        dict(conv_bias=False),
        dict(full_kernel=5, half_kernel=3),
        dict(full_kernel=None),
        dict(d_state=4, dt_rank=1),
        dict(inner_dim=12, dim=4),
    ],
    ids=str,
)
def test_every_option_equals_its_definition(options):
    mixer = make(**options)
    x = torch.randn(2, 5, 4, options.get('dim', 6), dtype=torch.float64)
    expected = definition(x, mixer, **RELEASED, merge='norm-each+bilinear')
    torch.testing.assert_close(mixer(x), expected, atol=1e-10, rtol=1e-10)


def test_parts_that_are_not_asked_for_are_not_built():
    names = {name.split('.')[0] for name, _ in make(gate=False, se_reduction=None, half_routes=[]).named_parameters()}
    assert names == {'in_proj', 'full_res', 'norm', 'out_proj'}


@pytest.mark.parametrize('routes', ROUTES)
def test_gradients_are_those_of_the_definition(routes):
    mixer = make(**ROUTES[routes])
    x = torch.randn(1, 4, 3, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 4, 3, 6, dtype=torch.float64)
    inputs = [x, *mixer.parameters()]
    full_routes, half_routes = ROUTES[routes]['full_routes'], ROUTES[routes]['half_routes']
    y = definition(x, mixer, full_routes, half_routes, 'norm-each+bilinear')
    expected = torch.autograd.grad((y * weight).sum(), inputs)
    for gradient, other in zip(torch.autograd.grad((mixer(x) * weight).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize('merge', ['norm-each+bilinear', 'nearest+norm'])
@pytest.mark.parametrize('size', [(4, 6), (5, 1), (1, 1)], ids=str)
def test_cascade_equals_its_definition(size, merge):
    """Every row by itself from both ends, then every column of the sum; both passes behind a norm without weights."""
    mixer = make(full_routes=[], half_routes=[], cascade=True, full_kernel=None, merge=merge, se_reduction=None)
    x = torch.randn(2, *size, 6, dtype=torch.float64)

    def plain_norm(y):
        return (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    def lines(y, s6):
        """Rows of (B, H, W, D), each a map of one line."""
        branch = SimpleNamespace(scan=s6)
        rows = [sum(scan(row[:, None], branch, [(ROW,), (ROW_REVERSED,)]))[:, 0] for row in plain_norm(y).unbind(1)]
        return torch.stack(rows, dim=1)

    u = conv(x @ mixer.in_proj.weight.t(), None, 1)
    cascade = mixer.full_res.scan
    y = lines(lines(u, cascade.rows).transpose(1, 2), cascade.columns).transpose(1, 2)
    gate = x @ mixer.gate_proj.weight.t()
    expected = norm(y, mixer.norm) * gate * gate.sigmoid() @ mixer.out_proj.weight.t()
    torch.testing.assert_close(mixer(x), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize('cascade', [False, True])
def test_the_initialisation_reaches_every_scan(cascade):
    mixer = make(**(dict(full_routes=[], half_routes=[], cascade=True) if cascade else {}), ssm_init='uniform')
    scans = [module for module in mixer.modules() if isinstance(module, RouteScan)]
    assert len(scans) == 2
    for scan in scans:
        scan.reset_parameters()
        assert scan.init == 'uniform' and (scan.A_log == 0).all() and (scan.D == 1).all()
        assert scan.dt_weight.min() >= 0 and 0 <= scan.dt_bias.min() < scan.dt_bias.max() < 0.1
