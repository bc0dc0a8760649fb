"""Four routes at full resolution (Table 5); ImageNet-1k, 300 epochs."""

_base_ = ['_base_/in1k.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.full4_half0}}, head=dict(in_channels=384))
