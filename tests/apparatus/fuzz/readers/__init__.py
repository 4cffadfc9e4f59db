"""Every reader of the project by name; frameworks are imported when a reader is prepared."""

from tests.apparatus.fuzz.reader import Reader
from tests.apparatus.fuzz.readers import (
    cifar,
    idx,
    images,
    json_files,
    keras_files,
    npz,
    orbax_folders,
    overrides,
    safetensors_files,
    tf_checkpoints,
    torch_files,
)

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        *(images.READER, idx.READER, npz.READER, cifar.READER),
        *(safetensors_files.CHECKPOINT, safetensors_files.RECORDING),
        *(torch_files.READER, keras_files.READER, orbax_folders.READER),
        tf_checkpoints.READER,
        *(json_files.BENCHMARK, overrides.READER),
    )
}
