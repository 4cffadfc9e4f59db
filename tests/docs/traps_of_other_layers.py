"""Traps of layers that the four systems do not have and a system of a file may."""

import importlib

import numpy as np

from shared.reference import layers
from shared.reference.comparison import relative_l2
from shared.reference.optimizers import optimizer_update
from shared.spec import Conventions
from shared.spec.optimizers import RMSPropSpec
from tests.docs.trap import Trap, random


def nchw(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2)


def upsample_corners(aligned: bool) -> float:
    torch = importlib.import_module("torch")
    x, weights = random(2, 8, 8, 3), layers.bilinear_matrix(8, 2, aligned_corners=False)
    expected = layers.separable_forward(x, weights, weights)[0]
    upsample = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=aligned)
    return relative_l2(upsample(torch.tensor(nchw(x))).numpy(), nchw(expected))


def average_pool_padding(counts: bool) -> float:
    """3x3 with stride 2: the mean is of real pixels, as TensorFlow's SAME has it."""
    torch = importlib.import_module("torch")
    x, ones = random(2, 8, 8, 3), np.ones((3, 3, 1, 1))
    sums = [layers.conv_forward(x[..., i : i + 1], ones, 2, 1)[0] for i in range(3)]
    counted = layers.conv_forward(np.ones((1, 8, 8, 1)), ones, 2, 1)[0]
    expected = np.concatenate(sums, axis=3) / counted
    pool = torch.nn.AvgPool2d(3, 2, 1, count_include_pad=counts)
    return relative_l2(pool(torch.tensor(nchw(x))).numpy(), nchw(expected))


def conv_transpose_same(stock: bool) -> float:
    """5x5 with stride 2, SAME: one row less is cut off at the start than PyTorch can."""
    torch = importlib.import_module("torch")
    x, kernel = random(2, 4, 4, 3), random(5, 5, 6, 3)
    expected = layers.conv_transpose_forward(x, kernel, 2, (1, 2))[0]
    padding, output_padding = (2, 1) if stock else (1, 0)
    received = torch.nn.functional.conv_transpose2d(
        torch.tensor(nchw(x)),
        torch.tensor(kernel.transpose(3, 2, 0, 1)),
        stride=2,
        padding=padding,
        output_padding=output_padding,
    )
    return relative_l2(received[..., :8, :8].numpy(), nchw(expected))


def conv_same(stock: bool) -> float:
    """5x5 with stride 2, SAME, on an even size: one row less before than behind."""
    torch = importlib.import_module("torch")
    x, kernel = random(2, 8, 8, 3), random(5, 5, 3, 6)
    expected = layers.conv_forward(x, kernel, 2, (1, 2))[0]
    padded = np.pad(x, ((0, 0), (2, 2) if stock else (1, 2), (2, 2) if stock else (1, 2), (0, 0)))
    weights = torch.tensor(kernel.transpose(3, 2, 0, 1))
    received = torch.nn.functional.conv2d(torch.tensor(nchw(padded)), weights, stride=2)
    return relative_l2(received.numpy(), nchw(expected))


def rmsprop(decay: float, is_inside: bool) -> float:
    """Two updates of Keras' RMSProp, whose epsilon is inside the root, by PyTorch's class or not.

    Gradients of 1e-5 to 1e-1; the error is that of the move.
    """
    torch = importlib.import_module("torch")
    settings = RMSPropSpec(1e-3, decay=0.9, epsilon=1e-7, epsilon_inside_root=True)
    gradient, zeros = np.geomspace(1e-5, 1e-1, 32), np.zeros(32)
    kept: tuple[np.ndarray, ...] = (zeros, zeros, zeros)
    for step in (1, 2):
        kept = optimizer_update(kept[0], gradient, kept[1:], step, settings, Conventions())
    own = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.RMSprop([own], 1e-3, decay, 1e-7)
    square = torch.zeros_like(own)
    for _ in range(2):
        own.grad = torch.tensor(gradient)
        if not is_inside:
            optimizer.step()
            continue
        square = decay * square + (1.0 - decay) * own.grad**2
        with torch.no_grad():
            own -= 1e-3 * own.grad / torch.sqrt(square + 1e-7)
    return relative_l2(own.detach().numpy(), kept[0])


def batch_norm_by_position(by_position: bool) -> float:
    """`BatchNorm2d(n, 0.8)` sets the epsilon: Keras' momentum of 0.8 is PyTorch's 0.2."""
    torch = importlib.import_module("torch")
    x = random(4, 5, 5, 3)
    expected = layers.batch_norm_forward(x, 1.0, 0.0, 1e-5)[0]
    arguments = {"eps": 0.8} if by_position else {"momentum": 0.2}
    batch_norm = torch.nn.BatchNorm2d(3, **arguments).double()
    return relative_l2(batch_norm(torch.tensor(nchw(x))).detach().numpy(), nchw(expected))


OTHER_LAYER_TRAPS = [
    Trap(
        "upsample-corners",
        lambda: upsample_corners(True),
        lambda: upsample_corners(False),
        framework="pytorch",
    ),
    Trap(
        "average-pool-padding",
        lambda: average_pool_padding(True),
        lambda: average_pool_padding(False),
        framework="pytorch",
    ),
    Trap(
        "conv-transpose-same",
        lambda: conv_transpose_same(True),
        lambda: conv_transpose_same(False),
        framework="pytorch",
    ),
    Trap("conv-same", lambda: conv_same(True), lambda: conv_same(False), framework="pytorch"),
    Trap(
        "rmsprop-epsilon",
        lambda: rmsprop(0.9, False),
        lambda: rmsprop(0.9, True),
        framework="pytorch",
    ),
    Trap(
        "rmsprop-decay",
        lambda: rmsprop(0.99, True),
        lambda: rmsprop(0.9, True),
        framework="pytorch",
    ),
    Trap(
        "batch-norm-by-position",
        lambda: batch_norm_by_position(True),
        lambda: batch_norm_by_position(False),
        framework="pytorch",
    ),
]
