"""tools/check_env.py: what it prints, and its exit code where something is missing."""

import importlib.util
import sys
from importlib import metadata

import pytest
from tiny_data import REPOSITORY, run_tool

TOOL = REPOSITORY / 'tools/check_env.py'


@pytest.fixture
def check_env():
    spec = importlib.util.spec_from_file_location('check_env', TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules['check_env'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['check_env']


@pytest.fixture
def installed(monkeypatch):
    """Changes what is installed: `installed(mmdet=[])` takes a package away."""
    real = metadata.packages_distributions()

    def change(**packages: list[str]):
        monkeypatch.setattr(metadata, 'packages_distributions', lambda: real | packages)

    return change


def test_this_environment_is_complete(tmp_path):
    run = run_tool(TOOL, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert 'Everything needed is here.' in run.stdout
    for package in ('torch', 'mmcv', 'mmdet', 'numpy', 'pycocotools'):
        distribution = metadata.packages_distributions()[package][0]
        assert metadata.version(distribution) in run.stdout
    assert 'mmcv.ops' in run.stdout and 'compiled' in run.stdout
    assert 'scan on cpu' in run.stdout and 'CPU tensors' in run.stdout


def test_says_whether_a_package_is_a_fork(check_env, installed, monkeypatch):
    version = metadata.version
    monkeypatch.setattr(
        metadata, 'version', lambda name: '3.3.0' if name in ('mmdet', 'onedl-mmseg') else version(name)
    )
    installed(mmdet=['mmdet'])
    rows = {name: (value, remark) for name, value, remark in check_env.inspect().rows}
    assert rows['mmdet'] == ('3.3.0', 'mmdet (original)')
    if metadata.packages_distributions()['mmengine'] == ['onedl-mmengine']:
        assert rows['mmengine'][1] == 'onedl-mmengine (fork)'


def test_missing_package(check_env, installed, monkeypatch, capsys):
    version = metadata.version
    monkeypatch.setattr(metadata, 'version', lambda name: '0' if name.startswith('onedl-') else version(name))
    installed(mmengine=['onedl-mmengine'], mmcv=['onedl-mmcv'], mmdet=[], mmseg=[])
    assert check_env.main() == 1
    output = capsys.readouterr().out
    assert 'problem: mmdet is missing: pip install --no-deps onedl-mmdetection==' in output
    assert 'optional: mmseg is missing: pip install --no-deps onedl-mmsegmentation==' in output
    assert '`make env`' in output


def test_missing_optional_package_is_no_problem(check_env, installed, capsys):
    installed(mmseg=[], mmpretrain=[])
    assert check_env.main() == 0
    assert 'only needed for segmentation' in capsys.readouterr().out


def test_original_is_proposed_beside_originals(check_env, installed, monkeypatch):
    version = metadata.version
    monkeypatch.setattr(metadata, 'version', lambda name: '0' if name.startswith('mm') else version(name))
    installed(mmengine=['mmengine'], mmcv=[], mmdet=[], mmseg=[], mmpretrain=[])
    report = check_env.inspect()
    # the newest mmcv is one that mmdet 3.3 refuses
    assert 'mmcv is missing: pip install --no-build-isolation --no-deps mmcv==2.1.0' in report.problems
    assert 'mmdet is missing: pip install --no-deps mmdet==3.3.0' in report.problems
    assert 'mmseg is missing: pip install --no-deps mmsegmentation==1.2.2' in report.hints


def test_fork_over_original(check_env, installed, monkeypatch):
    monkeypatch.setattr(metadata, 'version', lambda name: '1.0')
    installed(mmcv=['mmcv', 'onedl-mmcv'])
    [problem] = check_env.inspect().problems
    assert 'mmcv was installed twice' in problem and 'pip uninstall -y mmcv onedl-mmcv' in problem


def test_mmcv_without_operators(check_env, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'mmcv.ops', None)
    assert check_env.main() == 1
    output = capsys.readouterr().out
    name = metadata.packages_distributions()['mmcv'][0]
    command = 'pip install --no-build-isolation --no-deps --force-reinstall --no-cache-dir'
    assert f'{command} {name}=={metadata.version(name)}' in output
    assert 'not compiled' in output


def test_torch_too_old(check_env, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch, '__version__', '2.0.1')
    assert check_env.main() == 1
    assert 'needs torch >= 2.1, found 2.0.1' in capsys.readouterr().out


def test_scan_that_cannot_run(check_env, monkeypatch, capsys):
    monkeypatch.setenv('MMMSVMAMBA_BACKEND', 'fortran')
    assert check_env.main() == 1
    assert "problem: no scan on cpu: MMMSVMAMBA_BACKEND='fortran' is unknown" in capsys.readouterr().out
