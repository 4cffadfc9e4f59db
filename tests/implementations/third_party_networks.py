"""The networks in PyTorch as somebody else writes them, and what they make."""

import numpy as np

from shared.convert.__main__ import verification_inputs
from shared.formats.native_contents import Contents
from shared.reference.network import forward
from shared.spec import Conventions


def example_networks(torch, width: int, latent_dim: int, channels: int = 3):
    """Return the networks of pytorch/examples, dcgan/main.py, as they stand there."""
    nn = torch.nn
    generator, discriminator = nn.Module(), nn.Module()
    generator.main = nn.Sequential(
        nn.ConvTranspose2d(latent_dim, width * 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(width * 8),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 8, width * 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 4),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 4, width * 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 2),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 2, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(True),
        nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False),
        nn.Tanh(),
    )
    discriminator.main = nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width, width * 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 2),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width * 2, width * 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 4),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width * 4, width * 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 8),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width * 8, 1, 4, 1, 0, bias=False),
        nn.Sigmoid(),
    )
    return generator, discriminator


def conv28_networks(torch, width: int, latent_dim: int, channels: int = 3):
    """Return conv28 as somebody would write it who knows PyTorch and not this project."""
    nn = torch.nn
    generator, discriminator = nn.Module(), nn.Module()
    generator.main = nn.Sequential(
        nn.Linear(latent_dim, 16 * width),
        nn.BatchNorm1d(16 * width),
        nn.ReLU(),
        nn.Linear(16 * width, 2 * width * 7 * 7),
        nn.BatchNorm1d(2 * width * 7 * 7),
        nn.ReLU(),
        nn.Unflatten(1, (2 * width, 7, 7)),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, channels, 4, 2, 1),
        nn.Sigmoid(),
    )
    discriminator.main = nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(2 * width * 7 * 7, 16 * width),
        nn.BatchNorm1d(16 * width),
        nn.LeakyReLU(0.2),
        nn.Linear(16 * width, 1),
        nn.Sigmoid(),
    )
    return generator, discriminator


def mlp28_networks(torch, width: int, latent_dim: int, channels: int = 3):
    """Return mlp28 in the same way."""
    nn = torch.nn
    generator, discriminator = nn.Module(), nn.Module()
    generator.main = nn.Sequential(
        nn.Linear(latent_dim, width),
        nn.ReLU(),
        nn.Linear(width, 2 * width),
        nn.ReLU(),
        nn.Linear(2 * width, channels * 28 * 28),
        nn.Tanh(),
        nn.Unflatten(1, (channels, 28, 28)),
    )
    discriminator.main = nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * 28 * 28, 2 * width),
        nn.ReLU(),
        nn.Linear(2 * width, width),
        nn.ReLU(),
        nn.Linear(width, 1),
        nn.Sigmoid(),
    )
    return generator, discriminator


THIRD_PARTY = {"dcgan64": example_networks, "conv28": conv28_networks, "mlp28": mlp28_networks}


def outputs_of_third_party(torch, system: str, modules, inputs) -> dict[str, np.ndarray]:
    """Run third-party networks by their running statistics; returns NHWC and [batch]."""
    generator, discriminator = (module.eval().main for module in modules)
    z = torch.from_numpy(inputs["generator"])
    with torch.no_grad():
        made = generator(z[:, :, None, None] if system == "dcgan64" else z)
        scores = discriminator(torch.from_numpy(inputs["discriminator"]).permute(0, 3, 1, 2))
    return {"generator": made.permute(0, 2, 3, 1).numpy(), "discriminator": scores[:, 0].numpy()}


def require_the_references_outputs(contents: Contents, outputs: dict) -> None:
    """Raise AssertionError unless float32 outputs are those of the NumPy networks."""
    inputs = verification_inputs(contents)
    arrays = {n: a.astype(np.float64) for n, a in contents.arrays.items()}
    for network in contents.networks:
        expected = forward(
            contents.spec, network, arrays, inputs[network], Conventions(), training=False
        ).output
        # Measured 2e-7; one array of one layer in a wrong order: 0.03 or more.
        np.testing.assert_allclose(outputs[network].reshape(expected.shape), expected, atol=1e-6)
