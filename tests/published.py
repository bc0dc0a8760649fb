"""The authors' models as the reference folder describes them: key names and shapes, random weights, expected outputs.

The folder stands beside the repository. Its weights are random, seeded by key: comparing
numbers needs nothing trained.
"""

import importlib.util
import json
import re
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmmsvmamba import MSVMamba, VMamba
from mmmsvmamba.backbones.hierarchical import HierarchicalBackbone

REFERENCE = Path(__file__).resolve().parents[2] / 'shared' / 'reference'

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f'no {REFERENCE}, where key names and outputs of the published models are'
)

#: Our name of a hierarchical architecture -> its name in the folder.
MODELS = {
    'nano': 'msvmamba_nano',
    'micro': 'msvmamba_micro',
    'tiny': 'msvmamba_tiny',
    'tiny-v3': 'msvmamba_v3tiny',
    'small-v3': 'msvmamba_v3small',
    'base-v3': 'msvmamba_v3base',
    'tiny-v0': 'vmamba_v0_tiny',
    'small-v0': 'vmamba_v0_small',
    'base-v0': 'vmamba_v0_base',
    'tiny-s2l5': 'vmamba_tiny_s2l5_0230',
    'small-s2l15': 'vmamba_small_s2l15_0229',
    'base-s2l15': 'vmamba_base_s2l15_0229',
    'tiny-s1l8': 'vmamba_tiny_s1l8_0230s',
    'small-s1l20': 'vmamba_small_s1l20_0229s',
    'base-s1l20': 'vmamba_base_s1l20_0229s',
}
#: Those with expected outputs.
GOLDEN = ('nano', 'tiny', 'tiny-v3', 'tiny-v0', 'tiny-s1l8')


def backbone_class(arch: str) -> type[HierarchicalBackbone]:
    """The backbone that has an architecture."""
    return next(kind for kind in (MSVMamba, VMamba) if arch in kind.arch_settings)


def shapes(arch: str, kind: str) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a published state dict; kind is 'backbone' or 'cls'."""
    manifest = json.loads((REFERENCE / 'manifests' / f'{MODELS[arch]}_{kind}.json').read_text())
    return {key: tuple(shape) for key, (shape, _) in manifest.items()}


def shallow(keys: dict, depths: list[int]) -> dict:
    """The keys of a model with fewer blocks."""
    place = {key: re.match(r'layers\.(\d)\.blocks\.(\d+)\.', key) for key in keys}
    return {key: keys[key] for key, match in place.items() if not match or int(match[2]) < depths[int(match[1])]}


@lru_cache(maxsize=2)
def weights(arch: str, seed: int = 0, kind: str | None = None) -> dict[str, Tensor]:
    """Random weights, by default with both classifier and output norms; not to be written into."""
    keys = shapes(arch, kind) if kind else {**shapes(arch, 'cls'), **shapes(arch, 'backbone')}
    return random_weights().make_state_dict(keys, seed)


@lru_cache
def golden(arch: str) -> dict:
    """Seed of the weights and, for each case, input, four features and logits."""
    return torch.load(REFERENCE / 'golden' / f'{MODELS[arch]}.pt', weights_only=True)


@lru_cache
def random_weights():
    """The module that makes the weights."""
    spec = importlib.util.spec_from_file_location('reference_random_weights', REFERENCE / 'random_weights.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
