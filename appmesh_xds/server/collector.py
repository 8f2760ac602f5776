"""How the garbage collector is set in a process that serves."""

from __future__ import annotations

import gc
from typing import Final

#: How many objects come and are not gone again until the young ones are looked at: more than a push to some
#: thousand streams has on its way. With Python's own 700 a sixth of a push is spent on finding that what is
#: on its way is no garbage.
_YOUNG: Final = 20_000
#: How many collections of one generation make one of the next.
_MIDDLE: Final = 20
_OLD: Final = 50


def settle() -> None:
    """For a process that has what it serves: what is there now is never looked at again, and what comes less
    often. Nothing here makes cycles in numbers: they are left by gRPC, with streams that end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
