"""The catalogue of planted faults."""

from tests.apparatus.planted.fault import Fault
from tests.apparatus.planted.faults_of_adam import ADAM
from tests.apparatus.planted.faults_of_kernels import KERNELS
from tests.apparatus.planted.faults_of_losses import LOSSES
from tests.apparatus.planted.faults_of_networks import NETWORKS
from tests.apparatus.planted.faults_of_normalisation import NORMALISATION
from tests.apparatus.planted.faults_of_start import START
from tests.apparatus.planted.faults_of_step import STEP
from tests.apparatus.planted.faults_of_updates import UPDATES

FAULTS: tuple[Fault, ...] = (
    *NORMALISATION,
    *NETWORKS,
    *KERNELS,
    *LOSSES,
    *STEP,
    *UPDATES,
    *ADAM,
    *START,
)


def get_fault(name: str) -> Fault:
    """Return a fault by its name; an unknown one raises ValueError that lists the known ones."""
    for fault in FAULTS:
        if fault.name == name:
            return fault
    known = ", ".join(fault.name for fault in FAULTS)
    raise ValueError(f"unknown fault {name!r}; expected one of {known}")
