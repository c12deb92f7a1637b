"""Sets how OpenMP threads wait for one another, before torch is loaded.

Each operation of torch ends with a barrier, where the threads that are done wait for the last one. By default GNU's
OpenMP lets them spin: on a machine with other work a spinning thread keeps the core that the last one needs, and a
step takes many times as long. A short spin costs nothing measurable on an idle machine; see
`benchmarks/wait_policy.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, MutableMapping

__all__ = ["SPIN_COUNT", "set_wait_policy"]

SPIN_COUNT = "1000"
"""Number of turns that a thread spins before it sleeps; the default of GNU's OpenMP is 300,000 or more."""

SPIN_VARIABLE = "GOMP_SPINCOUNT"
# Any of these says that the user has made a choice; the last two are read by Intel's and LLVM's OpenMP.
CHOICES = (SPIN_VARIABLE, "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")


def set_wait_policy(environment: MutableMapping[str, str] | None = None, loaded: Iterable[str] | None = None) -> bool:
    """Sets `GOMP_SPINCOUNT=1000`, unless the user has set a wait policy or torch is loaded.

    OpenMP reads the variable once, when it is loaded with torch: later the setting would change nothing here, and
    would only be inherited by other programs.

    Args:
        environment (`MutableMapping[str, str]`, *optional*): Variables to read and to change. Default: those of the
            process.
        loaded (`Iterable[str]`, *optional*): Names of the modules that are loaded. Default: those of the process.

    Returns:
        `bool`: Whether the variable was set.

    Example:
        >>> from hfssl.runtime.threads import set_wait_policy
        >>> found = {"OMP_WAIT_POLICY": "active"}
        >>> set_wait_policy(found, loaded=[]), found
        (False, {'OMP_WAIT_POLICY': 'active'})
    """
    environment = os.environ if environment is None else environment
    if "torch" in (sys.modules if loaded is None else loaded) or any(name in environment for name in CHOICES):
        return False
    environment[SPIN_VARIABLE] = SPIN_COUNT
    return True
