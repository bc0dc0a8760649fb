"""VMamba-Nano that scans by rows and by rows reversed; ImageNet-1k, 300 epochs."""

_base_ = ['_base_/in1k.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.scan_bi}}, head=dict(in_channels=384))
