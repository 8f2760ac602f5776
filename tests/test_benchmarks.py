"""The benchmarks run, at size 1; what they measure is for people to read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks import growth, node, serve, translate

#: What the mixed mesh does not measure: changes of nodes that are all alike.
CHANGES = {"incremental_ms", "incremental_proxies", "route_ms", "policy_ms", "noop_ms"}


@pytest.mark.parametrize("sharing", ["shared", "unique", "mixed"])
def test_translate(sharing: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    translate.main(["--nodes", "3", "--backends", "1", "--repeats", "1", "--sharing", sharing])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(translate.TABLE) - (CHANGES if sharing == "mixed" else set()) <= set(found)
    assert found["bytes"] > 1000


def test_growth(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    growth.main(["--small", "2", "--large", "3", "--repeats", "1"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == set(growth.TABLE)
    assert found["incremental_small_ms"] > 0


def test_node(capsys: pytest.CaptureFixture[str]) -> None:
    node.main(["--backends", "1", "--seconds", "0"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["resources"] == 9
    assert found["ratio_vs_envoy_data_plane"] > 0


def test_serve(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    serve.main(["--streams", "3", "--backends", "1", "--rounds", "1", "--tls", "on"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    streams, restart, real = found.values()
    assert set(serve.TABLE) <= set(streams) and set(serve.REAL) <= set(real)
    assert streams["push_bytes"] == streams["bare_push_bytes"] > 500
    assert restart["resources_at_first"] >= 3 * 5 and restart["responses_to_a_change"] == 3
    assert (restart["resources_re_sent"], restart["responses_re_sent"]) == (0, 0)
