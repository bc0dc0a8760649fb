"""Vim-S, ImageNet-1k, 300 epochs; 80.5 top-1 as the authors report."""

_base_ = ['_base_/vim_in1k.py']

# Trained from random weights. The authors' file, for tools/test.py:
published = 'https://huggingface.co/hustvl/Vim-small-midclstok/resolve/main/vim_s_midclstok_80p5acc.pth'

# The authors' script for this model trains with batches of 512 images at the same learning rate.
model = dict(backbone=dict(arch='small', drop_path_rate=0.05), head=dict(in_channels=384))
