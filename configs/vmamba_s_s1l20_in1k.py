"""VMamba-S (s1l20), ImageNet-1k, 300 epochs; 83.3 top-1 as the authors report."""

_base_ = ['_base_/in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://github.com/MzeroMiko/VMamba/releases/download/%23v2cls/vssm1_small_0229s_ckpt_epoch_240.pth'

model = dict(backbone=dict(type='VMamba', arch='small-s1l20', drop_path_rate=0.3), head=dict(in_channels=768))
