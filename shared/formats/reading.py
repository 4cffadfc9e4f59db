"""Networks from one file or several, of any kind that the project reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.files.checkpoint import CheckpointError, spec_differences
from shared.formats.file_kinds import kind_of
from shared.formats.native_contents import (
    OPTIMIZERS,
    NativeContents,
    check_contents,
    infer_spec,
)
from shared.interface import Arrays
from shared.spec import SystemSpec, state_shapes


def read_files(paths: Sequence[Path]) -> NativeContents:
    """Return what files hold together, such as netG.pth and netD.pth; raises what `joined` does."""
    return joined({path: kind_of(path).read(path) for path in paths})


def joined(sources: Mapping[Path, NativeContents]) -> NativeContents:
    """Return the contents of all sources as one; they must not overlap or disagree."""
    contents = list(sources.values())
    if len(contents) == 1:
        return contents[0]
    names = [name for held in contents for name in held.held]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CheckpointError(f"more than one file holds {', '.join(twice)}")
    path = Path(" and ".join(map(str, sources)))
    arrays = {name: array for held in contents for name, array in held.arrays.items()}
    progress = next((held.progress for held in contents if held.progress), None)
    stored = [held.spec for held in contents if held.spec_is_stored]
    spec = stored[0] if stored else _inferred(contents, arrays)
    for other in stored:
        if differences := spec_differences(other, spec):
            raise CheckpointError(f"{path} belong to other systems: {'; '.join(differences)}")
    whole = NativeContents(arrays, spec, progress, bool(stored))
    check_contents(path, whole)
    return whole


def _inferred(sources: list[NativeContents], arrays: Arrays) -> SystemSpec:
    def canonical(spec: SystemSpec) -> dict[str, str]:
        return {name: name for name in state_shapes(spec)}

    spec = infer_spec({name: array.shape for name, array in arrays.items()}, canonical)
    settings = {o: getattr(held.spec, o) for held in sources for o in OPTIMIZERS if o in held.parts}
    return spec.replace(**settings)
