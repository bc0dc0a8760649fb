"""What a wheel holds, and that its configs and index are found where mim and people look for them."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: What the package is built from; all else stays out of the copy.
SOURCES = ('configs', 'kernels', 'mmmsvmamba', 'tools', 'tests', 'benchmarks', 'docs')

BUILD = 'from setuptools import build_meta; print(build_meta.build_wheel({folder!r}))'

LOOK_UP = """
from pathlib import Path

import mmmsvmamba, mmmsvmamba.kernels
from mmengine.config import Config
from mmmsvmamba.engine.options import read_config
from modelindex import load_model_index

package = Path(mmmsvmamba.__path__[0])
print(package)
print(Path(mmmsvmamba.kernels.__path__[0]))
index = load_model_index.load(str(package / '.mim/model-index.yml'))
missing = [model.config for model in index.models if not (package / '.mim' / model.config).is_file()]
print(len(index.models.data), missing, index.check(silent=True))
print(Config.fromfile(package / '.mim/configs/mask_rcnn_msvmamba_s_v3_3x.py').model.backbone.arch)
print(Config.fromfile('based_on_it.py').model.backbone.drop_path_rate)
print(read_config('configs/mask_rcnn_msvmamba_n_1x.py', None).model.backbone.arch)
"""
BASED_ON_IT = """
_base_ = [__import__('mmmsvmamba').__path__[0] + '/.mim/configs/mask_rcnn_msvmamba_t_1x.py']
model = dict(backbone=dict(drop_path_rate=0.07))
"""


def run_python(script: str, cwd: Path, path: str = '') -> list[str]:
    """Runs a script in a fresh interpreter and returns the lines that it prints."""
    environment = os.environ | {'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.splitlines()


def files_below(folder: Path, *patterns: str) -> set[str]:
    return {str(path.relative_to(folder)) for pattern in patterns for path in folder.glob(pattern)}


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, for building writes beside the sources."""
    copy = tmp_path_factory.mktemp('sources')
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    return copy / run_python(BUILD.format(folder=str(copy)), copy)[-1]


@pytest.fixture(scope='module')
def names(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_nothing_is_at_the_top_but_the_package(names):
    """A bare `kernels` or `tests` would belong to another package."""
    assert {name.partition('/')[0] for name in names if '.dist-info/' not in name} == {'mmmsvmamba'}


def test_modules_are_all_there(names):
    modules = files_below(ROOT, 'mmmsvmamba/**/*.py')
    modules = {name for name in modules if not name.startswith('mmmsvmamba/.mim/')}
    kernels = {f'mmmsvmamba/{name}' for name in files_below(ROOT, 'kernels/**/*.py')}
    assert 'mmmsvmamba/kernels/ops.py' in kernels and 'mmmsvmamba/backbones/msvmamba.py' in modules
    assert modules | kernels <= names


def test_data_files_are_all_there(names):
    data = files_below(ROOT, *(f'mmmsvmamba/*/*{suffix}' for suffix in ('.txt', '.json', '.yml', '.csv', '.npy')))
    assert data <= names


def test_mim_folder_is_that_of_the_repository(wheel, names):
    brought = {name.removeprefix('mmmsvmamba/.mim/') for name in names if name.startswith('mmmsvmamba/.mim/')}
    assert brought == files_below(ROOT, 'model-index.yml', 'configs/**/*.py', 'tools/*.py', 'tools/*.sh')
    with zipfile.ZipFile(wheel) as archive:
        for name in brought:
            assert archive.read(f'mmmsvmamba/.mim/{name}') == (ROOT / name).read_bytes(), name


def test_links_make_the_same_folder_without_a_wheel():
    mim = ROOT / 'mmmsvmamba' / '.mim'
    links = {path.name: path for path in mim.iterdir()}
    assert set(links) == {'configs', 'tools', 'model-index.yml'}
    for name, link in links.items():
        assert link.is_symlink() and not Path(os.readlink(link)).is_absolute()
        assert link.resolve() == ROOT / name


def test_configs_and_index_of_an_unpacked_wheel(wheel, tmp_path):
    site = tmp_path / 'site'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (tmp_path / 'based_on_it.py').write_text(BASED_ON_IT)
    package, kernels, index, arch, drop_path, shipped = run_python(LOOK_UP, tmp_path, str(site))[-6:]
    assert Path(package) == site / 'mmmsvmamba' and Path(kernels) == site / 'mmmsvmamba' / 'kernels'
    count, missing, errors = index.split(maxsplit=2)
    assert int(count) > 20 and (missing, errors) == ('[]', '[]')
    assert (arch, drop_path, shipped) == ('small-v3', '0.07', 'nano')
