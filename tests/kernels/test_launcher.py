"""Launches: planned once, and the same whether Triton binds their arguments or a plan does."""

import ast
import inspect

import pytest
import torch
from scan_cases import cast, map_inputs

from mmmsvmamba.kernels import scale_and_gate, scan2d

pytest.importorskip('triton', '3.3', reason='the Triton kernels are tested where Triton is installed')

from driver_stand_in import PROCESSORS, stand_in  # noqa: E402
from jitted_kernels import jitted  # noqa: E402
from launched import AUTOCAST, _operators, _scans, run  # noqa: E402

from mmmsvmamba.kernels import triton_launcher, triton_plan  # noqa: E402


@pytest.mark.parametrize('function', jitted(), ids=lambda x: x.__name__)
def test_one_return(function):
    """Triton's compiler visits what stands behind an early return, the interpreter does not."""
    (tree,) = ast.parse(inspect.getsource(function.fn)).body
    returns = [node for node in ast.walk(tree) if isinstance(node, ast.Return)]
    assert len(returns) <= 1
    assert not returns or returns == [tree.body[-1]]


#: Of what a launch is given: the grid; stream, function and hooks, which a plan asks Triton for; the arguments.
GRID, ARGUMENTS = slice(3), slice(9, None)


def same(found, expected):
    return len(found) == len(expected) and all(
        a is b if isinstance(a, torch.Tensor) else a == b for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize('train', [False, True])
def test_arguments_are_the_same_with_a_plan(monkeypatch, train):
    """The first launch goes through Triton's binding, the second does not."""
    monkeypatch.setattr(triton_plan, 'SPLIT', True)
    monkeypatch.setattr(triton_plan, 'CHUNK', 1)
    seen = []
    launch = triton_launcher.Launch._launch

    with stand_in() as noted:

        def bound(self, pointers):
            found = launch(self, pointers)
            by_triton = noted.last
            found[self.grid](*pointers, *self.tail)
            assert same(noted.last[GRID], by_triton[GRID]) and same(noted.last[ARGUMENTS], by_triton[ARGUMENTS])
            seen.append(self.kernel.__name__)
            return found

        monkeypatch.setattr(triton_launcher.Launch, '_launch', bound)
        for _, function, inputs in (*_operators(32), *_scans(32)):
            run(function, cast(inputs, torch.float32), train)
    assert len(set(seen)) == (13 if train else 6)


def gate(y):
    return scale_and_gate(y, y[:, 0, 0], y)


def test_what_is_compiled_anew():
    x = torch.zeros(2, 4, 4, 32)
    with stand_in() as noted:
        for _ in range(3):
            gate(x)
        assert (len(noted.compiled), noted.launches) == (1, 3)
        gate(torch.zeros(1, 7, 3, 32))  # sizes of images are not compiled in
        assert len(set(noted.compiled)) == 1
        gate(x.bfloat16())
        gate(torch.zeros(2 * 512 + 1)[1:].view(2, 4, 4, 32))  # a pointer that is no multiple of 16
        gate(torch.zeros(2, 4, 4, 30))
        assert len(set(noted.compiled)) == 4
    with stand_in() as noted:
        gate(x)
        assert len(noted.compiled) == 1  # what another driver compiled is not found again


def test_wide_strides_are_compiled_for_themselves():
    """Strides beyond 32 bits are arguments of 64; memory that far is only pretended."""
    with stand_in() as noted:
        inputs = map_inputs(batch=1, height=2, width=2, channels=16, rank=2, d_state=1, dtype=torch.float32)
        scan2d(*inputs, [0], [1])
        u = inputs[0].as_strided(inputs[0].shape, (2**36, 32, 16, 1))
        scan2d(u, *inputs[1:], [0], [1])
    types = [dict(x.signature)['u_b'] for x in noted.compiled]
    assert types == ['i32', 'i64']


@pytest.mark.parametrize('autocast', AUTOCAST.values(), ids=AUTOCAST)
def test_plans_follow_the_settings(monkeypatch, autocast):
    inputs = map_inputs(batch=1, height=20, width=20, channels=16, rank=2, d_state=1, dtype=autocast or torch.float32)
    with stand_in() as noted:
        scan2d(*inputs, [0], [1])
        whole = noted.launches
        monkeypatch.setattr(triton_plan, 'SPLIT', True)
        scan2d(*inputs, [0], [1])
        assert (whole, noted.launches) == (1, 1 + 3)
        narrow = len(noted.compiled)
        monkeypatch.setattr(triton_plan, 'WIDE', 0)
        scan2d(*inputs, [0], [1])
        assert not any('WIDE=True' in str(x) for x in noted.compiled[:narrow])
        assert any('WIDE=True' in str(x) for x in noted.compiled[narrow:])


def test_settings_are_all_there_are():
    """A plan that was made under other settings would be taken for one of these."""
    source = ast.parse(inspect.getsource(triton_plan))
    assigned = [x for x in ast.walk(source) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)]
    constants = {x.id for x in assigned if x.id.isupper()}
    (settings,) = (x for x in source.body if isinstance(x, ast.FunctionDef) and x.name == 'settings')
    # what the kernels project is an argument of a plan
    assert constants - {'LOW_RANK'} == {x.id for x in ast.walk(settings) if isinstance(x, ast.Name) and x.id.isupper()}


@pytest.mark.parametrize('programs', [1, 2, 4, 6, 12, 100, 256, 600, 1055, 1056, 2000])
@pytest.mark.parametrize('blocks', [1, 40, 157, 628, 12800])
def test_chunks_waste_no_wave(monkeypatch, programs, blocks):
    """No other number of chunks in as many waves or fewer takes less; a cut reads its maps once more."""
    monkeypatch.setattr(triton_plan, '_processors', lambda device: PROCESSORS)
    resident, keep = triton_plan.WARPS * PROCESSORS, 5
    least = -(-triton_plan.CHUNK // keep)

    def cost(size):
        count = -(-blocks // size)
        waves = -(-programs * count // resident)
        return waves, waves * size * (triton_plan.SPLIT_COST if count > 1 else 1)

    size, count = triton_plan.chunks(programs, blocks, keep, torch.device('cpu'))
    assert (count - 1) * size < blocks <= count * size
    assert count == 1 or size >= least
    others = [cost(x) for x in range(least, blocks)] + [cost(blocks)]
    allowed = [found for waves, found in others if waves <= triton_plan.WAVES or programs >= resident]
    if programs < resident:
        assert cost(size)[1] == min(allowed)
    else:
        assert count == 1
