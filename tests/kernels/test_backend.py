import pytest
import torch
from scan_cases import map_inputs, selective_inputs, with_gradients
from torch._subclasses.fake_tensor import FakeTensorMode

from mmmsvmamba.kernels import backend, reference, scan2d, selective_scan, triton_plan


@pytest.fixture(autouse=True)
def unforced(monkeypatch):
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    monkeypatch.setattr(backend, '_chosen', {})


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


@pytest.mark.parametrize(
    'forced, reason', [('', 'GPU tensors; Triton 3.3.1'), ('triton', 'forced by MMMSVMAMBA_BACKEND')]
)
def test_gpu_tensors_run_triton(monkeypatch, forced, reason):
    monkeypatch.setenv(backend.VARIABLE, forced)
    monkeypatch.setattr(backend, '_triton_version', lambda: '3.3.1')
    assert backend.choose('cuda') == backend.choose('cuda:1') == 'triton'
    assert backend.describe('cuda') == f'triton ({reason})'


@pytest.mark.parametrize(
    'version, found', [(None, 'Triton is not installed'), ('3.2.0', 'Triton 3.2.0'), ('2.10.0+rocm', 'Triton 2.10.0')]
)
def test_gpu_tensors_without_a_triton_that_will_do(monkeypatch, version, found):
    monkeypatch.setattr(backend, '_triton_version', lambda: version)
    with pytest.raises(RuntimeError, match=r'needs Triton 3\.3 or newer') as error:
        backend.choose('cuda')
    for words in (found, "pip install 'triton>=3.3'", 'MMMSVMAMBA_BACKEND=torch'):
        assert words in str(error.value)
    assert backend.describe('cuda') == f'none: {error.value}'
    monkeypatch.setenv(backend.VARIABLE, 'torch')
    assert backend.choose('cuda') == 'torch'


def test_triton_version_is_that_of_the_module():
    assert backend._triton_version() == pytest.importorskip('triton').__version__


def test_triton_on_a_cpu_is_for_the_interpreter_alone(monkeypatch):
    monkeypatch.setenv(backend.VARIABLE, 'triton')
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    with pytest.raises(RuntimeError, match='TRITON_INTERPRET=1 before Python starts') as error:
        scan_map(*map_inputs())
    assert 'unset MMMSVMAMBA_BACKEND' in str(error.value)


@pytest.mark.parametrize('device', ['mps', 'xpu'])
def test_devices_without_kernels_say_the_way_on(monkeypatch, device):
    for forced in ('', 'triton'):
        monkeypatch.setenv(backend.VARIABLE, forced)
        with pytest.raises(RuntimeError, match=f'no Triton kernels for {device} tensors') as error:
            backend.choose(device)
        assert 'MMMSVMAMBA_BACKEND=torch' in str(error.value)


@pytest.mark.skipif(not hasattr(torch.library, 'custom_op'), reason='operators can be called from torch 2.4 on')
def test_fake_gpu_tensors_ask_for_the_states_that_triton_keeps(monkeypatch):
    monkeypatch.setattr(backend, '_triton_version', lambda: '3.7.1')
    with FakeTensorMode(allow_non_fake_inputs=False):
        inputs = [torch.empty(x.shape, device='cuda') for x in map_inputs(height=9, width=7, d_state=1)]
        y, states = torch.ops.mmmsvmamba.scan2d(*inputs, [2, 1], [2], False, True)
    assert y.shape == (2, 9, 7, 2, 5) and y.device.type == 'cuda'
    assert states.shape == (2 * triton_plan.blocks(63, 1), 2, 5) and states.dtype == torch.float32


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


@pytest.mark.parametrize('capability, name', [((6, 1), None), ((7, 5), 'triton'), ((10, 0), 'triton')], ids=str)
def test_gpus_that_triton_makes_no_code_for(monkeypatch, capability, name):
    monkeypatch.setattr(backend, '_triton_version', lambda: '3.6.0')
    monkeypatch.setattr(backend, '_compute_capability', lambda device: capability)
    if name:
        assert backend.choose('cuda:1') == name
        return
    with pytest.raises(
        RuntimeError, match=r'cuda:1 has compute capability 6\.1, and Triton compiles for 7\.0 and newer'
    ):
        backend.choose('cuda:1')
    monkeypatch.setenv(backend.VARIABLE, 'torch')
    assert backend.choose('cuda:1') == 'torch'
