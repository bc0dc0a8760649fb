"""Mask R-CNN with ResNet-18 on the embedded shapes: the heads and the budget of the MSVMamba-N config, to compare."""

_base_ = ['_base_/mask_rcnn_shapes.py']

model = dict(
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
