"""Images to train on, for every framework: loading them, batching them, scaling them.

A data set is one uint8 array in memory: a folder of pictures (`images`), an IDX file as of MNIST,
an .npz file or the python batches of CIFAR-10 (`arrays`), or 2,000 of Fashion-MNIST.
"""

import functools
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.data import arrays as array_files
from shared.data import images as image_files
from shared.data.images import IMAGE_SUFFIXES
from shared.files.errors import InputError, printable, refused_as
from shared.interface import Array
from shared.spec import SystemSpec
from shared.spec.streams import batch_order

FASHION_MNIST = Path(__file__).with_name("fashion-mnist-2000-idx3-ubyte.gz")
ACCEPTED = (
    f"a folder of image files ({', '.join(IMAGE_SUFFIXES)}, nested folders too), an IDX file of "
    "images such as train-images-idx3-ubyte or the same with .gz, a folder that holds one, an "
    ".npz file with an array called images, [n, height, width] or [n, height, width, 1 or 3], "
    "or CIFAR-10's data_batch_1 or the folder that holds them"
)


class ImageDataset(NamedTuple):
    """Images, uint8 [n, image_size, image_size, channels]; `skipped` holds "path: reason"."""

    images: Array
    description: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Batches:
    """Batches of real images in an order that depends on nothing but the seed and the step.

    `images` is uint8 [n, *spec.image_shape]; `dtype` is float32 or float64. Step t takes the k
    batches from number t · k on, where k is `spec.discriminator_steps`. Batch b is of epoch b //
    batches_per_epoch, ordered by `streams.batch_order`; its last, partial batch is dropped. Raises
    InputError for images that do not suit the spec, ValueError for other arguments.
    """

    def __init__(self, images: Array, spec: SystemSpec, seed: int, dtype: str = "float32") -> None:
        if images.dtype != np.uint8 or images.shape[1:] != spec.image_shape:
            expected = f"the system {spec.name} expects uint8 images of {spec.image_shape}"
            raise InputError(f"the images are {images.dtype} {images.shape}; {expected}")
        if spec.batch_size > len(images):
            found = f"the batch size is {spec.batch_size}, but there are only {len(images)} images"
            raise InputError(f"{found}; use --batch-size {len(images)} or less, or more images")
        self._all_images, self._spec, self._dtype = images, spec, dtype
        self._order = functools.lru_cache(2)(lambda epoch: batch_order(seed, epoch, len(images)))
        self._order(0)  # raises for a bad seed
        self.batches_per_epoch: int = len(images) // spec.batch_size

    def images(self, step: int) -> Array:
        """Return a step's batches in `spec.image_range`: [k · batch, height, width, channels]."""
        size, batches = self._spec.batch_size, self._spec.discriminator_steps
        chosen = []
        for number in range(step * batches, (step + 1) * batches):
            epoch, batch = divmod(number, self.batches_per_epoch)
            chosen.append(self._order(epoch)[batch * size :][:size])
        return to_image_range(self._all_images[np.concatenate(chosen)], self._spec, self._dtype)


def to_image_range(pixels: Array, spec: SystemSpec, dtype: str = "float32") -> Array:
    """Return uint8 pixels as x / 255 · (high - low) + low of `spec.image_range`, in `dtype`."""
    low, high = spec.image_range
    images = pixels.astype(dtype, order="C")
    images /= 255  # in place, which is three times as fast
    images *= float(high - low)
    images += float(low)
    return images


def to_pixels(images: Array, image_range: tuple[float, float]) -> Array:
    """Return images in `image_range` as uint8, rounded and clipped; NaN becomes 0, to be drawn."""
    low, high = image_range
    levels = (np.asarray(images, np.float64) - low) / (high - low) * 255
    return np.rint(np.clip(np.nan_to_num(levels, nan=0.0), 0, 255)).astype(np.uint8)


def load_dataset(source: str | os.PathLike[str] | None, spec: SystemSpec) -> ImageDataset:
    """Load the images to train on, at the spec's size and number of channels.

    None is the embedded default, 2,000 images of Fashion-MNIST; otherwise `source` is what ACCEPTED
    says. Every image has its shorter side resized to `spec.image_size` and the centre cut out.
    Raises InputError for anything without a usable image; single bad files are skipped and named.
    """
    if source is None:
        return _load_file(FASHION_MNIST, spec, "Fashion-MNIST images")
    if not os.fspath(source):
        raise InputError(f"the path is empty; expected {ACCEPTED}")
    path = Path(source)
    if os.path.isdir(path):
        return _load_folder(path, spec)
    return _load_file(path, spec, f"images from {printable(path.name)}")


def _load_folder(folder: Path, spec: SystemSpec) -> ImageDataset:
    files, unlisted = image_files.find_files(folder)
    pictures = [path for path in files if image_files.is_image_file(path)]
    batches = [path for path in files if path.is_file() and array_files.is_batch(path, b"")]
    name = printable(folder.resolve().name or folder)
    skipped = tuple(unlisted)
    if pictures:
        notes = _notes(pictures, files, spec)
        _check_count(folder, len(pictures), spec)
        images, unread = image_files.decode_files(pictures, spec)
        skipped += tuple(unread)
        if not len(images):
            found = f"none of its {len(pictures)} image files can be used"
            raise InputError(f"{folder}: {found}, among them {'; '.join(skipped[:3])}")
        where = f"{name} ({len(skipped):,} skipped)" if skipped else name
    elif batches:
        _check_count(folder, sum(path.stat().st_size for path in batches) // 3072, spec)
        fitted = [fit_arrays(path, array_files.read_batch(path), spec) for path in batches]
        images, notes = np.concatenate([images for images, _ in fitted]), fitted[0][1]
        where = f"{len(batches)} batches of {name}"
    else:
        path = _idx_file_of(folder, files, unlisted)
        where = f"{name}/{printable(path.relative_to(folder).as_posix())}"
        return _load_file(path, spec, f"images from {where}")._replace(skipped=skipped)
    return ImageDataset(images, f"{len(images):,} images from {where}", skipped, notes)


def _notes(pictures: list[Path], files: list[Path], spec: SystemSpec) -> tuple[str, ...]:
    """Return what becomes of a folder's pictures, and what is not read beside them."""
    notes = [image_files.describe_first(pictures, spec)]
    if (folders := len({path.parent for path in pictures})) > 1:
        notes.append(f"of {folders} folders together; their names, such as classes, are not used")
    others = [p for p in files if array_files.is_idx_name(p) or array_files.is_batch(p, b"")]
    if others:
        notes.append(f"beside pictures {printable(others[0].name)} is not read; --data can name it")
    return tuple(note for note in notes if note)


def _idx_file_of(folder: Path, files: list[Path], unlisted: list[str]) -> Path:
    # The raw file and its .gz are one; sorted order puts the raw one first.
    idx_files = filter(array_files.is_idx_name, reversed(files))
    found = {str(path).removesuffix(".gz"): path for path in idx_files}
    for prefix in ("train", "t10k", ""):
        chosen = [path for path in reversed(found.values()) if path.name.startswith(prefix)]
        if len(chosen) > 1:
            names = ", ".join(map(str, chosen))
            raise InputError(f"{folder} holds several IDX files: {names}; give one")
        if chosen:
            return chosen[0]
    trouble = f" ({'; '.join(unlisted)})" if unlisted else ""
    text = f"{folder} holds no image: {len(files)} files, none of them an image{trouble}"
    raise InputError(f"{text}; expected {ACCEPTED}")


def _load_file(path: Path, spec: SystemSpec, what: str) -> ImageDataset:
    if not os.path.isfile(path):
        found = "is not a regular file" if os.path.exists(path) else "does not exist"
        raise InputError(f"{path} {found}; expected {ACCEPTED}")
    if image_files.is_image_file(path):
        raise InputError(f"{path} is a single image; give the folder: {path.parent}")
    with refused_as(path, ACCEPTED), open(path, "rb") as file:
        head = file.read(4)
    if path.suffix.lower() == ".npz" or head == array_files.ZIP_MAGIC:
        images = array_files.read_npz(path)
    elif array_files.is_idx_name(path) or head[:2] in array_files.IDX_STARTS:
        images = array_files.read_idx(path)
    elif array_files.is_batch(path, head):
        images = array_files.read_batch(path)
    else:
        raise InputError(f"{path} is none of what can be loaded; expected {ACCEPTED}")
    fitted, notes = fit_arrays(path, images, spec)
    return ImageDataset(fitted, f"{len(fitted):,} {what}", (), notes)


def fit_arrays(source: Path | str, arrays: Array, spec: SystemSpec) -> tuple[Array, tuple[str]]:
    """Bring uint8 or [0, 1] float images [n, h, w, 1 or 3] to the spec's; also return how."""
    _check_count(source, len(arrays), spec)
    images = np.empty((len(arrays), *spec.image_shape), np.uint8)

    def fit_one(index: int) -> None:
        pixels = arrays[index]
        if pixels.dtype != np.uint8:
            pixels = np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)
        images[index] = image_files.fit_pixels(pixels, spec)

    try:
        image_files.in_threads(len(arrays), fit_one)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    _, height, width, channels = arrays.shape
    return images, (image_files.describe_fit(width, height, channels, spec),)


def _check_count(source: str | Path, count: int, spec: SystemSpec) -> None:
    size = count * math.prod(spec.image_shape)
    image_files.check_memory(source, f"holds {count:,} images of the system's size", size)
