"""Shared: what equal inputs made once is used again for as long as somebody holds it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Generic, TypeVar, TypeVarTuple
from weakref import ref

_T = TypeVar("_T")
_A = TypeVarTuple("_A")


class _Ref(ref[_T]):
    """A reference that knows its key: one object for the collector to visit, where a closure is four."""

    __slots__ = ("key",)

    key: Any


class Weakly(Generic[_T]):
    """Values by key, each for as long as somebody holds it. (The standard library's takes four times as long
    to look one up, because it may be iterated over while values go.)"""

    __slots__ = ("_forget", "_refs")

    def __init__(self) -> None:
        refs: dict[Any, _Ref[_T]] = {}

        def forget(gone: ref[_T]) -> None:
            assert isinstance(gone, _Ref)
            if refs.get(gone.key) is gone:
                del refs[gone.key]

        self._refs = refs
        self._forget = forget

    def get(self, key: Any) -> _T | None:
        found = self._refs.get(key)
        return None if found is None else found()

    def put(self, key: Any, value: _T) -> None:
        reference = self._refs[key] = _Ref(value, self._forget)
        reference.key = key

    def __len__(self) -> int:
        return len(self._refs)


def shared(function: Callable[[*_A], _T]) -> Callable[[*_A], _T]:
    """A pure function of hashable values that gives the same object for equal arguments, while it lives.

    Nothing is kept alive by this: results must be weakly referable, and go when their last user does. The
    key is every argument, so a result can never be that of other inputs.
    """
    made: Weakly[_T] = Weakly()

    @wraps(function)
    def call(*arguments: *_A) -> _T:
        found = made.get(arguments)
        if found is None:
            found = function(*arguments)
            made.put(arguments, found)
        return found

    return call
