"""The environment: fixes that make the libraries importable, and the versions that are too old."""

import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from tiny_data import ENVIRONMENT

from mmmsvmamba import environment


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', code], env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )


def test_torchvision_imports_after_prepare_whatever_build_it_is():
    run = python('from mmmsvmamba import environment as e; e.prepare(); e.prepare(); import torchvision, mmdet.models')
    assert run.returncode == 0, run.stderr


def test_prepare_leaves_working_operators_alone(monkeypatch):
    """Where the operators are declared, by torchvision or by an earlier call, nothing is declared again."""
    environment.prepare()
    monkeypatch.delitem(sys.modules, 'torchvision', raising=False)
    monkeypatch.setattr(environment, '_declared_ops', None)
    environment.prepare()
    assert environment._declared_ops is None


def test_nothing_of_openmmlab_is_needed_at_import():
    """On a machine with torch alone the package imports, and the kernels run."""
    code = """
import sys
missing = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torchvision', 'rich')
sys.modules.update(dict.fromkeys(missing))
from mmmsvmamba import environment, kernels
environment.prepare()
environment.check_versions()
assert not [name for name in sys.modules if name.split('.')[0] in missing and sys.modules[name]]
"""
    run = python(code)
    assert run.returncode == 0, run.stderr


def test_configs_may_be_based_on_mmseg(tmp_path):
    """mmengine looks for a distribution `mmsegmentation`, which the forks do not have."""
    pytest.importorskip('mmseg')
    environment.prepare()
    (tmp_path / 'child.py').write_text("_base_ = ['mmseg::_base_/default_runtime.py']")
    assert Config.fromfile(str(tmp_path / 'child.py')).default_scope == 'mmseg'


@pytest.mark.parametrize('version', ['2.0.1', '1.13.0+cu117'])
def test_torch_too_old(monkeypatch, version):
    monkeypatch.setattr(torch, '__version__', version)
    with pytest.raises(RuntimeError, match=r'needs torch >= 2\.1, found ' + version.replace('+', r'\+')):
        environment.check_versions()


@pytest.mark.parametrize('version', ['2.1.0', '2.13.0+cpu', '3.0.0a0+git123'])
def test_torch_new_enough(monkeypatch, version):
    monkeypatch.setattr(torch, '__version__', version)
    environment.check_versions()


def test_python_too_old(monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 9, 1))
    with pytest.raises(RuntimeError, match=r'needs Python >= 3\.10, found 3\.9\.1'):
        environment.check_versions()
