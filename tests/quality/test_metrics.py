"""The sliced Wasserstein distance, held to closed forms, to SciPy and to what it is for."""

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from shared.quality.metrics import (
    DIRECTIONS,
    PATCHES_PER_IMAGE,
    FlatImagesError,
    downsample,
    laplacian_pyramid,
    patch_corners,
    pyramid_sizes,
    sliced_distance,
    sliced_wasserstein_distance,
    unit_directions,
    upsample,
)
from tests.tiers import one_in

RANGE = (0.0, 1.0)
KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
# In the distance's own unit, thousandths: what float32 patches cost. Measured 1.3e-4 at most; a
# deviation over n - 1 instead of n shows at 2e-3 in the smallest sets below.
ROUNDING = 5e-4


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pictures(count: int, seed: int, size: int = 64, channels: int = 3) -> np.ndarray:
    """Straight edges between plain colours, with a little grain, in [0, 1]."""
    random = draw(seed)
    rows, columns = np.mgrid[0:size, 0:size] / size - 0.5
    images = np.full((count, size, size, channels), 0.5)
    for image in images:
        for _ in range(4):
            angle, offset = random.uniform(0, 2 * np.pi), random.uniform(-0.4, 0.4)
            side = rows * np.cos(angle) + columns * np.sin(angle) > offset
            image[side] = random.uniform(0.1, 0.9, channels)
        image += 0.02 * random.standard_normal(image.shape)
    return np.clip(images, 0, 1)


def distances(a: np.ndarray, b: np.ndarray) -> dict[int, float]:
    return sliced_wasserstein_distance(a, b, RANGE, directions=64)


# --- points ----------------------------------------------------------------------------------


def expected_shift(length: float, components: int) -> tuple[float, float]:
    """Mean and deviation of |<d, u>| over the sphere, |d| = length.

    <d, u>² / |d|² is Beta(1/2, (n - 1)/2), so the mean is |d| Γ(n/2) / (√π Γ((n + 1)/2)) and the
    mean square |d|² / n.
    """
    logarithm = math.lgamma(components / 2) - math.lgamma((components + 1) / 2)
    mean = length * math.exp(logarithm) / math.sqrt(math.pi)
    return mean, math.sqrt(length**2 / components - mean**2)


@pytest.mark.parametrize("components", [2, 49, 147])
def test_a_shifted_cloud_is_as_far_as_the_closed_form_says(components: int) -> None:
    """On every direction u the distance is |<d, u>|; its mean over the sphere is known."""
    points = draw().standard_normal((500, components))
    shift = draw(1).standard_normal(components)
    directions = unit_directions(components, 2048, seed=0)
    received = sliced_distance(points, points + shift, directions)
    assert received == pytest.approx(np.abs(shift @ directions).mean(), rel=1e-12)
    mean, deviation = expected_shift(float(np.linalg.norm(shift)), components)
    # Four standard errors of a mean over the directions: 6 % (2 components) and 7 % of it.
    assert abs(received - mean) < 4 * deviation / math.sqrt(2048)


def test_two_gaussian_clouds_are_as_far_as_their_means() -> None:
    """Independent samples of N(0, 1) and N(d, 1): |<d, u>| up to the sampling of both."""
    components, count = 147, 20_000
    shift = np.full(components, 0.25)
    a = draw(1).standard_normal((count, components))
    b = draw(2).standard_normal((count, components)) + shift
    received = sliced_distance(a, b, unit_directions(components, DIRECTIONS, seed=0))
    mean, deviation = expected_shift(float(np.linalg.norm(shift)), components)
    # Bobkov & Ledoux 2019, theorem 3.2: a sample of n is on average at most ∫√(F(1 - F)) / √n
    # from its normal distribution, 1.62 / √n; there are two.
    sampling = 2 * 1.62 / math.sqrt(count)
    bound = 4 * deviation / math.sqrt(DIRECTIONS) + sampling
    assert abs(received - mean) < bound
    # Unsorted, the gaps would be those of random pairs, 1.13 on average.
    assert bound < 0.3 * mean < 0.1


def test_every_projection_is_scipys_wasserstein_distance() -> None:
    a, b = draw(1).standard_normal((300, 5)), draw(2).exponential(size=(300, 5))
    directions = unit_directions(5, 40, seed=3)
    expected = [stats.wasserstein_distance(a @ u, b @ u) for u in directions.T]
    assert sliced_distance(a, b, directions) == pytest.approx(np.mean(expected), rel=1e-12)
    for k in range(40):
        one = sliced_distance(a, b, directions[:, k : k + 1])
        assert one == pytest.approx(expected[k], rel=1e-12)


def test_the_order_of_the_points_does_not_matter() -> None:
    a, b = draw(1).standard_normal((300, 5)), draw(2).standard_normal((300, 5))
    directions = unit_directions(5, 40, seed=3)
    shuffled = sliced_distance(a, draw(3).permutation(b), directions)
    assert shuffled == pytest.approx(sliced_distance(a, b, directions), rel=1e-12)


def test_directions_have_length_one_and_no_preferred_axis() -> None:
    directions = unit_directions(147, 4096, seed=0)
    assert np.linalg.norm(directions, axis=0) == pytest.approx(1)
    # Uniform over the sphere: E u = 0 and E u² = 1/n in every component, here to 6 standard errors.
    assert np.abs(directions.mean(axis=1)).max() < 6 / math.sqrt(147 * 4096)
    assert np.square(directions).mean(axis=1) == pytest.approx(1 / 147, rel=6 * math.sqrt(2 / 4096))
    assert not np.array_equal(directions, unit_directions(147, 4096, seed=0, index=1))
    # Points drawn from a cube pass all that; their angles in the plane crowd at the corners.
    angles = np.arctan2(*unit_directions(2, 20_000, seed=0))
    assert stats.kstest(angles, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3


# --- the pyramid -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(64, (64, 32, 16)), (28, (28, 14)), (128, (128, 64, 32, 16)), (14, (14,)), (27, (27,))],
)
def test_sizes_of_the_levels(size: int, sizes: tuple[int, ...]) -> None:
    assert pyramid_sizes(size) == sizes
    levels = laplacian_pyramid(np.zeros((2, size, size, 1)), len(sizes))
    assert [level.shape for level in levels] == [(2, s, s, 1) for s in sizes]


def test_halving_and_doubling_are_scipys_binomial_filter() -> None:
    images = draw().uniform(size=(2, 28, 28, 3))
    kernel = KERNEL[None, :, :, None]
    smooth = ndimage.convolve(images, kernel, mode="mirror")
    assert downsample(images) == pytest.approx(smooth[:, ::2, ::2], abs=1e-14)
    spread = np.zeros((2, 56, 56, 3))
    spread[:, ::2, ::2] = images
    doubled = ndimage.convolve(spread, 4 * kernel, mode="mirror")
    assert upsample(images) == pytest.approx(doubled, abs=1e-14)


def test_the_levels_add_up_to_the_image() -> None:
    images = pictures(2, seed=1)
    *fine, rebuilt = laplacian_pyramid(images, 3)
    for level in reversed(fine):
        rebuilt = upsample(rebuilt) + level
    assert rebuilt == pytest.approx(images, abs=1e-14)


def test_a_flat_image_has_nothing_on_the_fine_levels() -> None:
    fine, middle, low = laplacian_pyramid(np.full((1, 64, 64, 3), 0.3), 3)
    assert np.abs(fine).max() < 1e-15
    assert np.abs(middle).max() < 1e-15
    assert low == pytest.approx(0.3)


def test_a_wave_is_found_on_the_level_of_its_length() -> None:
    """A checkerboard is all on the finest level, a wave over the whole image on the last."""
    rows, columns = np.mgrid[0:64, 0:64]
    checkerboard = ((rows + columns) % 2 - 0.5)[None, :, :, None]
    wave = np.cos(2 * np.pi * columns / 64)[None, :, :, None]
    assert [float(np.square(x).mean()) for x in laplacian_pyramid(checkerboard, 3)] == (
        pytest.approx([0.25, 0, 0], abs=1e-15)
    )
    energy = [float(np.square(x).mean()) for x in laplacian_pyramid(wave, 3)]
    assert energy[2] > 0.4
    # Measured 9e-4 on the middle level.
    assert max(energy[:2]) < 0.005 * energy[2]


# --- images ----------------------------------------------------------------------------------


def slow_distance(real: np.ndarray, generated: np.ndarray, seed: int) -> dict[int, float]:
    """The same from the definition, in float64, patch by patch, with SciPy's parts."""
    size, channels = real.shape[2:]
    by_size = {}
    levels: list[list[np.ndarray]] = []
    for images in (real, generated):
        kernel, pyramid = KERNEL[None, :, :, None], [images]
        while pyramid[-1].shape[1] >= 28:
            smaller = ndimage.convolve(pyramid[-1], kernel, mode="mirror")[:, ::2, ::2]
            spread = np.zeros_like(pyramid[-1])
            spread[:, ::2, ::2] = smaller
            pyramid[-1] = pyramid[-1] - ndimage.convolve(spread, 4 * kernel, mode="mirror")
            pyramid.append(smaller)
        levels.append(pyramid)
    for pair in zip(*levels, strict=True):
        size = pair[0].shape[1]
        corners = patch_corners(len(real), size, PATCHES_PER_IMAGE, seed)
        points = []
        for level in pair:
            patches = np.array(
                [
                    level[i, row : row + 7, column : column + 7].transpose(2, 0, 1)
                    for i in range(len(level))
                    for row, column in corners[i]
                ]
            )
            for c in range(channels):
                patches[:, c] = (patches[:, c] - patches[:, c].mean()) / patches[:, c].std()
            points.append(patches.reshape(len(patches), -1))
        directions = unit_directions(49 * channels, 8, seed, size)
        by_size[size] = 1000 * np.mean(
            [stats.wasserstein_distance(points[0] @ u, points[1] @ u) for u in directions.T]
        )
    return by_size


@pytest.mark.parametrize(
    ("count", "size", "channels"),
    [(4, 64, 3), (4, 28, 1), (130, 14, 1)],
    ids=["colour", "grey", "more than are worked on at once"],
)
def test_the_whole_distance_from_the_definition(count: int, size: int, channels: int) -> None:
    a, b = (pictures(count, seed, size, channels) for seed in (1, 2))
    received = sliced_wasserstein_distance(a, b, RANGE, seed=5, directions=8)
    expected = slow_distance(a, b, 5)
    assert list(received) == list(expected)
    for level, value in expected.items():
        assert received[level] == pytest.approx(value, abs=ROUNDING), level


@pytest.mark.parametrize("dtype", one_in(3, ["float32", "float64", "uint8"]))
def test_a_set_is_at_distance_zero_from_itself(dtype: str) -> None:
    images = pictures(150, seed=1, size=28) * (255 if dtype == "uint8" else 1)
    images = images.astype(dtype)
    high = 255.0 if dtype == "uint8" else 1.0
    received = sliced_wasserstein_distance(images, images.copy(), (0, high))
    assert received == {28: 0.0, 14: 0.0}


def test_it_is_symmetric_and_the_seed_decides() -> None:
    a, b = pictures(20, seed=1), pictures(20, seed=2)
    assert distances(a, b) == distances(b, a)
    other = sliced_wasserstein_distance(a, b, RANGE, seed=1, directions=64)
    assert other != distances(a, b)


def test_ranges_and_dtypes_give_the_same() -> None:
    pixels = [np.rint(pictures(20, seed) * 255).astype(np.uint8) for seed in (1, 2)]
    expected = sliced_wasserstein_distance(*pixels, (0, 255))
    for low, high, dtype in ((0, 1, "float64"), (-1, 1, "float64"), (-1, 1, "float32")):
        a, b = ((x / 255 * (high - low) + low).astype(dtype) for x in pixels)
        received = sliced_wasserstein_distance(a, b, (low, high))
        assert received == pytest.approx(expected, abs=ROUNDING), (low, high, dtype)


def test_neither_input_is_changed() -> None:
    a, b = pictures(4, seed=1), pictures(4, seed=2)
    before = a.copy(), b.copy()
    distances(a, b)
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])


@pytest.mark.slow
def test_noise_is_much_farther_than_two_halves_of_one_distribution() -> None:
    real, more = pictures(150, seed=1), pictures(150, seed=2)
    noise = draw(3).uniform(size=real.shape)
    floor, far = distances(real, more), distances(real, noise)
    # Measured 14, 14 and 3.5 times; 150 images are few on the level of the layout.
    for size, times in ((64, 10), (32, 10), (16, 2.5)):
        assert far[size] > times * floor[size], (floor, far)


def test_blur_is_seen_most_on_the_finest_level() -> None:
    images = pictures(150, seed=1)
    far = distances(images, ndimage.gaussian_filter(images, (0, 0.7, 0.7, 0)))
    # Measured 113, 13 and 1.4.
    assert far[64] > 5 * far[32] > 5 * far[16], far


def test_shading_is_seen_most_on_the_last_level() -> None:
    """A light from the side: a slope over the whole image, another one in every image."""
    images = pictures(150, seed=1) * 0.5 + 0.25
    slopes = draw(3).uniform(-0.5, 0.5, (150, 1, 1, 3))
    far = distances(images, images + slopes * (np.arange(64) / 63 - 0.5)[:, None])
    # Measured 55, 6.8 and 0.9.
    assert far[16] > 5 * far[32] > 5 * far[64], far


def test_a_tint_or_a_contrast_that_all_share_is_not_seen() -> None:
    """Each set has its own mean and deviation: a documented limit, as in the authors' code."""
    images = pictures(20, seed=1) * 0.5
    tinted = images * [0.7, 1.0, 1.3] + [0.1, 0.0, 0.3]
    assert max(distances(images, tinted).values()) < ROUNDING


def test_positions_do_not_depend_on_how_many_images_there_are() -> None:
    few, many = patch_corners(3, 64, 128, seed=4), patch_corners(9, 64, 128, seed=4)
    assert np.array_equal(few, many[:3])
    assert (many.min(), many.max()) == (0, 57)
    assert not np.array_equal(many, patch_corners(9, 64, 128, seed=5))


GOOD = pictures(3, seed=1, size=28)
WITH_NAN = np.where(np.arange(3)[:, None, None, None] == 1, np.nan, GOOD)


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (GOOD, GOOD[:2], r"real images \[3, 28, 28, 3\], generated ones \[2, .*equally many"),
        (GOOD, pictures(3, 1, size=64), r"generated ones \[3, 64, 64, 3\]; expected equally many"),
        (GOOD[:1], GOOD[:1], r"real images \[1, 28.*; expected equally many, at least 2"),
        (GOOD, WITH_NAN, "the generated images lie between nan and nan"),
        (np.full_like(GOOD, np.inf), GOOD, "the real images lie between inf and inf"),
        (GOOD[0], GOOD[0], r"real images \[28, 28, 3\].*; expected .*\[n, size, size, 1 or 3"),
        (GOOD[:, :14], GOOD[:, :14], r"real images \[3, 14, 28, 3\]"),
        (GOOD[..., :2], GOOD[..., :2], r"real images \[3, 28, 28, 2\]"),
        (GOOD * 255, GOOD, "lie between .* and 2.*; expected the image_range 0 to 1"),
        (GOOD[:, :8, :8], GOOD[:, :8, :8], "8 pixels a side; expected at least 14"),
    ],
)
def test_images_that_cannot_be_measured(
    real: np.ndarray, generated: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein_distance(real, generated, RANGE)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_flat_images_are_an_error_and_not_amplified_rounding(value: float) -> None:
    flat = np.full(GOOD.shape, value, np.float32)
    with pytest.raises(FlatImagesError, match="generated images at 28 pixels do not vary"):
        sliced_wasserstein_distance(GOOD, flat, RANGE)
    nearly = flat * 255 + draw().uniform(0, 1e-4, GOOD.shape)
    with pytest.raises(FlatImagesError, match="of the range"):
        sliced_wasserstein_distance(GOOD * 255, nearly, (0, 255))
    one_flat_channel = GOOD * [1.0, 0.0, 1.0] + [0.0, value, 0.0]
    with pytest.raises(FlatImagesError, match="real images at 28 pixels do not vary in channel 1"):
        sliced_wasserstein_distance(one_flat_channel, GOOD, RANGE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be between"),
    ],
)
def test_counts_out_of_range(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein_distance(GOOD, GOOD, RANGE, **options)


@pytest.mark.parametrize("image_range", [(1.0, 0.0), (0.0, 0.0), (0.0, math.inf)])
def test_ranges_that_are_none(image_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        sliced_wasserstein_distance(GOOD, GOOD, image_range)
