"""What one client may ask of a stream."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """Limits that belong to one stream. Far above what an Envoy of a large mesh needs."""

    #: Names of one type that a stream may be subscribed to.
    names: int = 5_000
    #: Requests a second in the long run, and at once after a silence.
    requests_per_second: float = 100
    burst: int = 500


class TokenBucket:
    """Grants `rate` a second in the long run and `burst` at once. Time comes from the caller, in seconds."""

    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._then: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more is granted at the time `now`."""
        if self._then is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now - self._then) * self._rate)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
