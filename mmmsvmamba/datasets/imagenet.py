"""ImageNet-1k in class folders, whole or cut down to some of its classes. Importing this needs mmpretrain."""

from collections.abc import Sequence
from importlib import resources

from mmengine.fileio import get_file_backend
from mmengine.logging import MMLogger
from mmpretrain.datasets import ImageNet
from mmpretrain.datasets.custom import find_folders, get_samples
from mmpretrain.registry import DATASETS

from mmmsvmamba.engine.errors import UserError

#: The WordNet ids of the 1,000 classes; the place in this order is the label.
WNIDS = tuple(resources.files(__package__).joinpath('imagenet_wnids.txt').read_text(encoding='ascii').split())
_LABELS = {wnid: label for label, wnid in enumerate(WNIDS)}


@DATASETS.register_module()
class ImageNetFolders(ImageNet):
    """ImageNet-1k whose class folders keep their labels when some are missing.

    mmpretrain's ImageNet numbers the folders that it finds, and therefore insists on all 1,000. Here a folder's label
    is the place of its WordNet id among the 1,000. On the whole set, and with annotation files (`meta/<split>.txt` or
    `ann_file`), both are the same.

    Args:
        *args, **kwargs: as `mmpretrain.datasets.ImageNet`.

    Raises:
        UserError: for folders that are no classes of ImageNet-1k, and where there are no class folders or no pictures
            in them.
    """

    def check_folders(self) -> list[str]:
        """Checks the class folders, without listing all pictures, and returns their names."""
        backend = get_file_backend(self.img_prefix, enable_singleton=True)
        folders, _ = find_folders(self.img_prefix, backend)
        _check_wnids(folders, self.img_prefix)
        files = (
            file
            for folder in folders
            for file in backend.list_dir_or_file(
                backend.join_path(self.img_prefix, folder), list_dir=False, recursive=True
            )
        )
        if not any(map(self.is_valid_file, files)):
            raise UserError(
                f'{self.img_prefix} has {len(folders)} class folders and no picture in any of them '
                f'({", ".join(sorted(self.extensions))}). Unpack the pictures there.'
            )
        return folders

    def _find_samples(self) -> list:
        if not self.with_label:
            return super()._find_samples()
        self.folder_to_idx = {folder: _LABELS[folder] for folder in self.check_folders()}
        samples, empty = get_samples(self.img_prefix, self.folder_to_idx, is_valid_file=self.is_valid_file)
        if empty:
            MMLogger.get_current_instance().warning(f'No picture in {self.img_prefix} of {", ".join(sorted(empty))}')
        return samples


def _check_wnids(folders: Sequence[str], place: str) -> None:
    """Checks that every folder in a place is one of the classes."""
    expected = f'folders named by the WordNet ids of the 1,000 classes ({WNIDS[0]} to {WNIDS[-1]}), all or some of them'
    if not folders:
        raise UserError(
            f'{place} has no class folders. Expected are {expected}; or, where pictures lie in one folder, '
            'meta/train.txt and meta/val.txt beside it, each line a file name and a label from 0 to 999.'
        )
    unknown = sorted(set(folders) - _LABELS.keys())
    if unknown:
        raise UserError(
            f'{place} has {len(unknown)} of {len(folders)} folders that are no classes of ImageNet-1k: '
            f'{", ".join(unknown[:4])}{", …" if len(unknown) > 4 else ""}. Expected are {expected}. Move other '
            "folders away; for classes of your own set the datasets' type to CustomDataset."
        )
