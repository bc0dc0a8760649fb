"""VMamba-Nano with MS2D for its scan (Table 4); Mask R-CNN, COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.ms2d}}, neck=dict(in_channels=[48, 96, 192, 384]))
