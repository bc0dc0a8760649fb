"""VMamba-T (s2l5), ImageNet-1k, 300 epochs; 82.5 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/vssm_tiny_0230_ckpt_epoch_262.pth'

model = dict(backbone=dict(type='VMamba', arch='tiny-s2l5', drop_path_rate=0.2), head=dict(in_channels=768))
