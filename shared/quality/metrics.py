"""How far generated images are from real ones: the sliced Wasserstein distance, whole and quick.

Karras et al. 2018, *Progressive growing of GANs*, section 5: patches of 7x7 pixels from every level
of a Laplacian pyramid, one set of them compared with the other along random directions. Each level
answers for one scale: the finest for edges and noise, the last for the layout.

docs/evaluation.md says where it departs from the authors' code, and what it does not see.
"""

import math
import statistics

import numpy as np
from scipy import ndimage

from shared.data.dataset import ImageDataset, to_image_range
from shared.interface import Array
from shared.spec import SystemSpec
from shared.spec.streams import stream

PATCH_SIZE = 7
PATCHES_PER_IMAGE = 128
DIRECTIONS = 512
"""Karras et al. 2018 draw 128 directions four times and take the mean, which is the same."""
SMALLEST_SIZE = 14
"""Side of the last level at least, in pixels; theirs is 16. At 14 a 28-pixel image has two levels,
and a level still has 64 places for a patch; at 8 it would have four."""
SCALE = 1000  # distances are reported times a thousand, as in the paper
# Of `SampleQuality`: a fifth of the work, and 64 other digits are at 33 instead of 29.
QUICK_PATCHES = 64
QUICK_DIRECTIONS = 128

_FILTER = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
# Of the image range. What rounding leaves of images that are flat in float32 is 1e-7, and divided
# by its own deviation it would pass for a pattern. One step of 8 bits in one of a thousand pixels
# is 1e-4.
_FLAT_BELOW = 1e-6
_IMAGES_AT_ONCE = 128
_DIRECTIONS_AT_ONCE = 16


class FlatImagesError(ValueError):
    """A level on which one of the sets has no variation, so that nothing can be normalised."""


def sliced_wasserstein_distance(
    real: Array,
    generated: Array,
    image_range: tuple[float, float],
    *,
    seed: int = 0,
    patches_per_image: int = PATCHES_PER_IMAGE,
    directions: int = DIRECTIONS,
) -> dict[int, float]:
    """Return the distance of two sets of images times SCALE, of each level by its side in pixels.

    Both are [n, size, size, 1 or 3] with the same n of at least 2, integers or floats in
    `image_range`. With the seed, image i has the same patch positions in both sets, whatever n is.
    Sums are float64; the patches float32, as in the authors' code, 75 kB for an RGB image. Raises
    FlatImagesError if a channel of a level has no variation, ValueError for other arguments.
    """
    _check_pair(real, generated, image_range)
    sizes = pyramid_sizes(real.shape[1])
    by_size = {}
    for level, size in enumerate(sizes):
        corners = patch_corners(len(real), size, patches_per_image, seed)
        sets = []
        for what, images in (("real", real), ("generated", generated)):
            patches = _level_patches(images, image_range, len(sizes), level, corners)
            sets.append(_normalised(patches, f"the {what} images at {size} pixels"))
        axes = unit_directions(sets[0].shape[1], directions, seed, size)
        by_size[size] = SCALE * sliced_distance(sets[0], sets[1], axes)
        del sets, patches  # the next level's would be made beside them
    return by_size


def pyramid_sizes(size: int) -> tuple[int, ...]:
    """Return the sides of the levels: halved while that is exact and leaves SMALLEST_SIZE.

    >>> pyramid_sizes(64), pyramid_sizes(28)
    ((64, 32, 16), (28, 14))
    """
    if size < SMALLEST_SIZE:
        expected = (
            f"expected at least {SMALLEST_SIZE}, for patches of {PATCH_SIZE} need room to differ"
        )
        raise ValueError(f"received {size} pixels a side; {expected}")
    sizes = [size]
    while sizes[-1] % 2 == 0 and sizes[-1] // 2 >= SMALLEST_SIZE:
        sizes.append(sizes[-1] // 2)
    return tuple(sizes)


def laplacian_pyramid(images: Array, levels: int) -> list[Array]:
    """Return the levels of floats [n, size, size, channels], finest first; the last is low-pass.

    Of the others, level + `upsample(next smaller image)` is the image (Burt & Adelson 1983).
    """
    pyramid = [images]
    for _ in range(levels - 1):
        pyramid.append(downsample(pyramid[-1]))
        pyramid[-2] = pyramid[-2] - upsample(pyramid[-1])
    return pyramid


def downsample(images: Array) -> Array:
    """Return images at half their side: smoothed, then every second pixel."""
    return _smooth(images)[:, ::2, ::2]


def upsample(images: Array) -> Array:
    """Return images at twice their side: zeros in between, smoothed, times four."""
    batch, height, width, channels = images.shape
    spread = np.zeros((batch, 2 * height, 2 * width, channels), images.dtype)
    spread[:, ::2, ::2] = images
    return _smooth(spread) * 4


def _smooth(images: Array) -> Array:
    for axis in (1, 2):
        images = ndimage.correlate1d(images, _FILTER, axis, mode="mirror")
    return images


def patch_corners(images: int, size: int, patches_per_image: int, seed: int) -> Array:
    """Return the patches' upper left (row, column): int64 [images, patches_per_image, 2]."""
    draw = stream(seed, f"sliced_wasserstein/corners/{size}")
    return draw.integers(0, size - PATCH_SIZE + 1, (images, patches_per_image, 2))


def _level_patches(
    images: Array, image_range: tuple[float, float], levels: int, level: int, corners: Array
) -> Array:
    """Return one level's patches, float32 [images x patches, channels, 7, 7]."""
    low, high = image_range
    patches = np.empty((*corners.shape[:2], images.shape[3], PATCH_SIZE, PATCH_SIZE), np.float32)
    # A pyramid of all images would be large.
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        chunk = slice(start, start + _IMAGES_AT_ONCE)
        scaled = (images[chunk].astype(np.float64) - low) / (high - low)
        pixels = laplacian_pyramid(scaled, levels)[level]
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (PATCH_SIZE,) * 2, axis=(1, 2))
        rows, columns = corners[chunk, :, 0], corners[chunk, :, 1]
        patches[chunk] = windows[np.arange(len(pixels))[:, None], rows, columns]
    return patches.reshape(-1, *patches.shape[2:])


def _normalised(patches: Array, what: str) -> Array:
    """Bring each channel to mean 0 and deviation 1, in place; returns [patches, components]."""
    for channel, values in enumerate(np.moveaxis(patches, 1, 0)):
        values -= values.mean(dtype=np.float64)
        deviation = np.sqrt(np.mean(np.square(values), dtype=np.float64))
        if deviation < _FLAT_BELOW:
            found = f"{what} do not vary in channel {channel}: deviation {deviation:.1e}"
            least = f"at least {_FLAT_BELOW:.0e} of the range, by which patches are divided"
            raise FlatImagesError(f"{found}; expected {least}: give images of several colours")
        values /= deviation
    return patches.reshape(len(patches), -1)


def unit_directions(components: int, count: int, seed: int, index: int = 0) -> Array:
    """Return directions spread evenly over the sphere, [components, count]: draw `index`."""
    draw = stream(seed, "sliced_wasserstein/directions", index)
    drawn = draw.standard_normal((components, count))
    return drawn / np.linalg.norm(drawn, axis=0)


def sliced_distance(a: Array, b: Array, directions: Array) -> float:
    """Return the mean over directions of the Wasserstein-1 distance of the projected points.

    `a` and `b` are [points, components], `directions` [components, count]. On a line, equally many
    points are matched in their order (Rabin et al. 2011, *Wasserstein barycenter*, section 2).
    """
    rows = np.ascontiguousarray(directions.T, a.dtype)
    total = 0.0
    # A few at a time: all projections would take three times the memory of the points.
    for start in range(0, len(rows), _DIRECTIONS_AT_ONCE):
        chunk = rows[start : start + _DIRECTIONS_AT_ONCE]
        gaps = np.sort(chunk @ a.T, axis=1) - np.sort(chunk @ b.T, axis=1)
        total += float(np.abs(gaps).mean(axis=1, dtype=np.float64).sum())
    return total / len(rows)


def _check_pair(real: Array, generated: Array, image_range: tuple[float, float]) -> None:
    shape = real.shape
    is_square = len(shape) == 4 and shape[1] == shape[2] and shape[3] in (1, 3)
    if generated.shape != shape or not is_square or len(real) < 2:
        found = f"received real images {list(shape)}, generated ones {list(generated.shape)}"
        raise ValueError(f"{found}; expected equally many, at least 2, [n, size, size, 1 or 3]")
    low, high = image_range
    slack = (high - low) * 1e-3
    for what, images in (("real", real), ("generated", generated)):
        # Also where one is NaN: a run that diverged has no distance.
        if not (images.min() >= low - slack and images.max() <= high + slack):
            found = f"the {what} images lie between {images.min():g} and {images.max():g}"
            raise ValueError(f"{found}; expected the image_range {low:g} to {high:g}")


class SampleQuality:
    """A rough figure of a run's samples, cheap enough to take while it trains.

    The mean distance of at most `count` samples to as many real images, the same for every seed:
    0.15 s for 64x64 colour images and 0.01 s for 28x28 grey ones on one CPU core. 64 images are
    few: differences of less than about 10 mean nothing, nor do those between data sets or numbers
    of images. Its `count` is how many there are.
    """

    def __init__(self, dataset: ImageDataset, spec: SystemSpec, count: int) -> None:
        self._spec, self.count = spec, min(count, len(dataset.images))
        order = stream(0, "sample_quality").permutation(len(dataset.images))
        self._real = to_image_range(dataset.images[order[:count]], spec)
        self._others = to_image_range(dataset.images[order[count : 2 * count]], spec)

    def distance(self, images: Array) -> float:
        """Return the distance x 1000 of images [n, height, width, channels] in the spec's range.

        The first `count` of them are taken. NaN where there is no distance: images that are not
        finite, or that are all of one colour, as those of a generator that has collapsed.
        """
        images = images[: self.count]
        if not np.isfinite(images).all():
            return math.nan
        counts = {"patches_per_image": QUICK_PATCHES, "directions": QUICK_DIRECTIONS}
        try:
            levels = sliced_wasserstein_distance(
                self._real, images, self._spec.image_range, **counts
            )
        except FlatImagesError:
            return math.nan
        return statistics.fmean(levels.values())

    def distance_of_real_images(self) -> float:
        """Return what as many other real images reach; NaN where the data set has not so many."""
        return self.distance(self._others) if len(self._others) == self.count else math.nan
