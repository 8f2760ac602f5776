"""Shared: what equal inputs made once is used again for as long as somebody holds it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar, TypeVarTuple
from weakref import WeakValueDictionary

_T = TypeVar("_T")
_A = TypeVarTuple("_A")


def shared(function: Callable[[*_A], _T]) -> Callable[[*_A], _T]:
    """A pure function of hashable values that gives the same object for equal arguments, while it lives.

    Nothing is kept alive by this: results must be weakly referable, and go when their last user does. The
    key is every argument, so a result can never be that of other inputs.
    """
    made: WeakValueDictionary[tuple[*_A], _T] = WeakValueDictionary()

    @wraps(function)
    def call(*arguments: *_A) -> _T:
        found = made.get(arguments)
        if found is None:
            found = made[arguments] = function(*arguments)
        return found

    return call
