"""VMamba-Nano with MS2D for its scan (Table 4); ImageNet-1k, 300 epochs."""

_base_ = ['_base_/in1k.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.ms2d}}, head=dict(in_channels=384))
