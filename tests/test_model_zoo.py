"""The index of models and its page: every published checkpoint with the authors' figures, and counts of our configs."""

import functools
import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import MODELS, DefaultScope
from modelindex import load_model_index
from torch import Tensor, nn

from mmmsvmamba.analysis import count_flops
from mmmsvmamba.engine.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / 'model-index.yml'
PAGE = (ROOT / 'docs' / 'model_zoo.md').read_text()
ENTRIES = {model['Name']: model for model in load(INDEX)['Models']}

HUGGING_FACE = 'https://huggingface.co/YuhengSSS/MSVMamba/resolve/main/'
GOOGLE_DRIVE = 'https://drive.google.com/drive/folders/'
VMAMBA = 'https://github.com/MzeroMiko/VMamba/releases/download/%23'
DET_V0 = VMAMBA + 'v0det/vssm{}_mask_rcnn_swin_fpn_coco_{}.pth'
DET_V2 = VMAMBA + 'v2det/mask_rcnn_vssm_fpn_coco_{}.pth'
SEG_V0 = VMAMBA + 'v0seg/vssm{}_upernet_4xb4-160k_ade20k-512x512_{}.pth'
SEG_V2 = VMAMBA + 'v2seg/upernet_vssm_4xb4-160k_ade20k-512x512_{}.pth'
VIM = 'https://huggingface.co/hustvl/Vim-{}-midclstok/resolve/main/vim_{}_midclstok_{}acc.pth'
#: What the authors print: parameters, operations, accuracy; and where the weights are, an address or a folder of Google
#: Drive.
PUBLISHED = {
    'msvmamba_n_in1k': ('6.9M', '0.9G', [77.3], '1J41w3ApitQhp2O3wHmJoOs4U032uqebK'),
    'msvmamba_m_in1k': ('11.9M', '1.5G', [79.8], '1jfl2GmuKcUB8sPwRlyHK_wT0MjqgljYk'),
    'msvmamba_t_in1k': ('33.0M', '4.6G', [82.8], '1ddNWk89ohcxxMuVEaJ2Y5A6xeBKgA7lU'),
    'msvmamba_t_v3_in1k': ('32M', '5.0G', [83.0], HUGGING_FACE + 'msvmambav3_tiny_224.pth'),
    'msvmamba_s_v3_in1k': ('50M', '8.8G', [84.1], HUGGING_FACE + 'msvmambav3_small_224.pth'),
    'msvmamba_b_v3_in1k': ('91M', '16.3G', [84.4], HUGGING_FACE + 'msvmambav3_base_224.pth'),
    'mask_rcnn_msvmamba_m_1x': ('32M', '201G', [43.8, 39.9], '12CrNAGBalU0yoQcQgPTGO5lM397Jc4La'),
    'mask_rcnn_msvmamba_t_1x': ('53M', '252G', [46.9, 42.2], '1MogQ6PGdrgsyJckJTL9BJzlMCodJ3epu'),
    'mask_rcnn_msvmamba_m_3x': ('32M', '201G', [46.3, 41.8], '10-8cDnRfnk_j4QxMHkhUyecucnM_82pt'),
    'mask_rcnn_msvmamba_t_3x': ('53M', '252G', [48.3, 43.2], '1dK1qFjaU8GmqvsmMr1mgppNJlNacHPtG'),
    'upernet_msvmamba_m_160k_ade20k': ('42M', '875G', [45.1, 45.4], '1naZHL4mwTchllAE001SsyZ_z4y_JRF0s'),
    # README, paper, and many scales in the paper
    'upernet_msvmamba_t_160k_ade20k': ('65M', '942G', [47.8, 47.6, 48.5], '1FaFPFExDd_4goIlLjTR7fXsuMRr-vYoY'),
    'vmamba_t_v0_in1k': ('23M', '5.6G', [82.2], VMAMBA + 'v0cls/vssmtiny_dp01_ckpt_epoch_292.pth'),
    'vmamba_s_v0_in1k': ('44M', '11.2G', [83.5], VMAMBA + 'v0cls/vssmsmall_dp03_ckpt_epoch_238.pth'),
    'vmamba_b_v0_in1k': ('76M', '18.0G', [83.7], VMAMBA + 'v0cls/vssmbase_dp06_ckpt_epoch_241.pth'),
    'vmamba_t_s2l5_in1k': ('31M', '4.9G', [82.5], VMAMBA + 'v2cls/vssm_tiny_0230_ckpt_epoch_262.pth'),
    'vmamba_s_s2l15_in1k': ('50M', '8.7G', [83.6], VMAMBA + 'v2cls/vssm_small_0229_ckpt_epoch_222.pth'),
    'vmamba_b_s2l15_in1k': ('89M', '15.4G', [83.9], VMAMBA + 'v2cls/vssm_base_0229_ckpt_epoch_237.pth'),
    'vmamba_t_s1l8_in1k': ('30M', '4.9G', [82.6], VMAMBA + 'v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth'),
    'vmamba_s_s1l20_in1k': ('49M', '8.6G', [83.3], VMAMBA + 'v2cls/vssm1_small_0229s_ckpt_epoch_240.pth'),
    'vmamba_b_s1l20_in1k': ('87M', '15.2G', [83.8], VMAMBA + 'v2cls/vssm1_base_0229s_ckpt_epoch_225.pth'),
    'mask_rcnn_vmamba_t_v0_1x': ('42M', '286G', [46.5, 42.1], DET_V0.format('tiny', 'epoch_12')),
    'mask_rcnn_vmamba_s_v0_1x': ('64M', '400G', [48.2, 43.0], DET_V0.format('small', 'epoch_12')),
    'mask_rcnn_vmamba_b_v0_1x': ('96M', '540G', [48.6, 43.3], DET_V0.format('base', 'epoch_12')),
    'mask_rcnn_vmamba_t_s2l5_1x': ('50M', '270G', [47.4, 42.7], DET_V2.format('tiny_epoch_12')),
    'mask_rcnn_vmamba_s_s2l15_1x': ('70M', '384G', [48.7, 43.7], DET_V2.format('small_epoch_11')),
    'mask_rcnn_vmamba_b_s2l15_1x': ('108M', '485G', [49.2, 44.1], DET_V2.format('base_epoch_11')),
    'mask_rcnn_vmamba_t_s1l8_1x': ('50M', '271G', [47.3, 42.7], DET_V2.format('tiny_s_epoch_12')),
    'mask_rcnn_vmamba_t_v0_3x': ('42M', '286G', [48.5, 43.2], DET_V0.format('tiny', 'ms_3x_epoch_34')),
    'mask_rcnn_vmamba_s_v0_3x': ('64M', '400G', [49.7, 44.0], DET_V0.format('small', 'ms_3x_epoch_34')),
    'mask_rcnn_vmamba_t_s2l5_3x': ('50M', '270G', [48.9, 43.7], DET_V2.format('tiny_ms_3x_epoch_36')),
    'mask_rcnn_vmamba_s_s2l15_3x': ('70M', '384G', [49.9, 44.2], DET_V2.format('small_ms_3x_epoch_32')),
    'mask_rcnn_vmamba_t_s1l8_3x': ('50M', '271G', [48.8, 43.7], DET_V2.format('tiny_ms_3x_s_epoch_31')),
    'upernet_vmamba_t_v0_160k_ade20k': ('55M', '964G', [47.3, 48.3], SEG_V0.format('tiny', 'iter_160000')),
    'upernet_vmamba_s_v0_160k_ade20k': ('76M', '1081G', [49.5, 50.5], SEG_V0.format('small', 'iter_160000')),
    'upernet_vmamba_b_v0_160k_ade20k': ('110M', '1226G', [50.0, 51.3], SEG_V0.format('base', 'iter_128000')),
    'upernet_vmamba_t_s2l5_160k_ade20k': ('62M', '948G', [48.3, 48.6], SEG_V2.format('tiny_iter_160000')),
    'upernet_vmamba_s_s2l15_160k_ade20k': ('82M', '1028G', [50.6, 51.2], SEG_V2.format('small_iter_144000')),
    'upernet_vmamba_b_s2l15_160k_ade20k': ('122M', '1170G', [51.0, 51.6], SEG_V2.format('base_iter_160000')),
    'upernet_vmamba_t_s1l8_160k_ade20k': ('62M', '949G', [47.9, 48.8], SEG_V2.format('tiny_s_iter_160000')),
    'vim_t_in1k': ('7M', '1.5G', [76.1], VIM.format('tiny', 't', '76p1')),
    'vim_s_in1k': ('26M', '5.1G', [80.5], VIM.format('small', 's', '80p5')),
    'vim_b_in1k': ('98M', None, [81.9], VIM.format('base', 'b', '81p9')),
    'vim_t_in1k_stride8_finetune': ('7M', None, [78.3], VIM.format('tiny', 't', 'ft_78p3')),
    'vim_s_in1k_stride8_finetune': ('26M', None, [81.6], VIM.format('small', 's', 'ft_81p6')),
    # figures of the paper alone, without weights
    'cascade_mask_rcnn_vim_t_100e': (None, None, [45.7, 39.2], None),
    'upernet_vim_t_60k_ade20k': (None, None, [41.0], None),
    'upernet_vim_s_60k_ade20k': (None, None, [44.9], None),
}
METRICS = {
    'msvmamba': ['Top 1 Accuracy'],
    'vmamba': ['Top 1 Accuracy'],
    'vim': ['Top 1 Accuracy'],
    'mask_rcnn': ['box AP', 'mask AP'],
    'cascade_mask_rcnn_vim': ['Paper box AP', 'Paper mask AP'],
    'upernet_vim': ['Paper mIoU'],
    'upernet_msvmamba_t': ['mIoU', 'Paper mIoU', 'Paper mIoU (ms+flip)'],
    'upernet': ['mIoU', 'mIoU (ms+flip)'],
}
#: Start of a config's name -> operations that its authors print over those of their code, where the page has both.
OTHERWISE = {
    'mask_rcnn_msvmamba_t': 252 / 265,
    'mask_rcnn_vmamba_s_s2l15': 384 / 349,
    'vim_t_in1k': 1.5 / 1.82,
    'vim_s_in1k': 5.1 / 5.91,
}
#: Start of a config's name -> library, and the size of image for which operations are counted.
KINDS = {
    'msvmamba': ('mmpretrain', (224, 224)),
    'vmamba': ('mmpretrain', (224, 224)),
    'vim': ('mmpretrain', (224, 224)),
    'cascade': ('mmdet', (1280, 800)),
    'mask_rcnn': ('mmdet', (1280, 800)),
    'upernet': ('mmseg', (512, 2048)),
}


class FixedBoxes(nn.Module):
    """A (Cascade) Mask R-CNN as its operations are counted: with 1,000 boxes and 100 masks, whatever the image."""

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> tuple:
        levels = self.detector.neck(self.detector.backbone(x))
        heads = self.detector.roi_head
        boxes, masks = x.new_empty(1000, 256, 7, 7), x.new_empty(100, 256, 14, 14)
        stages = [(heads.bbox_head, boxes), (heads.mask_head, masks)]
        outs = [head(rois) for each, rois in stages for head in (each if isinstance(each, nn.ModuleList) else [each])]
        return self.detector.rpn_head(levels), outs


@pytest.fixture(scope='module')
def config(bases_found_once):
    """Reads the config of an entry."""
    return functools.cache(lambda name: Config.fromfile(str(ROOT / ENTRIES[name]['Config'])))


@pytest.fixture(scope='module')
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'path', [str(ROOT / 'tools' / 'dev'), *sys.path])
        return importlib.import_module('model_zoo')


def kind_of(name: str) -> tuple[str, tuple[int, int]]:
    return KINDS[next(start for start in KINDS if name.startswith(start))]


def test_index_is_valid_for_mim():
    index = load_model_index.load(str(INDEX))
    assert index.check(silent=True) == []
    assert [model.name for model in index.models] == list(ENTRIES)
    assert len(load(INDEX)['Models']) == len(ENTRIES)  # no name twice


def test_index_has_every_config_but_those_of_shapes_and_ablations():
    paths = (ROOT / 'configs').glob('*.py')
    configs = {f'configs/{path.name}' for path in paths if not re.search('shapes|^ablation', path.name)}
    assert {model['Config'] for model in ENTRIES.values()} == configs
    # mim saves a config under the name of its model
    assert [name for name, model in ENTRIES.items() if model['Config'] != f'configs/{name}.py'] == []


def test_models_with_results_are_the_published_ones():
    assert {name for name, model in ENTRIES.items() if 'Results' in model} == set(PUBLISHED)
    for name in set(ENTRIES) - set(PUBLISHED):
        metadata = ENTRIES[name]['Metadata']
        assert not {'Weights', 'Converted From'} & set(ENTRIES[name])
        assert not any(key.startswith(('Weights', 'Reported')) for key in metadata)


@pytest.mark.parametrize('name', PUBLISHED)
def test_figures_are_those_of_the_authors(name):
    parameters, operations, accuracies, weights = PUBLISHED[name]
    model, metadata = ENTRIES[name], ENTRIES[name]['Metadata']
    found = [pair for result in model['Results'] for pair in result['Metrics'].items()]
    metrics = next(metrics for start, metrics in METRICS.items() if name.startswith(start))
    assert found == list(zip(metrics, accuracies, strict=True))
    assert 'not reproduced' in metadata['Accuracy']
    terms = 'see the model card' if model['In Collection'] == 'Vim' else 'none given'
    assert metadata.get('Weights License') == (terms if weights else None)

    if parameters:
        digits = len(parameters[:-1].partition('.')[2])
        assert f'{metadata["Parameters"] / 1e6:.{digits}f}M' == parameters
    assert ('Reported FLOPs' in metadata) == bool(operations)
    if operations:
        assert metadata['Reported FLOPs'] == pytest.approx(1e9 * float(operations[:-1]), abs=1)
        off = next((off for start, off in OTHERWISE.items() if name.startswith(start)), 1)
        assert metadata['FLOPs'] == pytest.approx(metadata['Reported FLOPs'] / off, rel=0.03)

    if weights is None:
        assert not {'Weights', 'Converted From'} & set(model)
    elif '://' in weights:
        assert model['Weights'] == weights and 'Converted From' not in model
    else:  # a folder: mim must neither take its page for a file nor show its address in small letters
        assert model['Converted From'] == {'Weights': GOOGLE_DRIVE + weights} and 'Weights' not in model
        assert not any(isinstance(value, str) and '://' in value for value in metadata.values())


@pytest.mark.parametrize('name', [name for name in ENTRIES if not name.endswith('_3x')])
def test_counts_are_those_of_the_config(name, config):
    scope, shape = kind_of(name)
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        model = MODELS.build(config(name).model)
    metadata = ENTRIES[name]['Metadata']
    assert metadata['Parameters'] == sum(parameter.numel() for parameter in model.parameters())
    count = count_flops(FixedBoxes(model) if scope == 'mmdet' else model, (1, 3, *shape))
    assert metadata['FLOPs'] == count.total


def test_both_schedules_have_the_same_counts():
    for name in [name for name in ENTRIES if name.endswith('_3x')]:
        short, long = (ENTRIES[other]['Metadata'] for other in (name.replace('_3x', '_1x'), name))
        assert [short[key] for key in ('Parameters', 'FLOPs')] == [long[key] for key in ('Parameters', 'FLOPs')]


@pytest.mark.parametrize('name', ENTRIES)
def test_configs_expect_the_weights_where_the_index_has_them(name, config):
    cfg = config(name)
    of_backbone = re.fullmatch(
        '(?:cascade_mask_rcnn|mask_rcnn|upernet)_(.+)_(?:[13]x|100e|60k_ade20k|160k_ade20k)', name
    )
    classifier = ENTRIES[f'{of_backbone[1]}_in1k' if of_backbone else name]
    metadata = classifier['Metadata']
    named, source = ('pretrained', 'pretrained_source') if of_backbone else ('published', 'published_source')
    assert cfg[named] == classifier.get('Weights', metadata.get('Weights File'))
    assert classifier.get('Converted From', {}).get('Weights', '') in cfg.get(source, '')
    v3 = cfg.model.backbone.arch.endswith('-v3')
    assert ENTRIES[name]['In Collection'] == cfg.model.backbone.type + ('-v3' if v3 else '')
    recipe = 'ours' if v3 and of_backbone else "the authors'"
    assert ENTRIES[name]['Metadata']['Recipe'] == (
        "the authors' in part" if cfg.model.backbone.type == 'Vim' else recipe
    )


def test_tables_of_the_page_are_those_of_the_index(tool):
    assert importlib.import_module('page_tables').fill(PAGE, tool.tables(list(ENTRIES.values()))) == PAGE, (
        'run python tools/dev/model_zoo.py'
    )
    rows = [
        line for line in PAGE.splitlines() if re.match(r'\| (MSVMamba|VMamba|Vim)-', line) and '](../configs/' in line
    ]
    assert len(rows) == len(ENTRIES)
    with_weights = sum(weights is not None for *_, weights in PUBLISHED.values())
    assert sum(row.endswith(('| none given |', '| see the model card |')) for row in rows) == with_weights


def test_generator_refuses_what_has_no_place(tool):
    tables = tool.tables(list(ENTRIES.values()))
    with pytest.raises(UserError, match=r"has places for the tables \['ADE20K'\]; there are \['ImageNet-1k'"):
        importlib.import_module('page_tables').fill('<!-- table: ADE20K -->\n<!-- end -->\n', tables)
    with pytest.raises(UserError, match='has no line "<!-- end -->" behind the table ADE20K'):
        importlib.import_module('page_tables').fill('<!-- table: ADE20K -->\n', {'ADE20K': ''})
    with pytest.raises(UserError, match='x is in no table: its training data are Cityscapes, its epochs None'):
        tool.tables([{'Name': 'x', 'Metadata': {'Training Data': 'Cityscapes'}}])


@pytest.mark.parametrize('name', ['model_zoo.md', 'extending.md', 'families.md', 'ablations.md'])
def test_links_and_paths_of_the_pages_exist(name):
    text = (ROOT / 'docs' / name).read_text()
    linked = [link.partition('#')[0] for link in re.findall(r'\]\((?!https?://)([^)]+)\)', text)]
    typed = re.findall(r'\b(?:tools|configs|tests|benchmarks|mmmsvmamba|kernels)/[\w./-]*\w\.(?:py|sh|yml)\b', text)
    assert [path for path in linked if not (ROOT / 'docs' / path).exists()] == []
    assert [path for path in typed if not (ROOT / path).exists()] == []
    folders = [ROOT / folder for folder in ('tests', 'mmmsvmamba', 'tools', 'benchmarks')]
    known = {path.name for folder in folders for path in folder.rglob('*.py')}
    assert [file for file in re.findall(r'`(\w+\.py)`', text) if file not in known] == []
