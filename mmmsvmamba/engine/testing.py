"""What `tools/test.py` adds to a config: drawing, test-time augmentation, dumping of predictions."""

from copy import deepcopy
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from .errors import UserError
from .scopes import Scope


def set_drawing(cfg: Config, scope: Scope, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Draws the ground truth and the prediction of every test image, in a window or into `show_dir`.

    Args:
        cfg: the config, changed in place.
        scope: its library.
        show: open windows.
        show_dir: the folder for the pictures, relative to the current one.
        wait_time: seconds that a window stays.
    """
    folder = str(Path(show_dir).absolute()) if show_dir else None
    if cfg.get('visualizer') is None:
        cfg.visualizer = dict(type=scope.visualizer, vis_backends=[dict(type='LocalVisBackend')], name='visualizer')
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hook = hooks.setdefault('visualization', ConfigDict(type=scope.visualization_hook))
    hook.update(show=show, wait_time=wait_time)
    if scope.name == 'mmpretrain':
        hook.update(enable=True, interval=1, out_dir=folder)
        return
    hook.draw = True
    if folder and scope.name == 'mmdet':
        hook.test_out_dir = folder
    elif folder:
        cfg.visualizer.save_dir = folder


def set_tta(cfg: Config, scope: Scope) -> None:
    """Averages predictions over flips (and scales, where the config lists them).

    Raises:
        UserError: for instance segmentation, which mmdet does not support; for a segmentation config that does not say
            how (`tta_model`, `tta_pipeline`).
    """
    if scope.name == 'mmdet' and has_masks(cfg.model):
        raise UserError(
            '--tta: TTA of instance segmentation does not support now (a limit of mmdet, whose DetTTAModel merges '
            'boxes only). Test this model without --tta.'
        )
    if scope.name == 'mmseg' and not ('tta_model' in cfg and 'tta_pipeline' in cfg):
        raise UserError(
            '--tta: the config has no tta_model and tta_pipeline. mmseg::_base_/default_runtime.py and '
            'mmseg::_base_/datasets/ade20k.py have them: add them to its _base_.'
        )
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    cfg.setdefault('tta_model', _default_tta_model(scope))
    if cfg.tta_model.type == 'SegTTAModel':  # the same result, without the score maps of all scales at once
        cfg.tta_model.type = 'AccumulatingSegTTAModel'
    cfg.setdefault('tta_pipeline', _flip_pipeline(dataset.pipeline, scope))
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def _default_tta_model(scope: Scope) -> dict:
    if scope.name == 'mmpretrain':
        return dict(type='AverageClsScoreTTA')
    return dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))


def _flip_pipeline(pipeline: list[dict], scope: Scope) -> list[dict]:
    """The test pipeline with a flipped and an unflipped copy of the image in front of its packing step."""
    pack = deepcopy(pipeline[-1])
    if scope.name == 'mmdet':
        pack['meta_keys'] = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    return [*deepcopy(list(pipeline[:-1])), dict(type='TestTimeAug', transforms=[flips, [pack]])]


def evaluate_once(cfg: Config) -> None:
    """Tests the averaged weights alone: mmpretrain's second evaluation would draw and dump over the first."""
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('type') == 'EMAHook':
            hook.pop('evaluate_on_origin', None)


def has_masks(model: dict) -> bool:
    """Whether a detector predicts masks, judged by a mask head or a panoptic head anywhere in its config."""
    return any(
        (key in ('mask_head', 'panoptic_head') and value is not None) or (isinstance(value, dict) and has_masks(value))
        for key, value in model.items()
    )


def check_out(scope: Scope, out: str) -> None:
    """Checks `--out`: a pickle for boxes, masks and classes; a folder of PNG files for segmentation.

    Raises:
        UserError: if the name does not fit.
    """
    if scope.name != 'mmseg' and not out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {out}: predictions are written as a pickle; the name must end with .pkl.')


def set_segmentation_out(cfg: Config, out: str) -> None:
    """Keeps the predicted label maps of a segmentor as PNG files in `out`."""
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list | tuple) else [cfg.test_evaluator]
    for metric in metrics:
        metric.update(output_dir=out, keep_results=True)


def add_dump(runner: Runner, scope: Scope, out: str) -> None:
    """Also writes the predictions of a detector or a classifier to the pickle file `out`."""
    if scope.name == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        dump = DumpDetResults(out_file_path=out)
    else:
        dump = DumpResults(out_file_path=out)
    runner.test_evaluator.metrics.append(dump)
