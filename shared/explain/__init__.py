"""Why does a port disagree? `python -m shared.explain IMPLEMENTATION` names the mistake.

A wrong port is the reference under other conventions, so the conventions are looked for under
which the reference reproduces the port.
"""

from shared.explain.explanation import explain
from shared.explain.report import Explanation

__all__ = ["Explanation", "explain"]
