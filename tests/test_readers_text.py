"""Text to values: YAML's core schema, positions, and everything that is refused."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appmesh_xds.errors import Problem
from appmesh_xds.readers.json_text import locate
from appmesh_xds.readers.text import (
    MAX_DEPTH,
    MAX_SIZE,
    Document,
    Tagged,
    decode,
    documents,
    member,
    read_bytes,
)


def _one(text: str | bytes, *, yaml: bool | None = True) -> Document:
    content = text.encode() if isinstance(text, str) else text
    found, problems = documents(content, "f", yaml=yaml)
    assert problems == [] and len(found) == 1
    return found[0]


def _refused(text: str | bytes, *, yaml: bool | None = None) -> Problem:
    content = text.encode() if isinstance(text, str) else text
    found, problems = documents(content, "f", yaml=yaml)
    assert found == [] and len(problems) == 1
    assert problems[0].file == "f" and problems[0].severity == "error"
    return problems[0]


# --- what a scalar means ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Booleans and null are these spellings, and no others.
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("y", "y"),
        ("null", None),
        ("~", None),
        ("", None),
        ("nil", "nil"),
        # Decimal integers and floats.
        ("0", 0),
        ("-0", 0),
        ("+7", 7),
        ("8080", 8080),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        # What YAML 1.1 took for other numbers.
        ("012", "012"),
        ("011111111111", "011111111111"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        # Dates, versions and the rest.
        ("2020-01-01", "2020-01-01"),
        ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("9" * 5000, "9" * 5000),
        # Quotes and tags decide.
        ("'8080'", "8080"),
        ('"true"', "true"),
        ("!!str 8080", "8080"),
        ("! 8080", "8080"),
        ("!Ref Port", Tagged("!Ref", "Port")),
        ("!Sub [a, {b: 1}]", Tagged("!Sub", ["a", {"b": 1}])),
        ("!If {a: !GetAtt b.c}", Tagged("!If", {"a": Tagged("!GetAtt", "b.c")})),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    found = _one(f"key: {text}").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_texts() -> None:
    assert _one("{8080: 1, true: 2, null: 3, a: 4}").value == {"8080": 1, "true": 2, "null": 3, "a": 4}


def test_merge_keys_give_way_to_what_is_written_out() -> None:
    text = "base: &b {x: 1, y: 2}\nover: &o {y: 3, z: 4}\nhere: {x: 0, <<: [*b, *o], z: 9}"
    assert _one(text).value["here"] == {"x": 0, "y": 2, "z": 9}


def test_documents_are_told_apart_and_empty_ones_left_out() -> None:
    found, problems = documents(b"---\na: 1\n---\n# nothing\n---\nb: 2\n...\n", "f")
    assert [document.value for document in found] == [{"a": 1}, {"b": 2}]
    assert problems == []
    assert found[1].locate("$.b") == (6, 1)


@pytest.mark.parametrize(
    "text",
    [
        '\ufeff{"a": 1}',
        '{\r\n\t"a": 1\r\n}\r\n',
        "\ufeffa: 1\r\n",
        "# a comment\na: 1",
        "%YAML 1.2\n---\na: 1",
        # YAML in flow style begins like JSON.
        "{a: 1}",
        "{'a': 1,}",
    ],
)
def test_harmless_variations(text: str) -> None:
    assert _one(text, yaml=None).value == {"a": 1}


# --- where it stands ----------------------------------------------------------------------------------

#: Where Python's parser sees a comma that should not be there.
COMMA = (1, 8) if sys.version_info >= (3, 13) else (1, 9)

_POSITIONS = {
    "$": (1, 1),
    "$.spec": (1, 3),
    "$.spec.listeners": (2, 3),
    "$.spec.listeners[0]": (2, 17),
    "$.spec.listeners[1]": (3, 17),
    "$.spec.listeners[1].port": (3, 19),
    '$.spec["a b"]': (4, 3),
    '$.spec["\\u00e9"]': (5, 3),
    "$.end": (6, 3),
}


@pytest.mark.parametrize("yaml", [False, True], ids=["json", "yaml"])
def test_positions(yaml: bool) -> None:
    lines = [
        '{ "spec": {',
        '  "listeners" : [ {"port" : 1},',
        '                { "port": 2 }],',
        '  "a b": "}]\\", ",',
        '  "é": []},',
        '  "end": null}',
    ]
    document = _one("\n".join(lines), yaml=yaml)
    expected = {**_POSITIONS, "$.spec.listeners[0]": (2, 19)}
    found = {path: tuple(mark) for path, mark in document.positions.items() if path in expected}
    assert found == expected


def test_what_is_missing_stands_where_its_parent_does() -> None:
    document = _one("spec:\n  listeners:\n  - port: 1\n")
    assert document.locate("$.spec.listeners[0].tls.mode") == (3, 5)
    assert document.locate('$.spec["x.y"].z') == (1, 1)
    assert document.locate("$.other[3]") == (1, 1)


def test_aliases_point_at_the_alias() -> None:
    document = _one("a: &a {x: 1}\nb: *a\n")
    assert document.locate("$.b.x") == (2, 1)


def test_members_are_spelt_like_the_paths_of_problems() -> None:
    assert member("$", "tls-mode") == "$.tls-mode"
    assert member("$.a", "b c") == '$.a["b c"]'
    assert len(member("$", "x" * 10_000)) < 100


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def _paths(value: Any, path: str = "$") -> list[str]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path]
    for key, item in inner:
        found += _paths(item, member(path, key) if isinstance(key, str) else f"{path}[{key}]")
    return found


@given(_JSON, st.sampled_from([None, 1]))
def test_every_part_of_json_is_read_and_located(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert _values(text, yaml=False) == ([] if value is None else [value])
    if value is not None:
        document = _one(text, yaml=False)
        assert set(document.positions) == set(_paths(value))
        for path, mark in document.positions.items():
            assert locate(text, path) == locate(text, f"{path}.is_not_there[0]") == mark


def test_one_position_is_found_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"a": [{"b": number} for number in range(100)]}, indent=1)
    expected = {f"$.a[{number}].b": (4 + 3 * number, 4) for number in range(100)}
    document = _one(text, yaml=False)
    assert {path: document.locate(path) for path in expected} == expected, "one by one, then all at once"
    monkeypatch.setattr("appmesh_xds.readers.json_text._walk", None)
    document = _one(text, yaml=False)
    assert document.locate("$.a[99].b") == expected["$.a[99].b"]
    assert document.note("$.a[99].b") is None
    assert locate('{"a": 1, "a1": 2}', "$.a1") == (1, 10), "no part of a longer name"


@given(_JSON.filter(lambda value: value is not None))
def test_json_written_without_escapes_is_yaml_too(value: Any) -> None:
    text = json.dumps(value, indent=1)
    values = _values(text, yaml=True)
    if values and "\\u" not in text and "<<" not in text:
        assert values == [value]
        assert set(_one(text).positions) == set(_paths(value))


def _values(text: str, *, yaml: bool) -> list[Any]:
    return [document.value for document in documents(text.encode(), "f", yaml=yaml)[0]]


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "place", "message", "hint"),
    [
        # JSON.
        ('{"a": {\n "b": [1, 2', (2, 12), "is not valid JSON: Expecting ',' delimiter", "ends too early"),
        ('{"a": "cut', (1, 7), "is not valid JSON: Unterminated string", "ends too early"),
        ('{"a": 1,}x', COMMA, "is not valid JSON", "a comma before a closing bracket"),
        ('{"a": "x, "b": 1}', (1, 12), "Expecting ',' delimiter", "a quote is missing"),
        ('{"a": NaN}', (0, 0), "NaN is not JSON", ""),
        (f'{{"a": {"9" * 5000}}}', (0, 0), "is not valid JSON", ""),
        ('{"a": 1} {"b": 2}', (1, 10), "is not valid JSON: Extra data", ""),
        ('{"a": {"x": 1},\n "b": {"x": 2,\n "x": 3}}', (3, 2), "the key stands twice", "remove one"),
        ('{"a": "\\ud800"}', (0, 0), "half of a surrogate pair", ""),
        ('{"\\udc00": 1}', (0, 0), "half of a surrogate pair", ""),
        # YAML.
        ("a:\n\tb: 1", (2, 1), "is not valid YAML", "never with tabs"),
        ("a: 1\nb: 2\na: 3", (3, 1), "the key stands twice", "remove one"),
        ("8080: 1\n'8080': 2", (2, 1), "the key stands twice", "remove one"),
        ("name: *", (1, 8), "is not valid YAML", "needs quotes"),
        ("name: *x", (1, 7), "there is no anchor &x", "needs quotes"),
        ("a: &a [*a]", (1, 8), "stands inside its own anchor", ""),
        ("? {a: 1}\n: 2", (1, 3), "a key must be a plain text", "quote it"),
        ("a: !Ref b\n!Ref c: 1", (2, 1), "a key must be a plain text", "quote it"),
        ("<<: 1", (1, 5), "<< merges a mapping", ""),
        ("a: [1, 2\nb: 3", (2, 2), "is not valid YAML", ""),
        ("- a\nb: 1", (2, 1), "is not valid YAML", ""),
        ("a: é\nb: \x07", (2, 4), "control characters are not allowed", ""),
        # Encodings.
        ('{"a": 1}'.encode("utf-16"), (1, 1), "is UTF-16", "save it as UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), (1, 2), "holds a NUL byte", "save it as UTF-8"),
        ('{"a": 1}'.encode("utf-32"), (1, 1), "is UTF-32", "save it as UTF-8"),
        ("a: é\nb: éü".encode() + b"\xfc", (2, 6), "is not valid UTF-8 here", "save it as UTF-8"),
        (b"a: 1\nb: \0", (2, 4), "holds a NUL byte", "save it as UTF-8"),
    ],
)
def test_refused(content: str | bytes, place: tuple[int, int], message: str, hint: str) -> None:
    is_json = isinstance(content, str) and content.startswith('{"')
    problem = _refused(content, yaml=False if is_json else None)
    assert message in problem.message
    assert (problem.line, problem.column) == place
    assert hint in problem.hint and (hint or not problem.hint)


def test_a_duplicate_is_named_by_its_path() -> None:
    assert _refused('{"spec": [{"x": 1, "x": 2}]}').path == "$.spec[0].x"
    assert _refused("spec:\n- x: 1\n  x: 2\n").path == "$.spec[0].x"
    # Two spellings of one key.
    assert _refused('{"a": 1, "\\u0061": 2}').path == "$.a"


@pytest.mark.parametrize("yaml", [False, True], ids=["json", "yaml"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded(yaml: bool, opening: str, closing: str) -> None:
    _one(opening * MAX_DEPTH + "0" + closing * MAX_DEPTH, yaml=yaml)
    for depth in (MAX_DEPTH + 1, 100_000):
        problem = _refused(opening * depth + "0" + closing * depth, yaml=yaml)
        assert problem.message == "is nested deeper than 100 levels"
        assert (problem.line, problem.column) == (1, len(opening) * MAX_DEPTH + 1)
    assert "nested deeper" in _refused(opening * 100_000, yaml=yaml).message


def test_aliases_cannot_blow_up() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    start = time.monotonic()
    assert "once its aliases are expanded" in _refused(laughs).message
    # A little in each document is as much.
    lines = laughs.splitlines()[:5]
    assert "once its aliases are expanded" in _refused("\n---\n".join(["\n".join(lines)] * 1000)).message
    assert time.monotonic() - start < 5


def test_many_documents_with_problems_take_linear_time() -> None:
    found, _ = documents(b"---\na: {b: 1}\n" * 2000, "f")
    start = time.monotonic()
    assert {document.locate("$.a.b") for document in found} == {(2 * i, 5) for i in range(1, 2001)}
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("yes", "YAML 1.2 reads yes as a text: write true"),
        ("Off", "YAML 1.2 reads Off as a text: write false"),
        ("080", "YAML 1.2 reads 080 as a text: write 80"),
        ("1_000", "YAML 1.2 reads 1_000 as a text: write 1000"),
        ("0x1F", "YAML 1.2 reads 0x1F as a text: write 31"),
        ("0o17", "YAML 1.2 reads 0o17 as a text: write 15"),
        ("12:30", "YAML 1.2 reads 12:30 as a text: write 750"),
        ("'yes'", None),
        ("text", None),
        ("8080", None),
    ],
)
def test_what_yaml_1_1_read_otherwise_is_noted(text: str, hint: str | None) -> None:
    note = _one(f"a: [b, {text}]").note("$.a[1]")
    assert (note and note.hint) == hint


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    for path, message in (
        (tmp_path / "none", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (Path("a\0b"), "cannot be read: embedded null byte"),
        (Path("x" * 5000), "cannot be read: File name too long"),
        (large, "is larger than 16 MiB"),
    ):
        problem = read_bytes(path)
        assert isinstance(problem, Problem)
        assert problem.message == message and problem.file == str(path)


# --- anything at all ----------------------------------------------------------------------------------

_SYNTAX = st.lists(
    st.sampled_from(
        [*"{}[]:,-#&*!|>'\"\n \t?%@`", "<<", "---", "...", "a", "1", "é", "\\u", "\r", "\ufeff", "\0"]
    ),
    max_size=40,
).map("".join)


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=200) | _SYNTAX.map(str.encode), st.sampled_from([None, False, True]))
@example(b"? ? ? a", True)
@example(b"&a &b c", True)
@example(b"!<> a", True)
def test_any_bytes_give_documents_or_one_problem(content: bytes, yaml: bool | None) -> None:
    found, problems = documents(content, "f", yaml=yaml)
    assert len(problems) <= 1
    for document in found:
        assert document.locate("$.a[0]") is not None
    for problem in problems:
        assert problem.message and not found


@given(st.text())
def test_utf_8_is_decoded(text: str) -> None:
    plain = text.removeprefix("\ufeff")
    if "\0" not in text and "\ufeff" not in plain[:1]:
        assert decode(text.encode()) == plain
