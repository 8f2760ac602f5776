"""State of the world: what goes out for what comes in. `traces.py` explains the notation."""

from __future__ import annotations

import pytest
from traces import run

from appmesh_xds.server.protocol import Sotw

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
    "nothing is an answer to a wildcard": """
        snapshot cds=
        > CDS
        < CDS
        > CDS ack
        > LDS
        < LDS
        > LDS ack
    """,
    "an equal snapshot": """
        snapshot cds=a1 lds=l1
        > CDS
        < CDS a1
        > CDS ack
        snapshot cds=a1 lds=l1
    """,
    "what changes while a cluster is being removed waits for that": """
        snapshot cds=a1,b1 lds=l1
        > CDS
        < CDS a1 b1
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        snapshot cds=a1 lds=l1
        < CDS a1
        snapshot cds=a1 lds=l2
        > CDS ack
        < LDS l2
        > LDS ack
    """,
    "names are sets": """
        snapshot eds=a1,b1 cds=a1,b1
        > EDS a b
        < EDS a1 b1
        > EDS b a ack
        > EDS b b a
    """,
    "more names with the current nonce": """
        snapshot eds=a1,b1
        > EDS a
        < EDS a1
        > EDS a b
        < EDS a1 b1
    """,
    "more names before the first answer": """
        > EDS a
        > EDS a b
        snapshot eds=a1,b1
        < EDS a1 b1
    """,
    "a stale request is ignored wholly": """
        snapshot eds=a1,b1
        > EDS a
        < EDS a1
        > EDS a ack
        snapshot eds=a2,b1
        < EDS a2
        > EDS a b ack#1
        > EDS a b ack#2
        < EDS a2 b1
    """,
    "a request without a nonce after an answer is stale": """
        snapshot eds=a1,b1
        > EDS a
        < EDS a1
        > EDS a b nonce-less
        > EDS a b ack
        < EDS a1 b1
    """,
    "a stale refusal is ignored": """
        snapshot eds=a1
        > EDS a
        < EDS a1
        snapshot eds=a2
        < EDS a2
        > EDS nack#1:bad
        > EDS ack#2
    """,
    "fewer names need no answer, and asked again they are sent again": """
        snapshot eds=a1,b1
        > EDS a b
        < EDS a1 b1
        > EDS a ack
        snapshot eds=a1,b2
        > EDS a b
        < EDS a1 b2
        > EDS a ack
        > EDS a b
        < EDS a1 b2
    """,
    "no names at all": """
        snapshot rds=r1
        > RDS r
        < RDS r1
        > RDS none ack
        snapshot rds=r2
    """,
    "clusters by name": """
        snapshot cds=a1,b1
        > CDS a x
        < CDS a1
        > CDS a x ack
        snapshot cds=a1,b2
        > CDS b
        < CDS b2
    """,
    "an asterisk": """
        snapshot cds=a1,b1
        > CDS *
        < CDS a1 b1
        > CDS b ack
        < CDS b1
        > CDS none ack
        snapshot cds=b2
    """,
    "names that the snapshot lacks are empty, not silent": """
        snapshot cds=a1 rds=r1
        > EDS a
        < EDS a0
        > RDS r x
        < RDS r1 x0
        > RDS r x ack
        snapshot cds=a1 rds=r1,x1
        < RDS r1 x1
    """,
    "endpoints that are gone while the cluster stays": """
        snapshot cds=a1 eds=a1
        > CDS
        < CDS a1
        > EDS a
        < EDS a1
        > EDS ack
        snapshot cds=a1
        < EDS a0
    """,
    "an unknown secret": """
        snapshot sds=s1
        > SDS s x
        ! unknown secrets x
        < SDS s1
        > SDS s x ack
        snapshot sds=s1,x1
        < SDS s1 x1
        > SDS s x ack
        snapshot sds=s1
    """,
    "a secret that leaves before it was asked for, by a listener that waits for it": """
        snapshot lds=l1
        > CDS
        < CDS
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        snapshot lds=l1,m1 sds=s1
        < LDS l1 m1
        snapshot cds=a1 lds=l1
        < CDS a1
        > SDS s
        < SDS s1
        > SDS s ack
        > LDS ack
        > CDS ack
        < LDS l1
    """,
    "a secret that leaves when all was taken is not held": """
        snapshot cds=a1 lds=l1 sds=s1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        snapshot cds=a1 lds=l1
        > SDS s
        ! unknown secrets s
    """,
    "endpoints again with every change of their cluster": """
        snapshot cds=a1,b1 eds=a1,b1 lds=
        > CDS
        < CDS a1 b1
        > EDS a b
        < EDS a1 b1
        > CDS ack
        > EDS ack
        snapshot cds=a2,b1 eds=a1,b1 lds=
        < CDS a2 b1
        < EDS a1 b1
    """,
    "endpoints alone": """
        snapshot cds=a1,b1 eds=a1,b1
        > CDS
        < CDS a1 b1
        > EDS a b
        < EDS a1 b1
        > EDS ack
        snapshot cds=a1,b1 eds=a1,b2
        < EDS a1 b2
    """,
    "make before break": """
        snapshot cds=a1,b1 eds=a1 lds=l1 rds=r1
        > CDS
        < CDS a1 b1
        > CDS ack
        > EDS a
        < EDS a1
        > LDS
        < LDS l1
        > RDS r
        < RDS r1
        > EDS ack
        > LDS ack
        > RDS ack
        snapshot cds=b1,c1 eds=c1 lds=l2 rds=r2
        < CDS a1 b1 c1
        > EDS a c
        < EDS c1
        > EDS ack
        > CDS ack
        < LDS l2
        < RDS r2
        > RDS ack
        > LDS ack
        < CDS b1 c1
        > CDS ack
    """,
    "listeners go with their own response": """
        snapshot cds=a1 lds=l1,m1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1 m1
        > LDS ack
        snapshot cds=a1 lds=n1
        < LDS n1
    """,
    "a newer snapshot overtakes": """
        snapshot cds=a1 lds=l1
        > CDS
        < CDS a1
        > LDS
        > CDS ack
        < LDS l1
        > LDS ack
        snapshot cds=a1,b1 lds=l2
        < CDS a1 b1
        snapshot cds=a1,c1 lds=l3
        < CDS a1 c1
        > CDS ack#2
        > CDS ack#3
        < LDS l3
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
        < CDS a1 b1
        wait 29
        wait 1
        ! gate timeout
        < LDS l2 m1
        < RDS r2
        > LDS ack
        > RDS ack
        > CDS ack
        < LDS l2
        > LDS ack
        < CDS b1
    """,
    "what went out after a timeout is kept": """
        snapshot cds=a1 lds=l1
        > CDS
        < CDS a1
        > LDS
        wait 30
        ! gate timeout
        < LDS l1
        snapshot cds=b1 lds=l2
        < CDS a1 b1
        > LDS ack
        > CDS ack
        < LDS l2
        > LDS ack
        < CDS b1
    """,
    "refused clusters hold everything behind them": """
        snapshot cds=a1 lds=l1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        snapshot cds=b1 lds=l2
        < CDS a1 b1
        > CDS nack:b:_bad_path
        ! nack CDS b: b: bad path
        wait 100
        snapshot cds=b1 lds=l3
        snapshot cds=b2 lds=l3
        < CDS a1 b2
        > CDS ack
        < LDS l3
        > LDS ack
        < CDS b2
    """,
    "a refused update does not come back as a leftover": """
        snapshot cds=a1 lds=l1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        snapshot cds=a2,x1 lds=l1
        < CDS a2 x1
        > CDS nack:a:_no
        ! nack CDS a: a: no
        snapshot cds=b1 lds=l2
        < CDS a1 b1
        > CDS ack
        < LDS l2
        > LDS ack
        < CDS b1
    """,
    "after a refusal endpoints come again with what may be new": """
        snapshot cds=a1 eds=a1
        > CDS
        < CDS a1
        > EDS a
        < EDS a1
        > EDS ack
        > CDS ack
        snapshot cds=a2,x1 eds=a1
        < CDS a2 x1
        < EDS a1
        > CDS nack:no
        ! nack CDS : no
        > EDS ack
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
        < CDS a1 b1
        > CDS ack
        < RDS r2
        > RDS nack:no
        ! nack RDS : no
        snapshot cds=b1 lds=l1 rds=r3
        < RDS r3
        > RDS ack
        < CDS b1
    """,
    "a refused response shrinks to what is left": """
        snapshot rds=a1,b1
        > RDS a b
        < RDS a1 b1
        > RDS nack:b:_no
        ! nack RDS b: b: no
        snapshot rds=a1
        < RDS a1
    """,
    "a secret that is refused does not keep the others back": """
        snapshot sds=a1,b1,c1
        > SDS a b c
        < SDS a1 b1 c1
        > SDS nack:no
        ! nack SDS : no
        < SDS a1
        > SDS ack
        < SDS b1
        > SDS nack:no
        ! nack SDS b: no
        < SDS c1
        > SDS ack
        wait 100
        snapshot sds=a1,b1,c2,d1
        < SDS a1 c2
        > SDS ack
        < SDS b1
        > SDS nack:no
        ! nack SDS b: no
        > SDS a b c d
        < SDS a1 c2 d1
        > SDS ack
        snapshot sds=a1,b2,c2,d1
        < SDS a1 b2 c2 d1
        > SDS ack
    """,
    "a secret that was refused and is asked for again comes again": """
        snapshot sds=a1,b1
        > SDS a b
        < SDS a1 b1
        > SDS nack:no
        ! nack SDS : no
        < SDS a1
        > SDS nack:no
        ! nack SDS a: no
        < SDS b1
        > SDS b ack
        > SDS a b
        < SDS a1 b1
    """,
    "secrets change while refused ones go one by one": """
        snapshot sds=a1,b1,c1
        > SDS a b c
        < SDS a1 b1 c1
        > SDS nack:no
        ! nack SDS : no
        < SDS a1
        snapshot sds=a1,b1,c2
        > SDS ack
        < SDS a1 c2
        > SDS ack
        < SDS b1
        > SDS nack:no
        ! nack SDS b: no
        snapshot sds=a1,c2
    """,
    "after a break all secrets are tried again": """
        snapshot sds=a1,b1
        > SDS a b
        < SDS a1 b1
        > SDS nack:no
        ! nack SDS : no
        < SDS a1
        > SDS ack
        < SDS b1
        > SDS nack:no
        ! nack SDS b: no
        reconnect
        snapshot sds=a1,b1
        > SDS a b had:a1
        < SDS a1 b1
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
        < CDS a1 b1
        > CDS ack
        < LDS m1
        > LDS ack
        > RDS none
        < CDS b1
    """,
    "nothing changed while it was away": """
        snapshot cds=a1 eds=a1 lds=l1 rds=r1 sds=s1
        > CDS had:a1
        > EDS a had:a1
        > LDS had:l1
        > RDS r had:r1
        > SDS s had:s1
        snapshot cds=a1 eds=a1 lds=l1 rds=r2 sds=s1
        < RDS r2
    """,
    "any answer about clusters is followed by all endpoints": """
        snapshot cds=a2,b1 eds=a1,b1
        > CDS had:a1,b1
        < CDS a2 b1
        > EDS a b had:a1,b1
        < EDS a1 b1
    """,
    "endpoints asked before clusters: some cluster is warming": """
        snapshot cds=a1 eds=a1
        > EDS a had:a1
        < EDS a1
        > EDS ack
        > CDS had:a1
    """,
    "a stream broke before more names were answered": """
        snapshot cds=a1,b1 eds=a1,b1
        > CDS
        < CDS a1 b1
        > EDS a
        < EDS a1
        > EDS ack
        > CDS ack
        restart
        > CDS had:a1,b1
        > EDS a b had:a1
        < EDS a1 b1
    """,
    "listeners wait for clusters after a reconnect": """
        snapshot cds=a2 lds=l2 rds=r2
        > LDS had:l1
        > RDS r had:r1
        > CDS had:a1
        < CDS a2
        > CDS ack
        < LDS l2
        < RDS r2
    """,
    "names that come with new listeners are new, whatever version the client had": """
        snapshot cds=a1 lds=l1 rds=r1
        > CDS had:a1
        > LDS had:
        < LDS l1
        > RDS r had:r1
        < RDS r1
    """,
    "a cluster that goes back gets its endpoints again": """
        snapshot cds=a1 eds=a1 lds=l1
        > CDS
        < CDS a1
        > EDS a
        < EDS a1
        > EDS ack
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        snapshot cds=a2 eds=a1 lds=l2
        < CDS a2
        < EDS a1
        snapshot cds= lds=l3
        < CDS a1
        < EDS a1
    """,
    "clusters never asked for": """
        snapshot cds=a2 lds=l2
        > LDS had:l1
        wait 30
        < LDS l2
    """,
    "leftovers survive a reconnect": """
        snapshot cds=a1 lds=l1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        reconnect
        snapshot cds=b1 lds=l2
        > CDS had:a1
        < CDS a1 b1
        > LDS had:l1
        > CDS ack
        < LDS l2
        > RDS none
        > LDS ack
        < CDS b1
    """,
    "leftovers of an interrupted change": """
        snapshot cds=a1 lds=l1
        > CDS
        < CDS a1
        > CDS ack
        > LDS
        < LDS l1
        > LDS ack
        snapshot cds=b1 lds=l2
        < CDS a1 b1
        reconnect
        > CDS had:a1,b1
        > LDS had:l1
        < LDS l2
        > LDS ack
        wait 30
        < CDS b1
    """,
    "without a memory leftovers go at once": """
        snapshot cds=b1 lds=l2
        > CDS had:a1
        < CDS b1
        > LDS had:l1
        > CDS ack
        < LDS l2
    """,
    "endpoints that are gone keep their value after a reconnect": """
        snapshot cds=b1 eds=b1
        > CDS had:b1
        > EDS a b had:a1,b1
        < EDS b1
    """,
    "an empty answer is remembered by its version": """
        snapshot cds=a1 rds=r1
        > CDS had:a1
        > RDS r x had:r1,x0
    """,
    "a strange type": """
        snapshot cds=a1
        > SCOPED
        ! unknown type SCOPED
        > SCOPED
        > CDS
        < CDS a1
    """,
}


@pytest.mark.parametrize("name", TRACES)
def test_trace(name: str) -> None:
    actual, expected = run(Sotw, TRACES[name])
    assert actual == expected
