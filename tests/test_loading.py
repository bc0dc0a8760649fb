"""Checkpoint files are read without running what they hold."""

import argparse
import contextlib
import io
import os
import pickle
import shutil
import sys
import tarfile
import types
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.fileio.backends import registry_utils
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import CheckpointLoader, Runner
from torch import nn

from mmmsvmamba.loading import CheckpointError, load_file


class Call:
    """Is pickled as a call of a function, which unpickling then makes."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call

    def __call__(self):
        """Its result may be called in turn."""


def attacks(marker) -> dict[str, object]:
    """Objects that create the file `marker` when they are unpickled."""
    command = f'touch {marker}'
    run = Call(os.system, command)
    inner = io.BytesIO()
    torch.save(run, inner)
    history = HistoryBuffer([1.0], [1])
    history.__dict__.update(_log_history=run, _statistics_methods={'mean': Call(os.system, command)})
    namespace = Call(getattr, Call(getattr, HistoryBuffer, 'update'), '__globals__')
    builtins = Call(Call(getattr, namespace, 'get'), '__builtins__')
    evaluate = Call(Call(getattr, builtins, 'get'), 'eval')
    return {
        'os.system': run,
        'eval': Call(eval, f"__import__('os').system('{command}')"),
        'nested load': Call(torch.storage._load_from_bytes, inner.getvalue()),
        'getattr of a history': Call(evaluate, f"__import__('os').system('{command}')"),
        'inside a history': history,
        'inside an array': np.array([run, None], dtype=object),
        'among weights': {'state_dict': {'stem.conv.weight': torch.rand(2), 'x': run}},
    }


ATTACKS = list(attacks('unused'))


def save(obj, path, form: str):
    if form == 'pickle':
        path.write_bytes(pickle.dumps(obj))
    elif form == 'tar':
        member = pickle.dumps(obj)
        with tarfile.open(path, 'w:') as tar:
            for name in ('storages', 'tensors', 'pickle', 'sys_info'):
                info = tarfile.TarInfo(name)
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))
    else:
        torch.save(obj, path, _use_new_zipfile_serialization=form == 'zip')
    return path


@pytest.fixture(params=['current torch', 'older torch'])
def torch_release(request, monkeypatch):
    """Releases before 2.6 cannot be told of further classes, and take another way."""
    if request.param == 'older torch':
        monkeypatch.delattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', raising=False)
    return request.param


@pytest.mark.parametrize('form', ['zip', 'legacy', 'pickle', 'tar'])
@pytest.mark.parametrize('attack', ATTACKS)
def test_code_in_a_file_does_not_run(attack, form, tmp_path, torch_release):
    marker = tmp_path / 'marker'
    path = save(attacks(marker)[attack], tmp_path / 'weights.pth', form)
    with pytest.raises(CheckpointError, match='weights.pth') as error:
        load_file(path)
    assert not marker.exists()
    assert len(str(error.value)) < 1000


def test_the_attacks_are_real(tmp_path, monkeypatch):
    """Each would run where pickles are trusted, so that the test above can fail."""
    # a trusted history also writes into its class
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', dict(HistoryBuffer._statistics_methods))
    for number, attack in enumerate(ATTACKS):
        marker = tmp_path / str(number)
        path = save(attacks(marker)[attack], tmp_path / 'weights.pth', 'zip')
        torch.load(path, weights_only=False)
        assert marker.exists(), attack


def test_the_message_names_the_object_and_a_safe_way_on(tmp_path, torch_release):
    for attack, name in (('os.system', 'system'), ('eval', 'eval')):
        path = save(attacks(tmp_path / 'marker')[attack], tmp_path / 'weights.pth', 'zip')
        with pytest.raises(CheckpointError, match=rf'{name}\b.*could run code.*state_dict') as error:
            load_file(path)
        assert 'weights_only' not in str(error.value), 'it passes on the advice to switch the check off'


# ---- broken files ----


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*none.pth'):
        load_file(tmp_path / 'none.pth')
    with pytest.raises(FileNotFoundError, match='no checkpoint at'):
        load_file(tmp_path)


@pytest.mark.parametrize('form', ['zip', 'legacy'])
def test_a_truncated_file(form, tmp_path, torch_release):
    path = save({'state_dict': {'a': torch.rand(300), 'b': torch.rand(5)}}, tmp_path / 'weights.pth', form)
    whole = path.read_bytes()
    for size in [0, 1, 2, 7, 20, *range(40, len(whole) - 1, 131), len(whole) - 5]:
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match='weights.pth'):
            load_file(path)


@pytest.mark.parametrize(
    'content',
    [
        b'<!DOCTYPE html><html>Quota exceeded</html>',
        b'\x80\x02}q\x00.',
        b'\x00' * 100,
        b'\x89PNG\r\n\x1a\n',
        b'PK\x03\x04broken',
        b'cos',
        b'(',
        b'.',
        b'0',
    ],
)
def test_a_file_that_is_no_checkpoint(content, tmp_path, torch_release):
    path = tmp_path / 'weights.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match='weights.pth'):
        load_file(path)


def test_bytes_changed_at_random_end_in_one_kind_of_error(tmp_path, torch_release):
    path = save({'state_dict': {'a': torch.rand(3)}, 'meta': {'epoch': 3}}, tmp_path / 'weights.pth', 'legacy')
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(whole)
        for place in generator.integers(0, len(whole), size=3):
            changed[place] = generator.integers(0, 256)
        path.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            load_file(path)


# ---- files that are read ----


@pytest.mark.parametrize('form', ['zip', 'legacy'])
def test_plain_values(form, tmp_path, torch_release):
    given = {
        'state_dict': nn.Linear(2, 3).state_dict(),
        'half': torch.rand(3).half(),
        'bfloat16': torch.rand(3).bfloat16(),
        'parameter': nn.Parameter(torch.rand(2)),
        'values': [1, 2.5, 'text', None, True, (1, 2), {'a': {3, 4}}, b'bytes', torch.Size([1, 2]), torch.float16],
    }
    loaded = load_file(save(given, tmp_path / 'weights.pth', form))
    assert list(loaded) == list(given)
    for key in ('half', 'bfloat16', 'parameter'):
        assert torch.equal(loaded[key], given[key]) and loaded[key].dtype == given[key].dtype
    for key, value in given['state_dict'].items():
        assert torch.equal(loaded['state_dict'][key], value)
    assert loaded['values'] == given['values']


@pytest.mark.parametrize('form', ['zip', 'legacy'])
def test_the_configuration_in_a_published_file(form, tmp_path, torch_release, monkeypatch):
    """It is a yacs node, and yacs is not needed to read it."""
    package, config = types.ModuleType('yacs'), types.ModuleType('yacs.config')

    class CfgNode(dict):
        def __init__(self, values):
            super().__init__({key: CfgNode(v) if isinstance(v, dict) else v for key, v in values.items()})
            self.__dict__['__immutable__'] = True

    CfgNode.__module__, CfgNode.__qualname__ = 'yacs.config', 'CfgNode'
    config.CfgNode = package.config = CfgNode
    monkeypatch.setitem(sys.modules, 'yacs', package)
    monkeypatch.setitem(sys.modules, 'yacs.config', config)
    values = {'MODEL': {'DROP_PATH_RATE': 0.2, 'DEPTHS': [1, 2, 9, 2]}, 'TAG': 'tiny'}
    given = {'model': {'w': torch.rand(2)}, 'config': CfgNode(values), 'max_accuracy': 82.8, 'epoch': 292}
    path = save(given, tmp_path / 'weights.pth', form)
    monkeypatch.delitem(sys.modules, 'yacs')
    monkeypatch.delitem(sys.modules, 'yacs.config')

    loaded = load_file(path)
    assert torch.equal(loaded['model']['w'], given['model']['w'])
    assert loaded['config'] == values
    assert loaded['max_accuracy'] == 82.8
    assert 'yacs' not in sys.modules


def test_the_options_in_a_file_of_a_training_script(tmp_path, torch_release):
    """As DeiT's script writes them, which trained Vim."""
    options = argparse.Namespace(lr=1e-3, model='vim_tiny', eval=False)
    torch.save({'model': {'w': torch.ones(1)}, 'args': options}, tmp_path / 'vim.pth')
    assert load_file(tmp_path / 'vim.pth')['args'] == options


def test_numpy_1_26_has_an_empty_module_of_the_new_name(tmp_path, monkeypatch):
    path = save(dict(scalar=np.float64(3), array=np.arange(3)), tmp_path / 'weights.pth', 'zip')
    monkeypatch.setattr(np, '_core', types.ModuleType('numpy._core'), raising=False)
    loaded = load_file(path)
    assert loaded['scalar'] == 3 and loaded['array'].tolist() == [0, 1, 2]


@pytest.mark.parametrize('other_name', [False, True])
def test_numbers_of_numpy(other_name, tmp_path, torch_release):
    """Of either generation: the module of its internals was renamed between them."""
    kinds = (np.bool_, np.uint8, np.uint32, np.int32, np.int64, np.float32, np.float64)
    given = {kind.__name__: [kind(1), np.arange(3).astype(kind)] for kind in kinds}
    path = save(given, tmp_path / 'weights.pth', 'zip')
    if other_name:
        names = [b'numpy._core.', b'numpy.core.']
        with zipfile.ZipFile(path) as archive:
            content = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, 'w') as archive:
            for name, data in content.items():
                first, second = names if names[0] in data else reversed(names)
                archive.writestr(name, data.replace(first, second) if name.endswith('data.pkl') else data)
    loaded = load_file(path)
    for name, (scalar, array) in given.items():
        assert loaded[name][0] == scalar and loaded[name][0].dtype == scalar.dtype
        assert np.array_equal(loaded[name][1], array) and loaded[name][1].dtype == array.dtype


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.layer(torch.stack(inputs)).square().mean())


def train(work_dir, epochs: int, **kwargs) -> Runner:
    return Runner(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.rand(2)) for _ in range(4)], batch_size=2, sampler=dict(type='DefaultSampler')
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
            dict(type='MultiStepLR', milestones=[1, 2], gamma=0.1),
        ],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[dict(type='EMAHook')],
        cfg=Config(),
        **kwargs,
    )


def test_a_checkpoint_of_mmengine(tmp_path, torch_release):
    """With optimizer, schedulers, moving average and the history of the losses."""
    train(tmp_path, epochs=2, experiment_name=f'{tmp_path.name} first').train()
    loaded = load_file(tmp_path / 'epoch_2.pth')
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.mean() == pytest.approx(history.data[0].mean())
    assert {'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'meta'} <= set(loaded)

    resumed = train(
        tmp_path,
        epochs=3,
        experiment_name=f'{tmp_path.name} second',
        load_from=str(tmp_path / 'epoch_1.pth'),
        resume=True,
    )
    resumed.train()
    assert resumed.epoch == 3
    assert len(resumed.message_hub.get_scalar('train/loss').data[0]) == 6


# ---- the ways into mmengine ----


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch's folder of downloads, empty; a download copies a local file and is counted."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    downloads = []

    def download(url, dst, hash_prefix=None, progress=True):
        downloads.append(url)
        with open(dst, 'wb') as file:
            file.write((tmp_path / 'remote.pth').read_bytes())

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    return downloads


@pytest.mark.parametrize(
    'address',
    [
        'https://host/path/weights.pth?download=true',
        'http://host/weights.pth',
        'torchvision://resnet18',
        'modelzoo://resnet18',
        'open-mmlab://resnet18_v1c',
        'openmmlab://resnet18_v1c',
        'mmcls://resnet50',
    ],
)
def test_downloads_are_read_safely(address, tmp_path, hub):
    marker = tmp_path / 'marker'
    save({'state_dict': attacks(marker)['os.system']}, tmp_path / 'remote.pth', 'zip')
    with pytest.raises(CheckpointError):
        CheckpointLoader.load_checkpoint(address)
    assert not marker.exists()
    assert len(hub) == 1


@pytest.mark.parametrize(
    'address', ['s3://bucket/weights.pth', 'cluster:petrel://weights.pth', 'pavi://weights.pth', 'open-mmlab://local']
)
def test_other_stores_are_read_safely_or_not_at_all(address, tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    path = save({'state_dict': attacks(marker)['os.system']}, tmp_path / 'weights.pth', 'zip')

    class Petrel(LocalBackend):
        def get(self, filepath):
            return path.read_bytes()

        def get_local_path(self, filepath):
            return super().get_local_path(path)

    monkeypatch.setitem(registry_utils.backends, 'petrel', Petrel)
    modelcloud = types.SimpleNamespace(
        get=lambda name: types.SimpleNamespace(name=name, download=lambda to: shutil.copy(path, to))
    )
    monkeypatch.setitem(sys.modules, 'pavi', types.SimpleNamespace(modelcloud=modelcloud))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    (tmp_path / 'open_mmlab.json').write_text('{"local": "weights.pth"}')
    with pytest.raises(Exception):  # noqa: B017  whatever is raised, nothing has run
        CheckpointLoader.load_checkpoint(address)
    assert not marker.exists()


def test_a_download_is_made_once(tmp_path, hub):
    save({'state_dict': {'w': torch.ones(2)}}, tmp_path / 'remote.pth', 'zip')
    for _ in range(2):
        loaded = CheckpointLoader.load_checkpoint('https://host/path/weights.pth?download=true', map_location='cpu')
        assert torch.equal(loaded['state_dict']['w'], torch.ones(2))
    assert hub == ['https://host/path/weights.pth?download=true']
    assert (tmp_path / 'hub' / 'hub' / 'checkpoints' / 'weights.pth').is_file()


def test_a_local_file_is_read_safely(tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    path = save(attacks(marker)['os.system'], tmp_path / 'weights.pth', 'zip')
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in (str(path), '~/weights.pth'):
        with pytest.raises(CheckpointError):
            CheckpointLoader.load_checkpoint(name)
    assert not marker.exists()


@pytest.mark.parametrize('name', sorted(n for n in PARAM_SCHEDULERS.module_dict if not n.endswith('ParamScheduler')))
def test_every_scheduler_of_mmengine_resumes(tmp_path, name):
    """Whatever mmengine's schedulers keep in a checkpoint comes back."""
    options = {
        'OneCycle': dict(eta_max=1.0, total_steps=5),
        'MultiStep': dict(milestones=[2]),
        'Step': dict(step_size=2),
        'Exponential': dict(gamma=0.9),
        'CosineAnnealing': dict(T_max=5),
        'CosineRestart': dict(periods=[2, 3], restart_weights=[1, 0.5], eta_min=0),
        'ReduceOnPlateau': dict(monitor='loss'),
    }
    given = next((value for start, value in options.items() if name.startswith(start)), {})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = PARAM_SCHEDULERS.build(dict(type=name, optimizer=optimizer, **given))
    torch.save({'param_schedulers': [scheduler.state_dict()]}, tmp_path / 'a.pth')
    loaded = load_file(tmp_path / 'a.pth')['param_schedulers'][0]
    assert loaded.keys() == scheduler.state_dict().keys()


def test_a_history_in_a_file_leaves_the_class_as_it_is(tmp_path):
    """Unpickled as it stands, a HistoryBuffer writes the statistics in the file over those of all histories."""
    history = HistoryBuffer([1.0, 3.0], [1, 1])  # the first one fills in the statistics of the class
    before = dict(HistoryBuffer._statistics_methods)
    HistoryBuffer._statistics_methods['mean'] = 7
    try:
        torch.save({'history': history}, tmp_path / 'a.pth')
    finally:
        HistoryBuffer._statistics_methods.update(before)
    loaded = load_file(tmp_path / 'a.pth')['history']
    assert HistoryBuffer._statistics_methods == before
    assert type(loaded) is HistoryBuffer and loaded.statistics('mean') == 2.0
