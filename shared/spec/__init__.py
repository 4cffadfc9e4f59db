"""What every implementation has to agree on, in no framework's terms.

`systems` has the systems as data, `layers` and `architectures` their networks, `conventions` every
choice on which ports differ, `state_arrays` the names and shapes of a training state, `streams`
the random numbers of a run.
"""

from shared.spec.conventions import Conventions
from shared.spec.layers import NETWORKS, Initializer, Layer, NetworkName, Parameter
from shared.spec.optimizers import AdamSpec, OptimizerSpec
from shared.spec.state_arrays import Pixels, flattened_pixels, optimizer_name, state_shapes
from shared.spec.systems import LOSS_NAMES, SYSTEMS, GeneratorBatch, LossName, SystemSpec
