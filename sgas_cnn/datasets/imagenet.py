"""ImageNet, or any folder of pictures laid out like it: which files belong to which class.

    DATA_ROOT/imagenet/train/CLASS/*.JPEG    or DATA_ROOT/train/…, where there is no imagenet
    DATA_ROOT/imagenet/val/CLASS/*.JPEG      the test split; the published test labels are secret

Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015. Pictures
are read while training (`sgas_cnn.file_source`): the whole does not fit into memory.
"""

from __future__ import annotations

from pathlib import Path

from sgas.errors import DataError, option
from sgas.own.class_folders import ClassFiles, FileKind, files_of

FOLDERS = {"train": "train", "test": "val"}
SUFFIXES = (
    *(".jpeg", ".jpg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
)
PICTURES = FileKind(SUFFIXES, "picture", "pictures")


def load_imagenet(split: str, data_root: Path) -> ClassFiles:
    """The files of one split, sorted by class and name; classes are those of the training folder.

    No file is opened. DataError where folders are missing or hold no pictures, where a folder of
    the test split is no class of training, and where Pillow is not installed.
    """
    require_pillow()
    root = data_root / "imagenet" if (data_root / "imagenet").is_dir() else data_root
    for name in ("train", split):
        if not (root / FOLDERS[name]).is_dir():
            raise DataError(
                f"{root / FOLDERS[name]} does not exist: put ImageNet into "
                f"{data_root.resolve() / 'imagenet'} as train/CLASS/*.JPEG and val/CLASS/*.JPEG, "
                f"or give its place by {option('data_root')}"
            )
    return files_of(root / FOLDERS["train"], root / FOLDERS[split], PICTURES)


def require_pillow() -> None:
    """DataError where Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"reading pictures from files needs Pillow ({error}): pip install 'sgas[imagenet]'"
        ) from error
