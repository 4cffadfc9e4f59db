"""The work of a training step: operations and bytes against sums by hand."""

import itertools

import pytest

from benchmarks.plan.costs import bytes_per_image, fixed_bytes, flops_per_image, layer_costs
from shared.spec import SYSTEMS

# --- operations ------------------------------------------------------------------------------


def test_the_step_of_dcgan64_is_the_number_that_torch_counts():
    assert flops_per_image(SYSTEMS["dcgan64"]) == 2_274_623_488
    for network, count in (("generator", 104_628_224), ("discriminator", 103_817_216)):
        layers = layer_costs(SYSTEMS["dcgan64"], network)
        assert sum(layer.multiply_adds for layer in layers) == count


def test_the_count_does_not_depend_on_head_loss_or_batch_and_grows_with_the_width():
    system = SYSTEMS["dcgan64"]
    # The linear head multiplies 4 x 4 x 512 numbers by one weight each, as the conv head does.
    assert flops_per_image(SYSTEMS["dcgan64-lsgan"]) == flops_per_image(system)
    assert flops_per_image(system.replace(loss="minimax", batch_size=2)) == flops_per_image(system)
    # Hidden layers grow with the square of the width, those beside images and latents linearly.
    assert 2 < flops_per_image(system.replace(width=128)) / flops_per_image(system) < 4


# --- bytes -----------------------------------------------------------------------------------

# Elements of input and output per image, of the kernel, and multiply-adds per image of each layer
# that has a kernel: written down from the tables of the papers, not taken from the spec.
LAYERS = {
    "dcgan64": {
        "generator": [
            (100, 8192, 100 * 8192, 819_200),
            (8192, 16384, 16 * 512 * 256, 16 * 16 * 512 * 256),
            (16384, 32768, 16 * 256 * 128, 64 * 16 * 256 * 128),
            (32768, 65536, 16 * 128 * 64, 256 * 16 * 128 * 64),
            (65536, 12288, 16 * 64 * 3, 1024 * 16 * 64 * 3),
        ],
        "discriminator": [
            (12288, 65536, 16 * 3 * 64, 1024 * 16 * 3 * 64),
            (65536, 32768, 16 * 64 * 128, 256 * 16 * 64 * 128),
            (32768, 16384, 16 * 128 * 256, 64 * 16 * 128 * 256),
            (16384, 8192, 16 * 256 * 512, 16 * 16 * 256 * 512),
            (8192, 1, 8192, 8192),
        ],
    },
    "conv28": {
        "generator": [
            (62, 1024, 62 * 1024, 62 * 1024),
            (1024, 6272, 1024 * 6272, 1024 * 6272),
            (6272, 12544, 16 * 128 * 64, 49 * 16 * 128 * 64),
            (12544, 784, 16 * 64, 196 * 16 * 64),
        ],
        "discriminator": [
            (784, 12544, 16 * 64, 196 * 16 * 64),
            (12544, 6272, 16 * 64 * 128, 49 * 16 * 64 * 128),
            (6272, 1024, 6272 * 1024, 6272 * 1024),
            (1024, 1, 1024, 1024),
        ],
    },
    "mlp28": {
        "generator": [
            (100, 128, 12800, 12800),
            (128, 256, 32768, 32768),
            (256, 784, 200_704, 200_704),
        ],
        "discriminator": [
            (784, 256, 200_704, 200_704),
            (256, 128, 32768, 32768),
            (128, 1, 128, 128),
        ],
    },
}

# The README's, both networks.
PARAMETERS = {
    "dcgan64": (3_576_704, 2_765_568),
    "conv28": (6_640_193, 6_559_169),
    "mlp28": (247_440, 233_985),
}


def bytes_per_step(spec, batch_size, precision):
    return fixed_bytes(spec) + batch_size * bytes_per_image(spec, precision)


def walk(system, steps, batch):
    """Return the layers that a step passes, one after another, and the numbers Adam updates."""
    g, d = LAYERS[system]["generator"], LAYERS[system]["discriminator"]
    passed, updated = [], 0
    for _ in range(steps):
        passed += g  # images, detached
        for _ in ("real", "fake"):
            passed += [*d, *d, *d[1:]]  # forward, by the weights, by the inputs but the images
        updated += PARAMETERS[system][1]
    passed += [] if batch == "same_images" else g  # forward once more
    passed += [*d, *d]  # forward, by the inputs, the images included
    passed += [*g, *g[1:]]  # by the weights, by the inputs but the latents
    return passed, updated + PARAMETERS[system][0]


@pytest.mark.parametrize("batch", ["same_images", "same_latents", "new_latents"])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("system", LAYERS)
def test_bytes_and_operations_are_those_of_a_step_walked_by_hand(system, steps, batch):
    spec = SYSTEMS[system].replace(discriminator_steps=steps, generator_batch=batch)
    passed, updated = walk(system, steps, batch)
    assert flops_per_image(spec) == 2 * sum(operations for _, _, _, operations in passed)
    for images, (precision, size) in itertools.product(
        (1, 64), {"float32": 4, "tf32": 4, "bfloat16": 2}.items()
    ):
        # Two operands and a result are the input, the output and the kernel, whichever pass it is.
        moved = sum(
            size * images * (before + after) + 4 * kernel for before, after, kernel, _ in passed
        )
        assert bytes_per_step(spec, images, precision) == moved + 7 * 4 * updated


def test_the_step_of_dcgan64_moves_1_7_gigabytes():
    """The sum, in elements, from the shapes alone.

    D: a pass moves per image 77,824 + 98,304 + 49,152 + 24,576 + 8,193 = 258,049 and a kernel of
    2,763,776; eight passes, two without the first layer (77,824 and 3,072). G: a pass moves
    8,292 + 24,576 + 49,152 + 98,304 + 77,824 = 258,148 and 3,574,784; three passes, one without
    the first layer (8,292 and 819,200).
    """
    per_image = 8 * 258_049 - 2 * 77_824 + 3 * 258_148 - 8_292
    kernels = 8 * 2_763_776 - 2 * 3_072 + 3 * 3_574_784 - 819_200
    adam = 7 * (3_576_704 + 2_765_568)
    expected = 4 * (128 * per_image + kernels + adam)
    assert expected == 1_675_167_232
    assert bytes_per_step(SYSTEMS["dcgan64"], 128, "float32") == expected
    half = 2 * 128 * per_image + 4 * (kernels + adam)
    assert bytes_per_step(SYSTEMS["dcgan64"], 128, "bfloat16") == half


@pytest.mark.parametrize("system", SYSTEMS)
def test_bytes_grow_evenly_with_the_batch_and_with_the_steps_of_the_discriminator(system):
    spec = SYSTEMS[system]
    by_batch = [bytes_per_step(spec, batch, "float32") for batch in (8, 16, 24)]
    assert by_batch[2] - by_batch[1] == by_batch[1] - by_batch[0] > 0
    assert 2 * by_batch[0] > by_batch[1]  # weights and Adam are not made twice
    by_steps = [
        bytes_per_step(spec.replace(discriminator_steps=k), 8, "float32") for k in (1, 2, 3)
    ]
    assert by_steps[2] - by_steps[1] == by_steps[1] - by_steps[0] > 0
