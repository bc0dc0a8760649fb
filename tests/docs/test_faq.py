"""docs/faq.md: the tests that it names exist, and what it quotes and claims beyond them holds."""

import importlib.util
import logging
import pickle
import re

import pytest
import torch
from mmdet.registry import MODELS as DET_MODELS
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from packaging.version import Version
from tiny_data import REPOSITORY, toy_config
from torch.utils.flop_counter import FlopCounterMode

from mmmsvmamba import MSVMamba
from mmmsvmamba.analysis import count_flops
from mmmsvmamba.checkpoints import CheckpointError
from mmmsvmamba.engine.guards import TrainingDiverged
from mmmsvmamba.kernels import backend
from mmmsvmamba.loading import load_file

FAQ = (REPOSITORY / 'docs/faq.md').read_text()
ANSWERS = dict(re.findall(r'^## (.*?)\n(.*?)(?=^## |\Z)', FAQ, re.M | re.S))
#: One block of each stage.
SMALL = dict(base='nano', depths=[1, 1, 1, 1], dims=16)


def block(title: str, language: str) -> str:
    """The one block of code of a language below a heading."""
    [code] = re.findall(rf'```{language}\n(.*?)```', ANSWERS[title], re.S)
    return code


def assert_quoted(title: str, message: str) -> None:
    """Checks that a message is the one quoted below a heading, where … stands for anything."""
    quote = block(title, 'text').strip()
    pattern = '.*'.join(re.escape(part.strip()) for part in quote.split('…'))
    assert re.search(pattern, message, re.S), f'{message!r} is not quoted as {quote!r}'


def rows(title: str) -> list[list[str]]:
    """The cells of the one table below a heading, without its head."""
    lines = [line for line in ANSWERS[title].splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]


@pytest.mark.parametrize('title', ANSWERS)
def test_every_answer_names_tests_that_exist(title):
    [named] = re.findall(r'<!-- tests: (.*?) -->', ANSWERS[title], re.S)
    for test in re.split(r',\s+', named):
        file, function = test.split('::')
        assert re.search(rf'^def {function}\(', (REPOSITORY / file).read_text(), re.M), test


def test_every_test_here_is_named():
    own = re.findall(r'^def (test_\w+)\(', (REPOSITORY / 'tests/docs/test_faq.py').read_text(), re.M)
    about_the_page = ('test_every_', 'test_paths_')
    assert [name for name in own if name not in FAQ and not name.startswith(about_the_page)] == []


def test_every_answer_is_listed():
    anchors = [re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in ANSWERS]
    assert re.findall(r'^- \[.*\]\(#(.*)\)$', FAQ, re.M) == anchors


def test_paths_exist():
    links = [link for link in re.findall(r'\]\(([^#)]+)', FAQ) if '://' not in link]
    commands = re.findall(r'^python (\S+\.py)', FAQ, re.M)
    assert len(links) > 3 and commands
    for path in [REPOSITORY / 'docs' / link for link in links] + [REPOSITORY / command for command in commands]:
        assert path.exists(), path


def test_nothing_is_compiled_at_installation():
    assert not (REPOSITORY / 'setup.py').exists()
    assert 'requires = ["setuptools>=64"]' in (REPOSITORY / 'pyproject.toml').read_text()
    files = [path for folder in ('kernels', 'mmmsvmamba', 'tools') for path in (REPOSITORY / folder).rglob('*.*')]
    sources = [path for path in files if path.is_file() and '__pycache__' not in path.parts]
    assert not {path.suffix for path in sources} & {'.cpp', '.cu', '.cuh', '.c', '.so', '.pyx'}
    imports = re.compile(r'^\s*(?:import|from) (?:selective_scan|mamba_ssm)', re.M)
    assert [path for path in sources if path.suffix == '.py' and imports.search(path.read_text())] == []


def test_locked_originals_work_together():
    pins = {}
    for name in ('build', 'lock'):
        lines = (REPOSITORY / f'requirements/{name}-originals-py311.txt').read_text().splitlines()
        pins |= dict(line.split('==') for line in lines if not line.startswith('#'))
    assert pins['mmcv'] == '2.1.0' and pins['mmdet'] == '3.3.0' and pins['mmsegmentation'] == '1.2.2'
    assert Version(pins['setuptools']) < Version('82') and Version(pins['numpy']) < Version('2')
    assert not any(name.startswith('onedl') for name in pins)


def test_registry_messages(monkeypatch):
    monkeypatch.delitem(MODELS._module_dict, 'MSVMamba')
    with pytest.raises(KeyError) as error:
        DET_MODELS.build(dict(type='MSVMamba', arch='nano'))
    assert_quoted('MSVMamba is not in the model registry', f'KeyError: {error.value}')
    with pytest.raises(KeyError, match='MaskRCNN is not in the mmengine::model registry'):
        MODELS.build(dict(type='MaskRCNN'))


def test_own_custom_imports_replace_the_list(tmp_path):
    line = block('MSVMamba is not in the model registry', 'python')
    (tmp_path / 'base.py').write_text(line)
    (tmp_path / 'child.py').write_text("_base_ = 'base.py'\ncustom_imports = dict(imports=['colorsys'])")
    assert Config.fromfile(tmp_path / 'base.py').custom_imports.imports == ['mmmsvmamba']
    assert Config.fromfile(tmp_path / 'child.py').custom_imports.imports == ['colorsys']


def test_failed_imports(tmp_path, monkeypatch):
    line = block('MSVMamba is not in the model registry', 'python').replace('mmmsvmamba', 'mmmsvmamba_elsewhere')
    (tmp_path / 'strict.py').write_text(line)
    (tmp_path / 'lax.py').write_text(line.replace('False', 'True'))
    with pytest.raises(ImportError, match='mmmsvmamba_elsewhere') as error:
        Config.fromfile(tmp_path / 'strict.py')
    causes = [error.value]
    while causes[-1].__context__:
        causes.append(causes[-1].__context__)
    assert "No module named 'mmmsvmamba_elsewhere'" in str(causes[-1])
    with pytest.warns(UserWarning, match='mmmsvmamba_elsewhere failed to import'):
        Config.fromfile(tmp_path / 'lax.py')


def test_a_base_of_mmseg_by_its_path(tmp_path):
    pytest.importorskip('mmseg')
    (tmp_path / 'config.py').write_text(block('mmsegmentation is not installed', 'python'))
    assert Config.fromfile(tmp_path / 'config.py').default_scope == 'mmseg'


def test_pretrained_of_a_segmentor():
    registry = pytest.importorskip('mmseg.registry').MODELS
    head = dict(type='FCNHead', in_channels=128, in_index=3, channels=8, num_classes=3)
    model = dict(type='EncoderDecoder', backbone=dict(type='MSVMamba', arch=SMALL), decode_head=head)
    with pytest.raises(TypeError, match="MSVMamba has no option 'pretrained'"):
        registry.build(Config(model | dict(pretrained='open-mmlab://resnet50_v1c')))
    assert isinstance(registry.build(Config(model | dict(pretrained=None))).backbone, MSVMamba)


def test_message_for_keys_that_do_not_fit():
    model = MSVMamba('nano')
    weights = model.state_dict()
    del weights['stem.norm.weight'], weights['stem.norm.bias']
    weights['stem.conv.weight'] = weights['stem.conv.weight'][:24]
    with pytest.raises(CheckpointError) as error:
        model.load_state_dict(weights)
    assert_quoted('Keys do not match', str(error.value))
    with pytest.raises(CheckpointError, match='the file holds no weights for this MSVMamba'):
        torch.nn.ModuleDict(dict(backbone=model)).load_state_dict({'trunk.stem.conv.weight': torch.rand(1)})


def test_training_in_bfloat16_is_finite():
    torch.manual_seed(0)
    model, images = MSVMamba(SMALL).train(), 100 * torch.randn(2, 3, 37, 50)
    expected = model(images)
    with torch.autocast('cpu', torch.bfloat16):
        maps = model(images)
        loss = sum((x * torch.randn_like(x)).sum() for x in maps)
    loss.backward()
    for x, exact in zip(maps, expected, strict=True):
        torch.testing.assert_close(x.float(), exact, atol=0.1, rtol=0.1)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_guard_of_a_stock_runner(tmp_path):
    lines: dict = {}
    exec(block('The loss becomes NaN', 'python'), lines)  # noqa: S102
    import_modules_from_strings(**lines['custom_imports'])
    config = toy_config(tmp_path, values=[1.0, 1.0, 1.0, float('nan'), 1.0])
    with pytest.raises(TrainingDiverged, match='iteration 4'):
        Runner(**config, custom_hooks=lines['custom_hooks']).train()
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_2.pth']


def test_the_choice_is_logged_once(monkeypatch, caplog):
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    backend._chosen.clear()
    with caplog.at_level(logging.INFO, 'mmmsvmamba.kernels.backend'):
        backend.choose('cpu')
        backend.choose('cpu')
    [record] = caplog.records
    assert record.levelno == logging.INFO and record.name in ANSWERS['It is slow']
    assert record.getMessage().startswith('selective scan runs on the torch backend: CPU tensors')


@pytest.mark.parametrize('row', rows('Which image sizes work'), ids=lambda row: row[0])
def test_table_of_sizes(row):
    archs, *sizes = row
    for arch in re.findall(r'`(.*?)`', archs):
        with torch.device('meta'):
            maps = MSVMamba(arch)(torch.empty(1, 3, 97, 131))
        assert [f'{x.shape[2]}×{x.shape[3]}' for x in maps] == sizes


def test_an_fpn_takes_odd_sizes():
    with torch.device('meta'):
        neck = DET_MODELS.build(dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=8, num_outs=5))
        for base in ('nano', 'tiny-v3'):
            maps = MSVMamba(dict(SMALL, base=base))(torch.empty(1, 3, 97, 131))
            levels = neck(maps)
            assert [x.shape[2:] for x in levels[:4]] == [x.shape[2:] for x in maps]


@pytest.mark.skipif(Version(torch.__version__) < Version('2.6'), reason='torch opens everything before 2.6')
def test_plain_torch_refuses_a_history(tmp_path):
    file = tmp_path / 'iter_1.pth'
    torch.save(dict(message_hub=HistoryBuffer([1.0], [1])), file)
    with pytest.raises(pickle.UnpicklingError) as error:
        torch.load(file)
    assert_quoted('Weights only load failed', f'_pickle.UnpicklingError: {error.value}')
    assert isinstance(load_file(file)['message_hub'], HistoryBuffer)


@pytest.mark.skipif(not hasattr(torch.library, 'custom_op'), reason='before torch 2.4 counters look into the scan')
def test_table_of_flops():
    model, image = MSVMamba('nano').eval(), torch.rand(1, 3, 224, 224)
    ours = count_flops(model, image.shape)
    with torch.no_grad():
        mmengines = FlopAnalyzer(model, image).unsupported_ops_warnings(False)
        with FlopCounterMode(display=False) as torchs:
            model(image)
    products = mmengines.by_operator()['linear'] + ours.by_operator['conv']
    inside = ours.by_operator['conv'] + ours.by_operator['matmul'] - products
    left_out = ours.by_operator['scan'] + ours.by_operator['avg_pool'] + inside
    assert inside > 0 and mmengines.total() == ours.total - left_out
    assert torchs.get_total_flops() == 2 * products
    totals = [ours.total, mmengines.total(), torchs.get_total_flops()]
    assert [row[1] for row in rows('FLOPs differ from tool to tool')] == [f'{total / 1e9:.3f}' for total in totals]


@pytest.mark.skipif(importlib.util.find_spec('ptflops') is None, reason='ptflops is in the set of the originals alone')
def test_ptflops_counts_the_implementation(monkeypatch):
    from ptflops import get_model_complexity_info

    counts = set()
    for name in ('torch', 'reference'):
        monkeypatch.setenv(backend.VARIABLE, name)
        options = dict(as_strings=False, print_per_layer_stat=False, verbose=False, backend='pytorch')
        counts.add(get_model_complexity_info(MSVMamba(SMALL), (3, 32, 32), **options)[0])
    assert len(counts) == 2
