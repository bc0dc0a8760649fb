"""Four routes at half resolution (Table 5); Mask R-CNN, COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.full0_half4}}, neck=dict(in_channels=[48, 96, 192, 384]))
