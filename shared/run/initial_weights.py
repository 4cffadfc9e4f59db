"""--init-from: a run that starts from the networks in files, of any kind that the project reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shared.files.checkpoint import check_shapes
from shared.formats.file_kinds import joined, kind_of
from shared.formats.native_contents import Contents, part_shapes
from shared.interface import Arrays
from shared.spec import NETWORKS, SYSTEMS, SystemSpec
from shared.spec.state_arrays import cast_floats
from shared.spec.streams import initial_state


class InitialWeights(NamedTuple):
    """What files hold of a state, to start a run with."""

    paths: tuple[Path, ...]
    contents: Contents
    weights: Arrays

    @classmethod
    def read(cls, paths: Sequence[Path]) -> InitialWeights:
        """Read one file or several; raises CheckpointError for what cannot be read or joined."""
        contents = joined({path: kind_of(path).read(path) for path in paths})
        weights = {n: a for n, a in contents.arrays.items() if n.split("/")[0] in NETWORKS}
        return cls(tuple(paths), contents, weights)

    def options(self, system: str | None) -> dict[str, Any]:
        """Return the options, and the latent_dim, that the files determine.

        The loss is of no account to another system, nor the image size to another architecture.
        """
        spec = self.contents.spec
        sizes = {name: getattr(spec, name) for name in ("width", "latent_dim", "channels")}
        if SYSTEMS.get(system or spec.name, spec).architecture == spec.architecture:
            sizes["image_size"] = spec.image_size
        loss = {"loss": spec.loss} if system in (None, spec.name) else {}
        return {"system": spec.name, **sizes, **loss}

    def require_fit(self, spec: SystemSpec) -> None:
        """Raise CheckpointError, which names them, for arrays that are not the spec's."""
        what = f"--init-from for {spec.name} of width {spec.width}"
        check_shapes(self.paths[0], self.weights, part_shapes(spec, self.contents.networks), what)

    def arrays(self, spec: SystemSpec, seed: int, dtype: str) -> Arrays:
        """Return a whole state: the files' weights, and the rest as `seed` starts it."""
        return cast_floats(initial_state(spec, seed) | self.weights, dtype)

    def notes(self) -> list[str]:
        """Return what the run starts from, and what it does not, one line each."""
        held = self.contents
        where = " and ".join(map(str, self.paths))
        others = [name for name in held.held if name not in held.networks]
        fresh = [name for name in NETWORKS if name not in held.networks]
        notes = [f"starting from {where}: {' and '.join(held.networks)}, Adam at zero"]
        notes += [f"left behind: {', '.join(others)} of {where}"] if others else []
        notes += [f"left behind: {note}" for note in held.notes]
        return notes + [f"from the seed: {name}" for name in fresh]
