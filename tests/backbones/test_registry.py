"""The backbone is found from every OpenMMLab library, and by a config that does no more than name the package."""

import subprocess
import sys

import pytest
from mmdet.registry import MODELS as DET_MODELS
from mmengine.registry import MODELS, DefaultScope, Registry
from mmpretrain.registry import MODELS as PRETRAIN_MODELS
from mmseg.registry import MODELS as SEG_MODELS

from mmmsvmamba import MSVMamba

CFG = dict(type='MSVMamba', arch=dict(base='nano', depths=[1, 1, 1, 1], dims=8))


@pytest.mark.parametrize(
    'registry', [MODELS, DET_MODELS, SEG_MODELS, PRETRAIN_MODELS], ids=lambda registry: registry.scope
)
def test_found_by_its_name(registry):
    assert isinstance(registry.build(CFG), MSVMamba)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_found_from_a_default_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert isinstance(MODELS.build(CFG), MSVMamba)


def test_found_from_any_other_library():
    """As from mmpose, whose registry is a child of the root like those of the others."""
    child = Registry('model', parent=MODELS, scope='a_library_like_mmpose', locations=[])
    assert isinstance(child.build(CFG), MSVMamba)


def test_an_error_in_the_options_reaches_the_user():
    with pytest.raises(Exception, match="unknown arch 'nanno'.*known are nano, micro"):
        DET_MODELS.build(dict(type='MSVMamba', arch='nanno'))


def test_a_config_imports_what_it_needs(tmp_path):
    """In a new process that knows nothing of this package but what the config says."""
    config = tmp_path / 'config.py'
    config.write_text(f"custom_imports = dict(imports=['mmmsvmamba'])\ndefault_scope = 'mmdet'\nmodel = {CFG!r}\n")
    program = (
        'from mmengine.config import Config; from mmengine.registry import MODELS, init_default_scope; '
        f'cfg = Config.fromfile({str(config)!r}); init_default_scope(cfg.default_scope); '
        'from mmdet.registry import MODELS; print(type(MODELS.build(cfg.model)).__name__)'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == 'MSVMamba'
