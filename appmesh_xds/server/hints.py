"""What to do about a refusal, where Envoy's words leave that open."""

from __future__ import annotations

import re
from typing import Final

#: Words of Envoy's (1.40) -> what to do.
_HINTS: Final = (
    (
        # `enable_reuse_port` depends on the kind of interception, and is fixed while a listener lives.
        re.compile("reuse port cannot be changed during an update"),
        "this Envoy runs with listeners of another --interception: restart it",
    ),
    (
        re.compile("cannot bind .*Address already in use"),
        "another process, or another listener, has this address: choose ports with --bind, --ingress-port, "
        "--egress-port",
    ),
)


def hint(text: str) -> str:
    """What to do when an Envoy says this; empty when it speaks for itself."""
    return next((advice for words, advice in _HINTS if words.search(text)), "")
