"""VMamba-Nano with MS2D, channel attention and ConvFFN (Table 4); ImageNet-1k, 300 epochs."""

_base_ = ['_base_/in1k.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.ms2d_se_convffn}}, head=dict(in_channels=384))
