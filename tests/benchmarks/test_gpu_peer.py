"""mamba-ssm's scan as a peer: called as its compiled module asks for, and what becomes of one that does not run."""

import sys
import types

import fake_cuda_scan
import gpu_kernels
import gpu_peer
import pytest
import scan_speed
import torch
from worker import Settings, Skip

from mmmsvmamba.kernels import reference

CPU = torch.device('cpu')


@pytest.fixture
def peer(monkeypatch):
    monkeypatch.setitem(sys.modules, 'selective_scan_cuda', fake_cuda_scan)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str)
def test_values_and_gradients(peer, dtype, tolerance):
    contenders = gpu_peer.contenders(gpu_peer.problem(CPU, (2, 3, 2, 4), dtype), 2, 4)
    # with a gradient that is not contiguous, as one of a transposed output
    grad = torch.randn(2, 8, 3).to(dtype).mT
    found = {}
    for name, contender in contenders.items():
        if name == 'scan2d':
            continue
        inputs = [x.detach().requires_grad_() for x in contender.inputs]
        y = contender.function(*inputs)
        assert y.dtype == dtype
        found[name] = [y, *torch.autograd.grad(y, inputs, grad)]
    for a, b in zip(found['mamba-ssm'], found['selective_scan'], strict=True):
        torch.testing.assert_close(a.reshape(b.shape), b, rtol=tolerance, atol=tolerance)


def test_the_three_do_the_same_work(peer, monkeypatch):
    monkeypatch.setattr(gpu_kernels, 'device_seconds', lambda run, device, budget: run() is None)
    contenders = gpu_peer.contenders(gpu_peer.problem(CPU, (2, 3, 2, 4), torch.float32), 2, 4)
    expected, _ = gpu_peer.passes(contenders.pop('mamba-ssm'), CPU, backward=True)
    assert [x.shape for x in expected] == [(2, 3, 8), (3,)]
    for contender in contenders.values():
        torch.testing.assert_close(gpu_peer.passes(contender, CPU, backward=True)[0], expected)
    assert contenders.keys() == {'selective_scan', 'scan2d'}


def test_in_the_comparison_of_scans(peer):
    u, B, C = (torch.randn(2, 5, size) for size in (3, 2, 2))
    delta, A, D, bias = torch.randn(2, 5, 3), -torch.rand(3, 2), torch.rand(3), torch.rand(3)
    function, inputs, to_tokens = scan_speed.GPU_SETUPS['mamba-ssm'](u, delta, A, B, C, D, bias)
    expected = reference.selective_scan(u.mT, delta.mT, A, B.mT, C.mT, D, bias, delta_softplus=True)
    torch.testing.assert_close(to_tokens(function(*inputs)), expected.mT)


@pytest.mark.parametrize(
    'module, reason',
    [
        (None, 'selective_scan_cuda is not installed'),
        (types.ModuleType('selective_scan_cuda'), 'mamba-ssm does not run here: AttributeError'),
    ],
    ids=['missing', 'another'],
)
def test_without_it_the_step_is_skipped(module, reason, monkeypatch):
    monkeypatch.setitem(sys.modules, 'selective_scan_cuda', module)
    monkeypatch.setattr(gpu_kernels, 'need_cuda', lambda settings: None)
    monkeypatch.setattr(gpu_kernels, 'SHAPES', {'batch2-1280x800': (1, 2, 2)})
    with pytest.raises(Skip, match=reason):
        gpu_peer.beside(Settings(CPU, tiny=True), 'batch2-1280x800', backward=True)


def test_it_runs_at_both_shapes_and_in_both_modes():
    names = {step.name for step in gpu_peer.TIMINGS}
    assert names == {
        f'time/against/mamba-ssm/{mode}/{shape}'
        for mode in ('forward', 'full')
        for shape in ('batch128-224', 'batch2-1280x800')
    }
    assert (gpu_kernels.SHAPES['batch128-224'], gpu_kernels.CHANNELS) == ((128, 56, 56), 192)
    assert gpu_kernels.SHAPES['batch2-1280x800'] == (2, 200, 320)
