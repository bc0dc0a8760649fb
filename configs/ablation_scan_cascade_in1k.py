"""VMamba-Nano that scans rows, then columns, each by itself; ImageNet-1k, 300 epochs."""

_base_ = ['_base_/in1k.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.scan_cascade}}, head=dict(in_channels=384))
