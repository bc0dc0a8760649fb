"""VMamba-Nano with S6 parameters drawn from uniform distributions; ImageNet-1k, 300 epochs."""

_base_ = ['_base_/in1k.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.init_v2}}, head=dict(in_channels=384))
