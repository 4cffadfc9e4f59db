"""The traps of docs/porting.md: each can be run as the naive port falls into it, and as ours.

`python -m tests.docs.traps` prints the error of both; the guide's figures are these.
"""

from tests.docs.traps_of_initial_weights import INITIALIZER_TRAPS
from tests.docs.traps_of_layers import LAYER_TRAPS
from tests.docs.traps_of_losses_and_updates import LOSS_AND_UPDATE_TRAPS
from tests.docs.traps_of_other_layers import OTHER_LAYER_TRAPS
from tests.docs.traps_of_steps import CONVENTION_TRAPS

TRAPS = CONVENTION_TRAPS + INITIALIZER_TRAPS + LAYER_TRAPS + OTHER_LAYER_TRAPS
TRAPS += LOSS_AND_UPDATE_TRAPS

if __name__ == "__main__":
    for trap in TRAPS:
        print(f"{trap.name:<30}naive {trap.naive():<10.2g} right {trap.right():.2g}")
