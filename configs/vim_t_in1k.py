"""Vim-Ti, ImageNet-1k, 300 epochs; 76.1 top-1 as the authors report."""

_base_ = ['_base_/vim_in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://huggingface.co/hustvl/Vim-tiny-midclstok/resolve/main/vim_t_midclstok_76p1acc.pth'

model = dict(backbone=dict(arch='tiny', drop_path_rate=0.0), head=dict(in_channels=192))

# As the authors' script for this model has it; the paper says 0.05.
optim_wrapper = dict(optimizer=dict(weight_decay=0.1))
