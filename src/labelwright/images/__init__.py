"""Image sets, decoded when asked for: benchmark sets by name, and users' own.

:func:`load_images` and :func:`open_images` give an :class:`ImageSet`, whose pictures are an :class:`Images`: Parquet in the
Hugging Face layout, files on disk, arrays. Memory holds what was asked for, not the set. NumPy, pyarrow and Pillow suffice.
"""

from labelwright.images.benchmarks import LOADERS
from labelwright.images.files import FileImages
from labelwright.images.idx import read_idx
from labelwright.images.imageset import ImageSet
from labelwright.images.parquet import ParquetImages
from labelwright.images.pickles import read_pickle
from labelwright.images.sets import available_images, load_images, open_images
from labelwright.images.stores import ArrayImages, Images, SomeImages

__all__ = [
    "LOADERS",
    "ArrayImages",
    "FileImages",
    "ImageSet",
    "Images",
    "ParquetImages",
    "SomeImages",
    "available_images",
    "load_images",
    "open_images",
    "read_idx",
    "read_pickle",
]
