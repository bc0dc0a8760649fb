"""The data sets of a loader's config that read files, inside any wrappers (RepeatDataset, ConcatDataset …)."""

from typing import Any

from mmengine.config import Config


def leaf_datasets(cfg: Config, loader: str) -> list[dict[str, Any]]:
    """Finds them in the order in which they are given; the parts of the config themselves, not copies.

    Args:
        cfg: the config.
        loader: `train_dataloader`, `val_dataloader` or `test_dataloader`; it may be missing.
    """
    if not cfg.get(loader):
        return []
    found, pending = [], [cfg[loader]['dataset']]
    while pending:
        dataset = pending.pop(0)
        inner = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
        pending += inner
        if not inner:
            found.append(dataset)
    return found
