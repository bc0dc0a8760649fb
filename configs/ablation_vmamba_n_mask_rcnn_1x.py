"""VMamba-Nano, where Table 4 of the MSVMamba paper starts; Mask R-CNN, COCO, 12 epochs."""

_base_ = ['_base_/mask_rcnn_1x.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.vmamba_n}}, neck=dict(in_channels=[48, 96, 192, 384]))
