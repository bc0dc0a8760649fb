"""Mask R-CNN with MSVMamba-B (NeurIPS), COCO, 36 epochs."""

_base_ = ['_base_/mask_rcnn_3x.py']

pretrained = 'https://huggingface.co/YuhengSSS/MSVMamba/resolve/main/msvmambav3_base_224.pth'

# The authors trained no detector with this family: the drop path is ours, after their classification recipe.
model = dict(
    backbone=dict(
        arch='base-v3',
        drop_path_rate=0.5,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)

# What the authors call `downsample.3` in this family is a norm without `norm` in its name: decayed.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'downsample.norm': dict(decay_mult=1.0)}))
