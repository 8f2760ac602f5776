"""CloudFormation templates: App Mesh's resources, with the intrinsic functions resolved.

Several templates are read together, as stacks of one mesh: an export of one resolves an import of another.
What only a deployment knows must be given (`--parameter`, `--import`, `--external`); what is not is a problem
that names it, and never a placeholder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

import msgspec

from .. import spec
from ..errors import Problem, Severity
from ..spec.checks import check
from ..spec.convert import convert
from .found import Context, Found
from .text import Document, Tagged, member

_PREFIX: Final = "AWS::AppMesh::"
#: Resource type -> kind and the properties that name it, besides MeshName.
_TYPES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "Mesh": ("mesh", ()),
    "VirtualNode": ("virtualNode", ("VirtualNodeName",)),
    "VirtualGateway": ("virtualGateway", ("VirtualGatewayName",)),
    "VirtualService": ("virtualService", ("VirtualServiceName",)),
    "VirtualRouter": ("virtualRouter", ("VirtualRouterName",)),
    "Route": ("route", ("VirtualRouterName", "RouteName")),
    "GatewayRoute": ("gatewayRoute", ("VirtualGatewayName", "GatewayRouteName")),
}
#: Spellings that are not just a capital first letter (CloudFormation -> API).
_SPELT: Final = {
    "ACM": "acm",
    "AWSCloudMap": "awsCloudMap",
    "DNS": "dns",
    "GRPC": "grpc",
    "HTTP": "http",
    "HTTP2": "http2",
    "SDS": "sds",
    "TCP": "tcp",
    "TLS": "tls",
}
_BACK: Final = {api: cfn for cfn, api in _SPELT.items()}
#: Values of pseudo-parameters that are the same everywhere the templates were used.
_PSEUDO: Final = {"AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com"}
_SUB: Final = re.compile(r"\$\{([^!{}][^{}]*)\}")
_DEPTH: Final = 60


class _Absent:
    """`AWS::NoValue`: as if the property were not there."""


_ABSENT: Final = _Absent()


class _Unresolved(Exception):
    def __init__(self, message: str, hint: str) -> None:
        self.message = message
        self.hint = hint


def recognise(value: Any) -> bool:
    """A template with App Mesh resources in it."""
    resources = value.get("Resources") if isinstance(value, dict) else None
    return isinstance(resources, dict) and any(
        isinstance(one, dict) and str(one.get("Type")).startswith(_PREFIX) for one in resources.values()
    )


def read(documents: Sequence[Document], context: Context) -> Iterator[Found | Problem]:
    """The resources of all templates."""
    templates = [_Template(document, context) for document in documents]
    exports: dict[str, Any] = {}
    for template in templates:
        exports.update(template.exports())
    for template in templates:
        template.imports = {**exports, **context.imports}
        yield from template.resources()


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _function(value: Any) -> tuple[str, Any] | None:
    """(name, argument) of an intrinsic function in either form."""
    if isinstance(value, Tagged):
        name = value.tag.lstrip("!")
        return (
            "Ref" if name == "Ref" else "Condition" if name == "Condition" else f"Fn::{name}"
        ), value.value
    if isinstance(value, dict) and len(value) == 1:
        (name,) = value
        if name in ("Ref", "Condition") or str(name).startswith("Fn::"):
            return str(name), value[name]
    return None


def _own_name(kind: str) -> str:
    """The property that names a resource of a type; it may be made up by CloudFormation."""
    return (_TYPES.get(kind.removeprefix(_PREFIX), ("", ()))[1] or ("MeshName",))[-1]


class _Template:
    """One template and what its functions refer to."""

    def __init__(self, document: Document, context: Context) -> None:
        self.document = document
        self.context = context
        self.body = _mapping(document.value)
        self.by_id = _mapping(self.body.get("Resources"))
        self.imports: Mapping[str, Any] = context.imports
        self.stack = context.parameters.get("AWS::StackName") or PurePath(document.file).stem or "stack"

    # --- resources ----------------------------------------------------------------------------------

    def exports(self) -> dict[str, Any]:
        """Outputs with an export name, as far as this template alone resolves them."""
        found = {}
        for output in _mapping(self.body.get("Outputs")).values():
            export = _mapping(_mapping(output).get("Export")).get("Name")
            if export is not None:
                try:
                    found[str(self.resolve(export))] = self.resolve(_mapping(output).get("Value"))
                except _Unresolved:
                    continue
        return found

    def resources(self) -> Iterator[Found | Problem]:
        for logical, resource in self.by_id.items():
            kind = str(_mapping(resource).get("Type"))
            if kind.startswith(_PREFIX):
                yield from self._resource(str(logical), _mapping(resource), kind.removeprefix(_PREFIX))

    def _resource(self, logical: str, resource: dict[str, Any], kind: str) -> Iterator[Found | Problem]:
        place = member("$.Resources", logical)
        if kind not in _TYPES:
            yield self._problem(place, logical, f"{_PREFIX}{kind} is not a type of App Mesh's")
            return
        try:
            if "Condition" in resource and not self._condition(resource["Condition"], 0):
                return
        except _Unresolved as error:
            yield self._problem(f"{place}.Condition", logical, error.message, error.hint)
            return
        problems: list[Problem] = []
        properties = self._walk(
            _mapping(resource.get("Properties")), f"{place}.Properties", logical, problems
        )
        api_kind, named = _TYPES[kind]
        body: dict[str, Any] = {}
        for name in dict.fromkeys(("MeshName", *named)):
            if name in properties:
                body[name[0].lower() + name[1:]] = properties[name]
            elif name == (named[-1] if named else "MeshName"):
                body[name[0].lower() + name[1:]] = self._generated(logical, name, place, problems)
        if properties.get("MeshOwner") not in (None, ""):
            body["meshOwner"] = str(properties["MeshOwner"])
        known = {"MeshName", "MeshOwner", "Spec", "Tags", *named}
        problems.extend(
            self._problem(member(f"{place}.Properties", name), logical, "unknown property")
            for name in properties
            if name not in known
        )
        yield from problems
        if any(problem.severity == "error" for problem in problems):
            return
        wrong: list[Problem] = []
        body["spec"] = self._to_api(properties.get("Spec"), f"{place}.Properties.Spec", logical, wrong)
        if body["spec"] is None:
            del body["spec"]
        yield from wrong
        yield from self._found(api_kind, body, place, logical)

    def _found(self, kind: str, body: dict[str, Any], place: str, logical: str) -> Iterator[Found | Problem]:
        converted = convert(body, spec.BY_KIND[kind], strict=False, unknown="error")
        found = Found(
            converted.value, self.document, f"{place}.Properties.Spec", f"{place}.Properties", _to_template
        )
        problems = [msgspec.structs.replace(p, resource=p.resource or logical) for p in converted.problems]
        if converted.value is not None:
            problems.extend(check(converted.value))
        for problem in problems:
            yield found.locate(problem)
        if converted.value is not None and not any(p.severity == "error" for p in problems):
            yield found

    def _generated(self, logical: str, name: str, place: str, problems: list[Problem]) -> str:
        made = f"{self.stack}-{logical}"
        text = f"{name} is left out, and CloudFormation would make one up: {made!r} is taken"
        problems.append(self._problem(place, logical, text, f"state {name}", "warning"))
        return made

    def _problem(
        self, path: str, logical: str, message: str, hint: str = "", severity: Severity = "error"
    ) -> Problem:
        line, column = self.document.locate(path) or (0, 0)
        return Problem(
            file=self.document.file,
            line=line,
            column=column,
            resource=logical,
            path=path,
            message=message,
            hint=hint,
            severity=severity,
        )

    # --- values -------------------------------------------------------------------------------------

    def _walk(self, value: Any, path: str, logical: str, problems: list[Problem]) -> Any:
        """A value with every function in it resolved; each that cannot be is a problem at its place."""
        if _function(value) is not None:
            try:
                return self._walk(self.resolve(value), path, logical, problems)
            except _Unresolved as error:
                problems.append(self._problem(path, logical, error.message, error.hint))
                return None
        if isinstance(value, dict):
            made = {k: self._walk(v, member(path, k), logical, problems) for k, v in value.items()}
            return {key: item for key, item in made.items() if not isinstance(item, _Absent)}
        if isinstance(value, list):
            items = [self._walk(item, f"{path}[{i}]", logical, problems) for i, item in enumerate(value)]
            return [item for item in items if not isinstance(item, _Absent)]
        return value

    def _to_api(self, value: Any, path: str, logical: str, problems: list[Problem]) -> Any:
        if isinstance(value, list):
            return [self._to_api(item, f"{path}[{i}]", logical, problems) for i, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        result = {}
        for key, item in value.items():
            at = member(path, key)
            api = _SPELT.get(key, str(key)[:1].lower() + str(key)[1:])
            spelt = _BACK.get(api, api[:1].upper() + api[1:])
            if key != spelt:
                problems.append(
                    self._problem(at, logical, f"unknown property {key!r}", f"did you mean {spelt}?")
                )
                continue
            result[api] = self._to_api(item, at, logical, problems)
        return result

    def resolve(self, value: Any, depth: int = 0) -> Any:
        """A value without functions. Raises `_Unresolved`."""
        if depth > _DEPTH:
            raise _Unresolved("this refers to itself", "")
        function = _function(value)
        if function is None:
            if isinstance(value, list):
                return [self.resolve(item, depth + 1) for item in value]
            if isinstance(value, dict):
                return {key: self.resolve(item, depth + 1) for key, item in value.items()}
            if isinstance(value, str) and value.startswith("{{resolve:"):
                raise _Unresolved(f"{value} is known to AWS alone", "write the value itself")
            return value
        name, argument = function
        work = _FUNCTIONS.get(name)
        if work is None:
            raise _Unresolved(f"{name} is not resolved here", "write the value itself")
        try:
            return work(self, argument, depth + 1)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError):
            raise _Unresolved(f"{name} does not have the arguments it takes", "") from None

    def _ref(self, argument: Any, depth: int) -> Any:
        name = str(argument)
        if name == "AWS::NoValue":
            return _ABSENT
        if name in self.context.parameters:
            return self.context.parameters[name]
        if name in _PSEUDO or name == "AWS::StackName":
            return _PSEUDO.get(name, self.stack)
        parameter = _mapping(_mapping(self.body.get("Parameters")).get(name))
        if "Default" in parameter and not str(parameter.get("Type")).startswith("AWS::SSM"):
            return parameter["Default"]
        if parameter or name.startswith("AWS::"):
            raise _Unresolved(f"parameter {name} has no value", f"give --parameter {name}=VALUE")
        if name in self.context.externals:
            return self.context.externals[name]
        kind = str(_mapping(self.by_id.get(name)).get("Type"))
        if kind.removeprefix(_PREFIX) in _TYPES:
            hint = f"use !GetAtt {name}.{_own_name(kind)}"
            raise _Unresolved(f"Ref of {name} is its ARN, not its name", hint)
        raise _Unresolved(f"{name} is known after deployment alone", f"give --external {name}=VALUE")

    def _get_att(self, argument: Any, depth: int) -> Any:
        logical, _, attribute = (
            argument.partition(".")
            if isinstance(argument, str)
            else (
                str(argument[0]),
                "",
                str(self.resolve(argument[1], depth)),
            )
        )
        key = f"{logical}.{attribute}"
        if key in self.context.externals:
            return self.context.externals[key]
        resource = _mapping(self.by_id.get(logical))
        properties = _mapping(resource.get("Properties"))
        kind = str(resource.get("Type"))
        if kind.startswith(_PREFIX) and attribute in properties:
            return self.resolve(properties[attribute], depth)
        if (
            kind.startswith(_PREFIX)
            and attribute == (_TYPES.get(kind.removeprefix(_PREFIX), ("", ()))[1] or ("MeshName",))[-1]
        ):
            return f"{self.stack}-{logical}"
        if kind.startswith("AWS::ServiceDiscovery::") and attribute == "Name" and "Name" in properties:
            return self.resolve(properties["Name"], depth)
        raise _Unresolved(f"{key} is known after deployment alone", f"give --external {key}=VALUE")

    def _sub(self, argument: Any, depth: int) -> str:
        text, given = (argument, {}) if isinstance(argument, str) else (argument[0], _mapping(argument[1]))

        def part(match: re.Match[str]) -> str:
            name = match[1].strip()
            if name in given:
                return _text(self.resolve(given[name], depth))
            return _text(self._get_att(name, depth) if "." in name else self._ref(name, depth))

        return _SUB.sub(part, text).replace("${!", "${")

    def _join(self, argument: Any, depth: int) -> str:
        separator, items = argument
        return str(separator).join(_text(item) for item in self.resolve(items, depth))

    def _select(self, argument: Any, depth: int) -> Any:
        index, items = self.resolve(argument[0], depth), self.resolve(argument[1], depth)
        items = items.split(",") if isinstance(items, str) else items
        return items[int(index)]

    def _split(self, argument: Any, depth: int) -> list[str]:
        separator, text = argument
        return _text(self.resolve(text, depth)).split(str(separator))

    def _if(self, argument: Any, depth: int) -> Any:
        condition, yes, no = argument
        return self.resolve(yes if self._condition(condition, depth) else no, depth)

    def _find_in_map(self, argument: Any, depth: int) -> Any:
        table, first, second = (self.resolve(one, depth) for one in argument[:3])
        try:
            return _mapping(self.body.get("Mappings"))[table][str(first)][str(second)]
        except KeyError:
            if len(argument) > 3 and "DefaultValue" in _mapping(argument[3]):
                return self.resolve(argument[3]["DefaultValue"], depth)
            raise _Unresolved(f"mapping {table} has no {first}, {second}", "") from None

    def _import(self, argument: Any, depth: int) -> Any:
        name = _text(self.resolve(argument, depth))
        if name in self.imports:
            return self.imports[name]
        raise _Unresolved(
            f"{name} is exported by another stack", f"give --import {name}=VALUE, or its template"
        )

    def _to_json(self, argument: Any, depth: int) -> str:
        return json.dumps(self.resolve(argument, depth), separators=(",", ":"))

    # --- conditions ---------------------------------------------------------------------------------

    def _condition(self, value: Any, depth: int) -> bool:
        """Whether a condition holds: its name, or one of the condition functions."""
        if depth > _DEPTH:
            raise _Unresolved("this condition refers to itself", "")
        name, argument = ("Condition", value) if isinstance(value, str) else _function(value) or ("", None)
        if name == "Condition":
            name = str(argument)
            conditions = _mapping(self.body.get("Conditions"))
            if name not in conditions:
                raise _Unresolved(f"there is no condition {name!r}", "")
            return self._condition(conditions[name], depth + 1)
        arguments = argument if isinstance(argument, list) else []
        if name == "Fn::Equals" and len(arguments) == 2:
            one, other = (self.resolve(item, depth + 1) for item in arguments)
            return _text(one) == _text(other)
        if name == "Fn::Not" and len(arguments) == 1:
            return not self._condition(arguments[0], depth + 1)
        if name in ("Fn::And", "Fn::Or") and arguments:
            held = [self._condition(item, depth + 1) for item in arguments]
            return all(held) if name == "Fn::And" else any(held)
        raise _Unresolved("this is not a condition", "And, Or, Not, Equals or the name of a condition")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | _Absent) or value is None:
        raise _Unresolved("a text is needed here", "")
    return str(value)


_FUNCTIONS: Final = {
    "Ref": _Template._ref,
    "Fn::GetAtt": _Template._get_att,
    "Fn::Sub": _Template._sub,
    "Fn::Join": _Template._join,
    "Fn::Select": _Template._select,
    "Fn::Split": _Template._split,
    "Fn::If": _Template._if,
    "Fn::FindInMap": _Template._find_in_map,
    "Fn::ImportValue": _Template._import,
    "Fn::ToJsonString": _Template._to_json,
}


def _to_template(path: str) -> str:
    """An API path below the spec as the template spells it."""

    def spell(match: re.Match[str]) -> str:
        name = match[1]
        return "." + _BACK.get(name, name[0].upper() + name[1:])

    return re.sub(r"\.([A-Za-z0-9]+)", spell, path)
