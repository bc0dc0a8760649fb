"""VMamba-T (s1l8), ImageNet-1k, 300 epochs; 82.6 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth'

model = dict(backbone=dict(type='VMamba', arch='tiny-s1l8', drop_path_rate=0.2), head=dict(in_channels=768))
