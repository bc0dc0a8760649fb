"""The Tiny model with MS2D alone, of the slides; ImageNet-1k, 300 epochs."""

_base_ = ['_base_/in1k.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.tiny_ms2d}}, head=dict(in_channels=768))
