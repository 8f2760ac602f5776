"""Delta: what goes out for what comes in. `traces.py` explains the notation."""

from __future__ import annotations

import pytest
from traces import run

from appmesh_xds.server.protocol import Delta

TRACES = {
    "the order of a start": """
        snapshot cds=a1,b1 eds=a1 lds=l1 rds=r1 sds=s1
        > CDS
        < CDS a1 b1
        > EDS a
        < EDS a1
        > CDS ack
        > EDS ack
        > LDS
        < LDS l1
        > RDS r
        < RDS r1
        > SDS s
        < SDS s1
        > LDS ack
        > RDS ack
        > SDS ack
    """,
    "no snapshot yet": """
        > CDS
        > LDS
        snapshot cds=a1 lds=l1
        < CDS a1
        > CDS ack
        < LDS l1
    """,
    "nothing is an answer to a new client": """
        snapshot cds=
        > CDS
        < CDS
        > CDS ack
        > LDS *
        < LDS
    """,
    "only what changed": """
        snapshot cds=a1,b1
        > CDS
        < CDS a1 b1
        > CDS ack
        snapshot cds=a1,b2,c1
        < CDS b2 c1
    """,
    "subscriptions count whatever nonce they carry": """
        snapshot eds=a1,b1,c1
        > EDS a
        < EDS a1
        > EDS b ack#1
        < EDS b1
        > EDS c nonce#1
        < EDS c1
    """,
    "asked for again": """
        snapshot eds=a1 rds=r1
        > EDS a
        < EDS a1
        > EDS ack
        > EDS a
        < EDS a1
        > RDS r
        < RDS r1
        > RDS -r
        snapshot eds=a1 rds=r2
        > RDS r
        < RDS r2
    """,
    "clusters by name": """
        snapshot cds=a1,b1
        > CDS a x
        < CDS a1 -x
        > CDS ack
        snapshot cds=a1,b1,x1
        < CDS x1
        > CDS *
        < CDS b1
        > CDS -* -x
        snapshot cds=a2,b2,x2
        < CDS a2
    """,
    "names that the snapshot lacks are empty, not silent": """
        snapshot cds=a1 rds=r1
        > EDS a
        < EDS a0
        > RDS r x
        < RDS r1 x0
        > RDS ack
        snapshot cds=a1 rds=r1,x1
        < RDS x1
    """,
    "endpoints that are gone while the cluster stays": """
        snapshot cds=a1 eds=a1
        > CDS
        < CDS a1
        > EDS a
        < EDS a1
        snapshot cds=a1
        < EDS a0
    """,
    "an unknown secret": """
        snapshot sds=s1
        > SDS s x
        ! unknown secrets x
        < SDS s1
        > SDS ack
        snapshot sds=s1,x1
        < SDS x1
    """,
    "endpoints again with every change of their cluster": """
        snapshot cds=a1,b1 eds=a1,b1
        > CDS
        < CDS a1 b1
        > EDS a b
        < EDS a1 b1
        > CDS ack
        > EDS ack
        snapshot cds=a2,b1 eds=a1,b1
        < CDS a2
        < EDS a1
    """,
    "make before break": """
        snapshot cds=a1,b1 eds=a1 lds=l1 rds=r1
        > CDS
        < CDS a1 b1
        > EDS a
        < EDS a1
        > CDS ack
        > LDS
        < LDS l1
        > RDS r
        < RDS r1
        > EDS ack
        > LDS ack
        > RDS ack
        snapshot cds=b1,c1 eds=c1 lds=l2,m1 rds=r2
        < CDS c1
        > EDS c
        < EDS c1
        > EDS ack
        > CDS ack
        < LDS l2 m1
        < RDS r2
        > RDS ack
        > LDS ack
        < CDS -a
        > EDS -a
        > CDS ack
        snapshot cds=a1,b1,c1 eds=c1 lds=l3 rds=r2
        < CDS a1
        > CDS ack
        < LDS l3 -m
    """,
    "a newer snapshot overtakes": """
        snapshot cds=a1 lds=l1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        snapshot cds=a1,b1 lds=l2
        < CDS b1
        snapshot cds=a1,c1 lds=l3
        < CDS c1
        > CDS ack#2
        > CDS ack#3
        < LDS l3
        > LDS ack
        < CDS -b
    """,
    "late ACK, after the timeout: additions, nothing is removed": """
        snapshot cds=a1 lds=l1,m1 rds=r1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1 m1
        > RDS r
        < RDS r1
        > LDS ack
        > RDS ack
        snapshot cds=b1 lds=l2 rds=r2
        < CDS b1
        wait 29
        wait 1
        ! gate timeout
        < LDS l2
        < RDS r2
        > LDS ack
        > RDS ack
        > CDS ack
        < LDS -m
        > LDS ack
        < CDS -a
    """,
    "refused clusters hold everything behind them": """
        snapshot cds=a1 lds=l1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        snapshot cds=b1,c1 lds=l2
        < CDS b1 c1
        > CDS nack:b:_bad_path
        ! nack CDS b: b: bad path
        wait 100
        snapshot cds=b1,c1 lds=l3
        snapshot cds=b2,c1 lds=l3
        < CDS b2
        < CDS c1
        > CDS ack#3
        > CDS ack#4
        < LDS l3
        > LDS ack
        < CDS -a
    """,
    "what was refused travels apart": """
        snapshot rds=a1,b1,c1
        > RDS a b c
        < RDS a1 b1 c1
        > RDS nack:proto_constraint
        ! nack RDS : proto constraint
        snapshot rds=a1,b1,c2
        < RDS c2
        < RDS a1 b1
        > RDS ack#2
        > RDS nack:again
        ! nack RDS : again
        snapshot rds=a1,b2,c2
        < RDS b2
        < RDS a1
    """,
    "a secret that is refused does not keep the others back": """
        snapshot sds=a1,b1,c1
        > SDS a b c
        < SDS a1 b1 c1
        > SDS nack:no
        ! nack SDS : no
        < SDS a1
        < SDS b1
        < SDS c1
        > SDS ack#2
        > SDS nack#3:no
        ! nack SDS b: no
        > SDS ack#4
        wait 100
        snapshot sds=a1,b1,c2
        < SDS c2
        < SDS b1
        > SDS ack#5
        > SDS nack#6:no
        ! nack SDS b: no
        snapshot sds=a1,b2,c2
        < SDS b2
    """,
    "a refused cluster that leaves is removed, it may have been taken": """
        snapshot cds=a1 lds=l1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        snapshot cds=a1,b1 lds=l1
        < CDS b1
        > CDS nack:b
        ! nack CDS b: b
        snapshot cds=a1 lds=l1
        < CDS -b
    """,
    "a later response outlives the refusal of an earlier one": """
        snapshot eds=a1,b1
        > EDS a b
        < EDS a1 b1
        snapshot eds=a2,b1
        < EDS a2
        > EDS nack#1:a
        ! nack EDS a: a
        < EDS b1
        > EDS ack#2
        snapshot eds=a2,b2
        < EDS b2
    """,
    "refused when it was outdated already": """
        snapshot cds=a1,b1 lds=l1
        > CDS
        < CDS a1 b1
        snapshot cds=b1 lds=l1
        > CDS nack:a
        ! nack CDS a: a
        < CDS b1
        > LDS
        > CDS ack
        < LDS l1
        > LDS ack
        < CDS -a
    """,
    "refused beside something empty": """
        snapshot cds=a1,b1 eds=b1
        > EDS a b
        < EDS a0 b1
        > EDS nack:b
        ! nack EDS b: b
    """,
    "what was refused and is gone does not come again": """
        snapshot cds=a1,b1 eds=a1
        > EDS a b
        < EDS a1 b0
        > EDS nack:a
        ! nack EDS a: a
        snapshot cds=b1
        < EDS b0
    """,
    "endpoints that were refused come again with their cluster": """
        snapshot cds=a1 eds=a1
        > CDS
        < CDS a1
        > EDS a
        < EDS a1
        > EDS nack:a
        ! nack EDS a: a
        snapshot cds=a2 eds=a1
        < CDS a2
        < EDS a1
    """,
    "refused routes keep clusters alive": """
        snapshot cds=a1 lds=l1 rds=r1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1
        > RDS r
        < RDS r1
        > LDS ack
        > RDS ack
        snapshot cds=b1 lds=l1 rds=r2
        < CDS b1
        > CDS ack
        < RDS r2
        > RDS nack:no
        ! nack RDS : no
        snapshot cds=b1 lds=l1 rds=r3
        < RDS r3
        > RDS ack
        < CDS -a
    """,
    "a refused removal is not repeated": """
        snapshot cds=a1,b1
        > CDS
        < CDS a1 b1
        > CDS ack
        snapshot cds=a1
        < CDS -b
        > CDS nack:no
        ! nack CDS : no
        wait 60
        snapshot cds=a2
        < CDS a2
        > CDS ack
        < CDS -b
    """,
    "routes of a draining listener keep their clusters": """
        snapshot cds=a1 lds=l1 rds=r1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1
        > RDS r
        < RDS r1
        > LDS ack
        > RDS ack
        snapshot cds=b1 lds=m1
        < CDS b1
        > CDS ack
        < LDS m1 -l
        > LDS ack
        > RDS -r
        < CDS -a
    """,
    "nothing changed while it was away": """
        snapshot cds=a1 eds=a1 lds=l1 rds=r1 sds=s1
        > CDS had:a1
        > EDS a had:a1
        > LDS had:l1
        > RDS r had:r1
        > SDS s had:s1
    """,
    "a secret that leaves before it was asked for, with a cluster that waits for it": """
        snapshot cds=a1
        > CDS
        < CDS a1
        > CDS ack
        snapshot cds=a1,b1 sds=s1
        < CDS b1
        snapshot cds=a2
        < CDS a2
        > SDS s
        < SDS s1
        > SDS ack
        > CDS ack#2
        > CDS ack
        < CDS -b
        > CDS ack
    """,
    "what changed while it was away": """
        snapshot cds=a2,b1 eds=a1,b1 lds=l2 rds=r2
        > CDS had:a1,b1,c1
        < CDS a2
        > EDS a b c had:a1,b1,c1
        < EDS a1
        > LDS had:l1,m1
        > CDS ack
        < LDS l2 -m
        > LDS ack
        > RDS r had:r1
        < RDS r2
        > RDS ack
        < CDS -c
    """,
    "endpoints asked before clusters: some cluster is warming": """
        snapshot cds=a1 eds=a1
        > EDS a had:a1
        < EDS a1
        > CDS had:a1
    """,
    "listeners wait for clusters after a reconnect": """
        snapshot cds=a2 lds=l2
        > LDS had:l1
        > CDS had:a1
        < CDS a2
        > CDS ack
        < LDS l2
    """,
    "clusters never asked for": """
        snapshot cds=a2 lds=l2
        > LDS had:l1
        wait 30
        < LDS l2
    """,
    "a strange type": """
        snapshot cds=a1
        > SCOPED x
        ! unknown type SCOPED
        > SCOPED y
        > CDS
        < CDS a1
    """,
}


@pytest.mark.parametrize("name", TRACES)
def test_trace(name: str) -> None:
    actual, expected = run(Delta, TRACES[name])
    assert actual == expected


def test_unanswered_responses_are_bounded() -> None:
    changes = [f"snapshot eds=a{content}" for content in "123456789bcdefghijklmnopqrstuvwxyzABCDEFGH"]
    actual, _ = run(Delta, "\n".join(["> EDS a", *changes, "> EDS ack#1"]))
    sent = [line for line in actual if line.startswith("<")]
    assert len(sent) == 33
    assert sent[-1] == "< EDS aH", "the newest, and none of those between"
