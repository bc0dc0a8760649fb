"""UperNet with MSVMamba-N on the embedded shapes: needs no download, trains in minutes on a CPU."""

_base_ = ['_base_/upernet_shapes.py']

channels_of_maps = [48, 96, 192, 384]
model = dict(
    backbone=dict(arch='nano'),
    decode_head=dict(in_channels=channels_of_maps),
    auxiliary_head=dict(in_channels=channels_of_maps[2]),
)
