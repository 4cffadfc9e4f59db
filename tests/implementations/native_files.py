"""States to put into each framework's own files, and what has to come back out of them."""

from shared.fixtures.network import representative_state
from shared.formats.native_contents import Contents, part_shapes, parts_of
from shared.spec import SYSTEMS, SystemSpec

WIDTH = 2
PROGRESS = {"step": 3, "seed": 7, "dtype": "float32", "dataset": "digits"}
NAMES = {"pytorch": "a.pth", "tf": "a.weights.h5", "jax": "a.orbax"}


def narrow(system: str = "dcgan64", **changes: object) -> SystemSpec:
    """Return a small system, in colour: mlp28's pixels have an order only with channels."""
    sizes = {"width": WIDTH, "latent_dim": 5, "batch_size": 3, "channels": 3}
    return SYSTEMS[system].replace(**{**sizes, **changes})


def make_contents(
    spec: SystemSpec | None = None, dtype: str = "float32", carried: tuple[str, ...] | None = None
) -> Contents:
    """Return a state with values that a lossy path would change; only the parts of `carried`."""
    spec = spec or narrow()
    shapes = part_shapes(spec, carried or parts_of(representative_state(spec, 0)))
    state = representative_state(spec, 0)
    arrays = {n: state[n] if n.endswith("/step") else state[n].astype(dtype) for n in shapes}
    if dtype == "float64":  # numbers that float32 has not
        arrays = {n: a if a.dtype != dtype else a * (1 + 2.0**-40) for n, a in arrays.items()}
    keeps_progress = carried is None or "progress" in carried
    return Contents(arrays, spec, PROGRESS if keeps_progress else {})


def require_same(read: Contents, meant: Contents) -> None:
    assert list(read.arrays) == list(meant.arrays)
    for name, array in meant.arrays.items():
        assert read.arrays[name].dtype == array.dtype, name
        assert read.arrays[name].shape == array.shape, name
        assert read.arrays[name].tobytes() == array.tobytes(), name
