"""Published classification files load into whole models through mmengine's own functions."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import published
import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.registry import MODELS

from mmmsvmamba.checkpoints import convert_official, in_model_form
from mmmsvmamba.engine import checkpoint_loader

pytestmark = published.needs_reference


def classifier():
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='MSVMamba', arch='nano', out_indices=(3,)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=384),
        )
    ).eval()


@pytest.fixture(scope='module')
def weights():
    """What a classification file holds: no output norms."""
    every = published.weights('nano', published.golden('nano')['seed'])
    return {key: value for key, value in every.items() if not key.startswith('outnorm')}


def test_file_becomes_a_classifier(tmp_path, weights):
    path = tmp_path / 'vssm.pth'
    torch.save({'model': weights, 'epoch': 299}, path)
    model = classifier()
    load_checkpoint(model, str(path), map_location='cpu')
    for case in published.golden('nano')['cases'].values():
        with torch.no_grad():
            logits = model(case['input'])
        assert (logits - case['logits']).abs().max() < 5e-5


def test_same_weights_as_the_pure_function(weights):
    model = classifier()
    model.load_state_dict(in_model_form({'model': weights})['state_dict'])
    for key, value in convert_official(weights, target='classifier').items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize(
    'other', [{'state_dict': {'a': torch.zeros(1)}}, {'model': {'conv1.weight': torch.zeros(1)}}, {'a': torch.zeros(1)}]
)
def test_other_files_pass_unchanged(other):
    assert in_model_form(other) is other


def test_url_is_downloaded_once(tmp_path, monkeypatch):
    downloads = []

    def download(url, target, progress):
        downloads.append(url)
        torch.save({'a': torch.ones(1)}, target)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    for _ in range(2):
        assert checkpoint_loader.load_from_http_safely('https://example.org/x/vssm.pth?download=1')['a'] == 1
    assert downloads == ['https://example.org/x/vssm.pth?download=1']
    assert (tmp_path / 'checkpoints' / 'vssm.pth').is_file()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder and its address on this machine."""
    folder = tmp_path / 'served'
    folder.mkdir()
    with ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(QuietHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        thread.join()


def test_a_release_with_a_number_sign_in_its_name(tmp_path, monkeypatch, served):
    """VMamba's are called `#v0cls` and the like; in an address that is `%23v0cls`."""
    folder, address = served
    file = folder / '#v0cls' / 'vssm.pth'
    file.parent.mkdir()
    torch.save({'weight': torch.ones(1, 1)}, file)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    for place in (f'{address}/%23v0cls/vssm.pth', str(file)):
        layer = torch.nn.Linear(1, 1, bias=False)
        load_checkpoint(layer, place, map_location='cpu')
        assert layer.weight == 1
    assert [path.name for path in (tmp_path / 'hub' / 'checkpoints').iterdir()] == ['vssm.pth']
