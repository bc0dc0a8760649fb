import pytest
import torch
from scan_cases import map_inputs, selective_inputs, with_gradients

from mmmsvmamba.kernels import backend, reference, scan2d, selective_scan


@pytest.fixture(autouse=True)
def unforced(monkeypatch):
    monkeypatch.delenv(backend.VARIABLE, raising=False)


def scan_map(*inputs):
    return scan2d(*inputs, [2, 1], [2])


def test_cpu_tensors_run_the_slabs():
    assert backend.choose('cpu') == backend.choose(torch.device('cpu')) == 'torch'
    assert backend.describe().startswith('torch (')


@pytest.mark.parametrize('name', ['reference', 'torch'])
@pytest.mark.parametrize('device', ['cpu', 'cuda:1'])
def test_forced_on_any_device(monkeypatch, name, device):
    monkeypatch.setenv(backend.VARIABLE, name)
    assert backend.choose(device) == name
    assert backend.describe(device) == f'{name} (forced by MMMSVMAMBA_BACKEND)'


def test_unknown_name(monkeypatch):
    monkeypatch.setenv(backend.VARIABLE, 'tritn')
    message = r"MMMSVMAMBA_BACKEND='tritn' is unknown; choose one of reference, torch, triton or unset it"
    with pytest.raises(ValueError, match=message):
        scan_map(*map_inputs())
    with pytest.raises(ValueError, match=message):
        backend.choose('cuda')
    assert backend.describe().startswith('none: MMMSVMAMBA_BACKEND')


@pytest.mark.parametrize('device, forced', [('cuda', ''), ('cuda', 'triton'), ('cpu', 'triton')])
def test_devices_without_kernels_say_the_way_on(monkeypatch, device, forced):
    monkeypatch.setenv(backend.VARIABLE, forced)
    with pytest.raises(RuntimeError, match=f'no Triton kernels for {device} tensors') as error:
        backend.choose(device)
    assert 'MMMSVMAMBA_BACKEND=torch' in str(error.value)
    assert backend.describe(device) == f'none: {error.value}'


def test_reference_forced_is_the_reference(monkeypatch):
    ours = with_gradients(scan_map, map_inputs())
    definition = with_gradients(lambda *x: reference.scan2d(*x, [2, 1], [2]), map_inputs())
    monkeypatch.setenv(backend.VARIABLE, 'reference')
    y, grads = with_gradients(scan_map, map_inputs())
    assert torch.equal(y, definition[0]) and not torch.equal(y, ours[0])
    assert all(torch.equal(a, b) for a, b in zip(grads, definition[1], strict=True))

    y, grads = with_gradients(selective_scan, selective_inputs(groups=2, skip=False))
    definition = with_gradients(reference.selective_scan, selective_inputs(groups=2, skip=False))
    assert torch.equal(y, definition[0])
    assert grads[5] is None
    assert all(torch.equal(a, b) for a, b in zip(grads, definition[1], strict=True) if a is not None)


def test_reference_forced_keeps_dtypes(monkeypatch):
    monkeypatch.setenv(backend.VARIABLE, 'reference')
    inputs = map_inputs(dtype=torch.bfloat16)
    inputs[6] = inputs[6].float()
    y, grads = with_gradients(scan_map, inputs)
    assert y.dtype == torch.bfloat16
    assert [grad.dtype for grad in grads] == [x.dtype for x in inputs]


def test_torch_forced_is_the_default(monkeypatch):
    default = with_gradients(scan_map, map_inputs())
    monkeypatch.setenv(backend.VARIABLE, 'torch')
    y, grads = with_gradients(scan_map, map_inputs())
    assert torch.equal(y, default[0])
    assert all(torch.equal(a, b) for a, b in zip(grads, default[1], strict=True))
