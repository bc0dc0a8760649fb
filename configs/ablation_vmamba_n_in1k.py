"""VMamba-Nano, where Table 4 of the MSVMamba paper starts; ImageNet-1k, 300 epochs."""

_base_ = ['_base_/in1k.py', '_base_/ablations.py']

model = dict(backbone={{_base_.ablations.vmamba_n}}, head=dict(in_channels=384))
