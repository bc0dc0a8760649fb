"""VMamba-T (first release), ImageNet-1k, 300 epochs; 82.2 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v0cls/vssmtiny_dp01_ckpt_epoch_292.pth'

model = dict(backbone=dict(type='VMamba', arch='tiny-v0', drop_path_rate=0.1), head=dict(in_channels=768))
