"""--data-root moves every path of a config, and nothing else."""

import pytest
from mmengine.config import Config
from tiny_data import REPOSITORY

from mmmsvmamba.engine.data_root import move_data_root
from mmmsvmamba.engine.errors import UserError

CONFIG = """
data_root = '{root}'
dataset = dict(
    type='CocoDataset', data_root=data_root, ann_file='annotations/train.json', data_prefix=dict(img='train/'))
absolute = dict(type='CocoDataset', data_root=data_root, ann_file=data_root + 'annotations/extra.json')
train_dataloader = dict(dataset=dict(type='RepeatDataset', times=2,
    dataset=dict(type='ConcatDataset', datasets=[dataset, absolute])))
val_dataloader = dict(dataset=dict(type='CocoDataset', data_root=data_root, ann_file='annotations/val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json')
test_evaluator = [dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json'), dict(type='Dump')]
tta_pipeline = [dict(type='Paste', folder=(data_root + 'patches', 1))]
work_dir = data_root + 'runs'
load_from = data_root + 'start.pth'
model = dict(init_cfg=dict(checkpoint=data_root + 'weights.pth'))
sibling = data_root.rstrip('/') + '_extra/list.txt'
"""


@pytest.fixture(params=['data/coco/', 'data/coco', '/data/coco/'])
def cfg(request, tmp_path) -> Config:
    file = tmp_path / 'config.py'
    file.write_text(CONFIG.format(root=request.param).replace("data_root + '", "data_root.rstrip('/') + '/"))
    return Config.fromfile(str(file))


@pytest.mark.parametrize('new', ['/new/place', '/new/place/', 'near'])
def test_moves_every_data_path(cfg, new):
    old = cfg.data_root.rstrip('/')
    move_data_root(cfg, new)
    new = new.rstrip('/')
    first, second = cfg.train_dataloader.dataset.dataset.datasets
    assert first.data_root.rstrip('/') == second.data_root.rstrip('/') == new
    assert first.ann_file == 'annotations/train.json' and first.data_prefix.img == 'train/'
    assert second.ann_file == f'{new}/annotations/extra.json'
    assert cfg.val_dataloader.dataset.data_root.rstrip('/') == cfg.test_dataloader.dataset.data_root.rstrip('/') == new
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator[0].ann_file == f'{new}/annotations/val.json'
    assert cfg.tta_pipeline[0].folder == (f'{new}/patches', 1)
    # what is no data stays, and so does a folder whose name only begins alike
    assert cfg.work_dir == f'{old}/runs'
    assert cfg.load_from == f'{old}/start.pth'
    assert cfg.model.init_cfg.checkpoint == f'{old}/weights.pth'
    assert cfg.sibling == f'{old}_extra/list.txt'


def test_nothing_of_the_old_root_is_left_in_a_real_config():
    cfg = Config.fromfile(str(REPOSITORY / 'configs/mask_rcnn_msvmamba_t_3x.py'))
    assert 'data/coco' in cfg.pretty_text
    move_data_root(cfg, '/elsewhere')
    assert 'data/coco' not in cfg.pretty_text


@pytest.mark.parametrize(
    'datasets, found',
    [([dict(data_root='a'), dict(data_root='b/')], r'2 \(a, b\)'), ([dict(type='Own')], r'0 \(none\)')],
)
def test_refuses_when_there_is_not_one_root(datasets, found):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(datasets=datasets))))
    with pytest.raises(UserError, match=found):
        move_data_root(cfg, '/new')
