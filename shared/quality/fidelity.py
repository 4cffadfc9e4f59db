"""FID and KID of two sets of images, by torch-fidelity, which the extra `fid` installs.

Fréchet and kernel Inception distance: Heusel et al. 2017, *GANs trained by a two time-scale update
rule*, equation 6; Bińkowski et al. 2018, *Demystifying MMD GANs*, section 4. torch-fidelity brings
PyTorch with it, so it is imported by name and only where it is asked for.
"""

import contextlib
import importlib
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np

from shared.files.errors import InputError, require_file
from shared.interface import Array, require_framework

FEATURE_EXTRACTOR = "inception-v3-compat"
"""torch-fidelity's name of the Inception network with the weights of the FID paper."""
KID_SUBSET_SIZE = 1000
"""Images that one estimate of KID takes, where there are as many; torch-fidelity's default."""


def require_fidelity(weights: Path | None = None) -> None:
    """Raise an error now, and not after minutes of work, if `fidelity` could not run.

    `weights` is the Inception network's file, None torch-fidelity's own, which it downloads once.
    MissingFrameworkError where torch-fidelity is not installed, InputError for the rest.
    """
    library = import_fidelity("torch_fidelity.registry")
    extractor = library.FEATURE_EXTRACTORS_REGISTRY[FEATURE_EXTRACTOR]
    layer = extractor.get_default_feature_layer_for_metric("fid")
    if weights is not None:
        require_file(weights, "a file of weights")
    try:
        if weights is not None:
            # torch-fidelity unpickles it without a guard, which runs whatever code the file holds.
            import_fidelity("torch").load(weights, map_location="cpu", weights_only=True)
        # torch.hub says on stderr that it downloads, where only errors belong.
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(sys.stdout):
            extractor(
                FEATURE_EXTRACTOR, [layer], feature_extractor_weights_path=weights and str(weights)
            )
    except Exception as error:  # of a network, or what unpickling raises as the damage has it
        name = f"the weights of {FEATURE_EXTRACTOR}"
        found = f"{weights} does not hold {name}" if weights else f"{name} cannot be fetched"
        advice = "give torch-fidelity's weights-inception-2015-12-05 with --feature-weights FILE"
        raise InputError(f"{found} ({str(error)[:200]}); {advice}") from error


def fidelity(real: Array, generated: Array, weights: Path | None = None) -> dict[str, float]:
    """Return `fid`, `kid`, `kid_deviation` and `kid_subset_size` of uint8 images, grey as RGB.

    Both are [n, height, width, 1 or 3]. Less is better, and `kid` may be below 0: it is the mean of
    100 estimates from `kid_subset_size` images each. On a GPU if there is one.
    """
    torch, subset = import_fidelity("torch"), min(KID_SUBSET_SIZE, len(real), len(generated))
    sets = []
    for images in (generated, real):
        coloured = np.broadcast_to(images, (*images.shape[:3], 3)).transpose(0, 3, 1, 2)
        tensor = torch.from_numpy(coloured.copy())
        sets.append(torch.utils.data.Subset(tensor, range(len(tensor))))
    # Not ours to fix, and a caller who makes warnings errors would get none of the figures.
    with warnings.catch_warnings(action="ignore"):
        measured = import_fidelity().calculate_metrics(
            input1=sets[0],
            input2=sets[1],
            fid=True,
            kid=True,
            kid_subset_size=subset,
            feature_extractor=FEATURE_EXTRACTOR,
            feature_extractor_weights_path=weights and str(weights),
            cuda=torch.cuda.is_available(),
            save_cpu_ram=True,  # no worker processes: forking one beside JAX or TensorFlow may hang
            cache=False,
            verbose=False,
        )
    return {
        "fid": measured["frechet_inception_distance"],
        "kid": measured["kernel_inception_distance_mean"],
        "kid_deviation": measured["kernel_inception_distance_std"],
        "kid_subset_size": subset,
    }


def import_fidelity(name: str = "torch_fidelity") -> ModuleType:
    """Import torch-fidelity, a module of it or torch, with the errors of `require_fidelity`."""
    require_framework("fid")
    try:
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        # A torchvision built for another torch raises RuntimeError.
        expected = "torch and torchvision of one release and one build: install both from one index"
        found = f"torch-fidelity cannot be imported ({str(error)[:200]})"
        raise InputError(f"{found}; expected {expected}") from error
