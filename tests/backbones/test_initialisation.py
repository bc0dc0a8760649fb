"""The values that a backbone starts from, and that it starts from them again with the same seed."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmsvmamba import MSVMamba


@pytest.fixture(scope='module')
def nano():
    torch.manual_seed(0)
    return MSVMamba('nano')


def test_linear_layers_start_from_a_truncated_normal(nano):
    linear = [module for module in nano.modules() if isinstance(module, nn.Linear)]
    weights = torch.cat([module.weight.detach().flatten() for module in linear])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert abs(weights.mean().item()) < 1e-4
    for module in linear:
        if module.weight.numel() > 5000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert module.bias is None or not module.bias.any()


def test_norms_start_as_the_identity(nano):
    for module in nano.modules():
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and (module.bias == 0).all()
            assert module.eps == 1e-5


def test_convolutions_start_as_torch_has_them(nano):
    """Uniform within 1/√fan-in."""
    for module in nano.modules():
        if isinstance(module, nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert 0.8 * bound < module.weight.abs().max() <= bound
            assert 0.5 * bound < module.bias.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)


@pytest.mark.parametrize('states', [1, 8])
def test_the_state_space_models_start_as_mamba_has_them(states):
    torch.manual_seed(0)
    model = MSVMamba(dict(base='nano', depths=[1, 1, 1, 1], d_state=states))
    logs = []
    for name, scan in model.named_modules():
        if not name.endswith('.scan'):
            continue
        _, channels, rank = scan.dt_weight.shape
        assert torch.equal(scan.A_log, torch.arange(1, states + 1).log().expand(1, channels, states))
        assert (scan.D == 1).all()
        step = F.softplus(scan.dt_bias)
        assert step.min() >= 1e-3 * 0.999 and step.max() <= 1e-1 * 1.001
        logs.append(step.log().flatten())
        assert rank**-0.5 * 0.9 < scan.dt_weight.abs().max() <= rank**-0.5
        bound = channels**-0.5
        assert bound * 0.95 < scan.x_proj_weight.abs().max() <= bound
        assert scan.x_proj_weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    # log-uniform: the logarithm has the mean and the spread of a uniform distribution
    logs = torch.cat(logs)
    low, high = math.log(1e-3), math.log(1e-1)
    assert logs.mean().item() == pytest.approx((low + high) / 2, abs=0.1)
    assert logs.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.05)


def small(seed: int = 0) -> MSVMamba:
    torch.manual_seed(seed)
    return MSVMamba(dict(base='nano', depths=[1, 1, 1, 1], dims=16))


def test_a_seed_gives_the_same_model():
    first, same, other = small(3).state_dict(), small(3).state_dict(), small(4).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first['stem.conv.weight'], other['stem.conv.weight'])


def test_init_weights_without_init_cfg_keeps_the_values():
    model = small()
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
