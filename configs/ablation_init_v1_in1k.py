"""VMamba-Nano with S6 parameters drawn from normal distributions; ImageNet-1k, 300 epochs."""

_base_ = ['_base_/in1k.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.init_v1}}, head=dict(in_channels=384))
