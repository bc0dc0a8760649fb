"""Mask R-CNN with MSVMamba-S (NeurIPS), COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py']

pretrained = 'https://huggingface.co/YuhengSSS/MSVMamba/resolve/main/msvmambav3_small_224.pth'

# The authors trained no detector with this family: the drop path is ours, after their classification recipe.
model = dict(
    backbone=dict(
        arch='small-v3',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

# What the authors call `downsample.3` in this family is a norm without `norm` in its name: decayed.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'downsample.norm': dict(decay_mult=1.0)}))
