"""Pixels in the range of a system, and the batches of a run."""

import numpy as np
import pytest

from shared.data.dataset import Batches, to_image_range, to_pixels
from shared.files.errors import InputError
from shared.spec import SystemSpec
from shared.spec.streams import batch_order
from tests.data.made_images import COLOUR, NOISE

# --- scaling ---------------------------------------------------------------------------------

UNIT = COLOUR.replace(image_range=(0.0, 1.0))
LEVELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spec", [COLOUR, UNIT], ids=["-1..1", "0..1"])
def test_scaling_is_exact_and_has_an_inverse(spec, dtype):
    low, high = spec.image_range
    scaled = to_image_range(LEVELS, spec, dtype)
    assert scaled.dtype == dtype
    assert (scaled[0], scaled[255]) == (low, high)
    # Two roundings of numbers up to `high - low`: at most one unit of the last place of 1.
    expected = [low + (high - low) * level / 255 for level in range(256)]
    np.testing.assert_allclose(scaled, expected, rtol=0, atol=np.finfo(dtype).eps)
    back = to_pixels(scaled, spec.image_range)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, LEVELS)


def test_scaling_is_done_in_the_dtype():
    single = np.float32(100) / np.float32(255) * np.float32(2) + np.float32(-1)
    assert to_image_range(np.array([100], np.uint8), COLOUR)[0] == single
    assert to_image_range(np.array([100], np.uint8), COLOUR, "float64")[0] == 100 / 255 * 2 - 1


def test_pixels_are_rounded_and_clipped():
    values = np.array([-5, -1, -0.0001, 0.0001, 1, 1.2, np.inf, -np.inf, np.nan], np.float32)
    assert to_pixels(values, COLOUR.image_range).tolist() == [0, 0, 127, 128, 255, 255, 255, 0, 0]
    assert to_pixels(np.array([[0.5 / 255 + 1e-6]]), UNIT.image_range).tolist() == [[1]]


# --- batches ---------------------------------------------------------------------------------


def numbered(count: int) -> np.ndarray:
    """Images that carry their number in the first pixel's first channel."""
    images = np.zeros((count, *COLOUR.image_shape), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images


def numbers(batch: np.ndarray) -> list[int]:
    return to_pixels(batch, COLOUR.image_range)[:, 0, 0, 0].tolist()


def of_size(batch_size: int) -> SystemSpec:
    return COLOUR.replace(batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 7, 10, 22, 23])
def test_an_epoch_visits_each_image_once_but_for_the_tail(batch_size):
    batches = Batches(numbered(23), of_size(batch_size), seed=3)
    assert batches.batches_per_epoch == 23 // batch_size
    epochs = []
    for epoch in range(3):
        first = epoch * batches.batches_per_epoch
        steps = range(first, first + batches.batches_per_epoch)
        epochs.append([number for step in steps for number in numbers(batches.images(step))])
    for epoch, seen in enumerate(epochs):
        assert seen == batch_order(3, epoch, 23)[: 23 // batch_size * batch_size].tolist()
        assert len(set(seen)) == 23 // batch_size * batch_size
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_batch_depends_on_seed_and_step_alone():
    images = numbered(50)
    used = Batches(images, of_size(8), seed=11)
    for step in (0, 5, 6, 7, 1300, 2):
        used.images(step)
    fresh = Batches(images, of_size(8), seed=11)
    np.testing.assert_array_equal(used.images(1234), fresh.images(1234))
    other = Batches(images, of_size(8), seed=12)
    assert numbers(other.images(1234)) != numbers(fresh.images(1234))


@pytest.mark.parametrize("k", [2, 3, 5, 9])
def test_a_step_of_several_updates_takes_the_next_batches_of_the_same_order(k):
    single = Batches(numbered(23), of_size(5), seed=3)  # four batches an epoch
    several = Batches(numbered(23), of_size(5).replace(discriminator_steps=k), seed=3)
    for step in (0, 1, 2, 7, 3):  # one epoch's last batches and the next one's first, and back
        batches = [single.images(step * k + i) for i in range(k)]
        images = several.images(step)
        assert images.shape == (k * 5, 64, 64, 3)
        assert images.flags.c_contiguous
        np.testing.assert_array_equal(images, np.concatenate(batches))
    flat = [number for step in range(4) for number in numbers(several.images(step))]
    orders = [batch_order(3, epoch, 23)[:20] for epoch in range(9)]
    assert flat == np.concatenate(orders)[: 4 * k * 5].tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_is_contiguous_in_range_and_new(dtype):
    batches = Batches(NOISE, of_size(4), 0, dtype)
    batch = batches.images(0)
    assert batch.shape == (4, 64, 64, 3)
    assert batch.dtype == dtype
    assert batch.flags.c_contiguous
    chosen = NOISE[batch_order(0, 0, 5)[:4]].astype(dtype)
    np.testing.assert_array_equal(batch, chosen / 255 * 2 - 1)
    expected = batch.copy()
    batch[:] = 9
    np.testing.assert_array_equal(batches.images(0), expected)


def test_fortran_ordered_images_give_contiguous_batches():
    images = np.asfortranarray(NOISE)
    batch = Batches(images, of_size(2), 0).images(0)
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, Batches(NOISE, of_size(2), 0).images(0))


def test_a_batch_larger_than_the_data_set_is_an_error():
    message = r"batch size is 128, .* there are only 5 images; use --batch-size 5 or less"
    with pytest.raises(InputError, match=message):
        Batches(NOISE, of_size(128), 0)


def test_batches_refuse_what_does_not_suit():
    with pytest.raises(
        InputError, match=r"uint8 \(5, 64, 64, 1\).* expects uint8 images of \(64, 64, 3\)"
    ):
        Batches(NOISE[..., :1], of_size(2), 0)
    with pytest.raises(InputError, match=r"the images are float64"):
        Batches(NOISE / 255, of_size(2), 0)
    for batch_size in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, re"):
            of_size(batch_size)
    with pytest.raises(ValueError, match="seed must be between"):
        Batches(NOISE, of_size(2), -1)
