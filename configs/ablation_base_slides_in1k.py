"""The base model of the slides, which was not released; ImageNet-1k, 300 epochs."""

_base_ = ['_base_/in1k.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.base_slides}}, head=dict(in_channels=1024))
