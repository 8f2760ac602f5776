"""What every spec struct has in common."""

from __future__ import annotations

import msgspec


class Spec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
    gc=False,
    cache_hash=True,
):
    """Base of the spec structs: immutable, hashable, spelt in JSON as App Mesh's API spells it.

    `gc=False` because they hold no reference cycles: thousands of nodes then cost the garbage collector
    nothing. Constructors check no types (msgspec's rule); readers and `Mesh` do.
    """
