"""What a server counts, for Prometheus.

    metrics = Metrics()
    async with serve(source, observe=metrics.observe) as server:
        metrics.watch(server.sessions)
        metrics.loaded({"shop": 12}, problems, reading=0.2, translation=0.1)
        metrics.exposition()                     # the text of /metrics

Labels are of the mesh (its names, its types) and of gRPC's status codes. Nothing that a client says becomes
one, so it cannot make series.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .. import __version__
from ..errors import Problem
from .logs import SHORT
from .messages import (
    Ack,
    Connected,
    Ended,
    GateTimeout,
    Nack,
    Observed,
    Response,
    UnknownSecrets,
    UnknownType,
)

if TYPE_CHECKING:
    from .discovery import Discovery
    from .session import Peer, Session

#: The media type of `Metrics.exposition`.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds. An Envoy takes milliseconds; one that has to warm clusters first may take its 15 seconds.
_ACK_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
_LOAD_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The counters of one server, in a registry of their own. For one event loop."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"appmesh_xds_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"appmesh_xds_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"appmesh_xds_{name}", text, labels, buckets=(*buckets,), registry=self.registry)

        self._started = counter("streams_started", "Streams that named a node of the mesh.")
        self._ended = counter("streams_ended", "Streams that ended, by the gRPC status given.", "status")
        nacks = counter("nacks", "Responses that clients refused.", "type")
        self._gate = counter("gate_timeouts", "Clients that did not acknowledge their clusters in time.")
        self._secrets = counter("unknown_secrets", "Secrets that clients wait for and there are not.")
        self._types = counter("unknown_types", "Requests for types that are not served.")
        self._loads = counter("loads", "Attempts to load the mesh.", "result")
        self._reading = histogram("load_seconds", "Reading the files.", _LOAD_BUCKETS)
        self._translation = histogram(
            "translation_seconds", "Translating what changed of the mesh.", _LOAD_BUCKETS
        )
        self._good = gauge("last_good_timestamp_seconds", "When the newest mesh in use was loaded.")
        self._failing = gauge("load_failing", "1 while the files as they are now cannot be used.")
        self._proxies = gauge("proxies", "Proxies of the mesh.", "mesh")
        self._largest = gauge("largest_response_bytes", "The largest response that a proxy may be sent.")
        self._severities = gauge("problems", "Problems of the files as they are now.", "severity")
        info = gauge("build_info", "1, labelled with the version.", "version")
        info.labels(__version__).set(1)
        for result in ("success", "failure"):
            self._loads.labels(result)
        for severity in ("error", "warning"):
            self._severities.labels(severity)
        self._traffic = {url: _Traffic() for url in SHORT}
        self._nacks = {url: nacks.labels(name) for url, name in SHORT.items()}
        self.registry.register(_Pushes(self._traffic))
        ProcessCollector(registry=self.registry)

    # --- what happens -------------------------------------------------------------------------------------

    def observe(self, node_id: str, peer: Peer, event: Observed) -> None:
        """An observer of streams, see `session.Observer`."""
        kind = type(event)
        if kind is Response:
            assert isinstance(event, Response)
            traffic = self._traffic[event.type_url]
            traffic.pushes += 1
            traffic.bytes += len(event.data)
        elif kind is Ack:
            assert isinstance(event, Ack)
            traffic = self._traffic[event.type_url]
            traffic.acks[bisect_left(_ACK_BUCKETS, event.after)] += 1
            traffic.seconds += event.after
        else:
            self._observe_rarely(event)

    def _observe_rarely(self, event: Observed) -> None:
        match event:
            case Nack():
                self._nacks[event.type_url].inc()
            case Connected():
                self._started.inc()
            case Ended():
                self._ended.labels(event.status).inc()
            case GateTimeout():
                self._gate.inc()
            case UnknownSecrets():
                self._secrets.inc(len(event.names))
            case UnknownType():
                self._types.inc()

    def loaded(
        self, meshes: Mapping[str, int], problems: Iterable[Problem], reading: float, translation: float
    ) -> None:
        """New meshes are in use: their names with the number of their proxies, the problems they have, and
        how many seconds it took to read and to translate them."""
        self._loads.labels("success").inc()
        self._reading.observe(reading)
        self._translation.observe(translation)
        self._good.set(self._clock())
        self._failing.set(0)
        self._proxies.clear()
        for mesh, proxies in meshes.items():
            self._proxies.labels(mesh).set(proxies)
        self.problems(problems)

    def load_failed(self, problems: Iterable[Problem]) -> None:
        """What was read cannot be used; the last good mesh stays."""
        self._loads.labels("failure").inc()
        self._failing.set(1)
        self.problems(problems)

    def problems(self, problems: Iterable[Problem]) -> None:
        """Those that there are now."""
        count = Tally(problem.severity for problem in problems)
        for severity in ("error", "warning"):
            self._severities.labels(severity).set(count[severity])

    # --- what is ------------------------------------------------------------------------------------------

    def watch(self, sessions: Callable[[], Iterable[Session]]) -> None:
        """Has streams counted whenever somebody asks. To be called once."""
        self.registry.register(_Streams(sessions))

    def watch_largest(self, size: Callable[[], int]) -> None:
        """Has the size of the largest response asked for whenever somebody asks."""
        self._largest.set_function(size)

    def watch_certificates(self, expiry: Callable[[], Mapping[tuple[str, str], float]]) -> None:
        """Has certificates looked at whenever somebody asks: use (`server`, `secret`) and name, to the time
        of expiry. To be called once."""
        self.registry.register(_Certificates(expiry))

    def watch_endpoints(self, discovery: Discovery) -> None:
        """Has a source of endpoints looked at whenever somebody asks. To be called once."""
        self.registry.register(_Endpoints(discovery))

    def exposition(self) -> bytes:
        """All of it, as `CONTENT_TYPE`."""
        return generate_latest(self.registry)


class _Traffic:
    """What is counted with every push and every ACK of a type: plain numbers, because that is often."""

    __slots__ = ("acks", "bytes", "pushes", "seconds")

    def __init__(self) -> None:
        self.pushes = self.bytes = 0
        #: By bucket, the last without a bound.
        self.acks = [0] * (len(_ACK_BUCKETS) + 1)
        self.seconds = 0.0


class _Pushes(Collector):
    """Traffic as Prometheus has it."""

    def __init__(self, traffic: Mapping[str, _Traffic]) -> None:
        self._traffic = {SHORT[url]: one for url, one in traffic.items()}

    def collect(self) -> Iterator[Any]:
        pushes = CounterMetricFamily("appmesh_xds_pushes", "Responses sent.", labels=("type",))
        text = "Bytes of responses sent, before gRPC's framing."
        sizes = CounterMetricFamily("appmesh_xds_pushed_bytes", text, labels=("type",))
        text = "From a response to the client's ACK."
        acks = HistogramMetricFamily("appmesh_xds_ack_seconds", text, labels=("type",))
        bounds = [*map(floatToGoString, _ACK_BUCKETS), "+Inf"]
        for name, one in self._traffic.items():
            pushes.add_metric((name,), one.pushes)
            sizes.add_metric((name,), one.bytes)
            acks.add_metric((name,), list(zip(bounds, accumulate(one.acks), strict=True)), one.seconds)
        yield from (pushes, sizes, acks)


class _Certificates(Collector):
    def __init__(self, expiry: Callable[[], Mapping[tuple[str, str], float]]) -> None:
        self._expiry = expiry

    def collect(self) -> Iterator[Any]:
        text = "When a certificate that is served, or the server's own, expires."
        yield _gauge("certificate_expiry_timestamp_seconds", text, ("use", "name"), self._expiry())


class _Endpoints(Collector):
    """What is known of Cloud Map, and how well its source answers."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery

    def collect(self) -> Iterator[Any]:
        one = self._discovery
        source = (one.source.name,)
        known = one.meshes.instances()
        unknown = len(one.meshes.services() - known.keys())

        def gauge(name: str, text: str, value: float) -> Any:
            return _gauge(f"cloud_map_{name}", text, ("source",), {source: value})

        text = "Instances of the Cloud Map services that nodes are found by."
        yield gauge("instances", text, sum(map(len, known.values())))
        yield gauge("unknown_services", "Such services of which nothing was ever known.", unknown)
        text = "When the source could say where all of them are; 0 for never."
        yield gauge("last_good_timestamp_seconds", text, one.last_good)
        text = "How often the source was asked."
        asked = CounterMetricFamily("appmesh_xds_cloud_map_asked", text, labels=("source", "result"))
        asked.add_metric((*source, "success"), one.successes)
        asked.add_metric((*source, "failure"), one.failures)
        yield asked


class _Streams(Collector):
    """Streams as they are at the moment."""

    def __init__(self, sessions: Callable[[], Iterable[Session]]) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Any]:
        streams: Tally[str] = Tally({"sotw": 0, "delta": 0})
        refusing: Tally[tuple[str, str]] = Tally()
        frozen = unanswered = 0
        for session in self._sessions():
            if session.machine is None or session.newest is None:
                continue
            streams[session.protocol] += 1
            frozen += session.frozen
            for one in session.machine.standing():
                unanswered += one.waits
                if one.refused:
                    # The node's id as the mesh has it.
                    refusing[session.newest.node_id, SHORT[one.type_url]] += 1
        by_protocol = {(protocol,): count for protocol, count in streams.items()}
        yield _gauge("streams", "Streams that are open.", ("protocol",), by_protocol)
        text = "Streams of nodes that left the mesh; they keep what they have."
        yield _gauge("frozen_streams", text, (), {(): frozen})
        text = "Responses that await their answer: the last of each type of a stream."
        yield _gauge("unanswered", text, (), {(): unanswered})
        text = "Streams whose last answer is a refusal. Only proxies that have some are listed."
        yield _gauge("refusing_streams", text, ("node", "type"), refusing)


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Any:
    family = GaugeMetricFamily(f"appmesh_xds_{name}", text, labels=labels)
    for at, value in sorted(values.items()):
        family.add_metric(at, value)
    return family


def each(*observers: Callable[[str, Peer, Observed], None]) -> Callable[[str, Peer, Observed], None]:
    """One observer of several."""

    def observe(node_id: str, peer: Peer, event: Observed) -> None:
        for one in observers:
            one(node_id, peer, event)

    return observe
