"""Terraform: `terraform show -json` of a state or a plan, a raw `.tfstate`, and HCL where it is literal.

The provider's schema is the API in snake_case: a block that stands once is a list of one, lists are repeated
blocks in the singular. What Terraform itself would have to evaluate (functions, `for_each`, `dynamic`,
modules, data sources) is a problem that says to use `terraform show -json`.

The shape of `show -json` is that of Terraform's documentation, "JSON Output Format"; no real output was at
hand.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from .. import spec
from ..errors import Problem
from ..spec.checks import check
from ..spec.convert import convert
from .found import Context, Found
from .marks import Mark
from .text import Document

_PREFIX: Final = "aws_appmesh_"
#: Terraform type -> kind, and argument -> member of the API besides `mesh_name`.
_TYPES: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "mesh": ("mesh", {"name": "meshName"}),
    "virtual_node": ("virtualNode", {"name": "virtualNodeName"}),
    "virtual_gateway": ("virtualGateway", {"name": "virtualGatewayName"}),
    "virtual_service": ("virtualService", {"name": "virtualServiceName"}),
    "virtual_router": ("virtualRouter", {"name": "virtualRouterName"}),
    "route": ("route", {"name": "routeName", "virtual_router_name": "virtualRouterName"}),
    "gateway_route": (
        "gatewayRoute",
        {"name": "gatewayRouteName", "virtual_gateway_name": "virtualGatewayName"},
    ),
}
#: Member of the API -> name of the repeated block. Others are spelt alike, in snake_case.
_SINGULAR: Final = {
    "backends": "backend",
    "headers": "header",
    "listeners": "listener",
    "query_parameters": "query_parameter",
    "weighted_targets": "weighted_target",
}
_SHOW: Final = "use `terraform show -json` of the state or plan, where Terraform has evaluated everything"
_META: Final = frozenset({"__is_block__", "__comments__", "__inline_comments__"})
_RESOURCE: Final = re.compile(r'^[ \t]*resource\s+"([^"]+)"\s+"([^"]+)"', re.MULTILINE)
_WHOLE: Final = re.compile(r"\$\{([^{}]*)\}\Z")
_PART: Final = re.compile(r"\$\{([^{}]*)\}")
_REFERENCE: Final = re.compile(r"(?P<type>[a-z_0-9]+)\.(?P<name>[A-Za-z_0-9-]+)\.(?P<attribute>[a-z_]+)\Z")
_NAMED: Final = re.compile(r"(?P<table>var|local)\.(?P<name>[A-Za-z_0-9-]+)\Z")


def recognise(value: Any) -> bool:
    """`show -json`, a raw state, or what `parse` makes of HCL."""
    if not isinstance(value, dict):
        return False
    if "__hcl__" in value or isinstance(value.get("terraform_version"), str):
        return "__hcl__" in value or any(key in value for key in ("values", "planned_values", "resources"))
    return False


def parse(content: str, file: str) -> tuple[list[Document], list[Problem]]:
    """A `.tf` or `.tfvars` file. Needs python-hcl2, the extra `terraform`."""
    try:
        import hcl2
        from lark.exceptions import LarkError
    except ImportError:
        hint = "pip install 'appmesh-xds[terraform]', or " + _SHOW
        return [], [Problem(file=file, message="HCL is read by python-hcl2, which is missing", hint=hint)]
    options = hcl2.SerializationOptions(strip_string_quotes=True)
    try:
        value = hcl2.loads(content + "\n", serialization_options=options)
    except (LarkError, ValueError, KeyError, RecursionError) as error:
        line, column = getattr(error, "line", 0), getattr(error, "column", 0)
        place = (line, column) if isinstance(line, int) and line > 0 else (0, 0)
        text = "is not valid HCL" if place != (0, 0) else "is not HCL that can be read"
        return [], [Problem(file=file, line=place[0], column=place[1], message=text, hint=_SHOW)]
    wrapped = {"__hcl__": file.endswith(".tfvars"), **value}
    return [Document(file, wrapped, lambda: _lines(content, wrapped))], []


def _lines(text: str, value: Mapping[str, Any]) -> dict[str, Mark]:
    """Path of each resource to its first line: all that the parser of HCL lets one know."""
    lines = {(m[1], m[2]): text.count("\n", 0, m.start()) + 1 for m in _RESOURCE.finditer(text)}
    found: dict[str, Mark] = {}
    for index, entry in enumerate(_list(value.get("resource"))):
        for kind, named in _mapping(entry).items():
            for name in _mapping(named):
                if (kind, name) in lines:
                    found[f"$.resource[{index}].{kind}.{name}"] = Mark(lines[kind, name], 1)
    return found


class _Block(NamedTuple):
    """One resource and where it stands; not only App Mesh's, because others are referred to."""

    type: str
    name: str
    values: dict[str, Any]
    document: Document
    path: str


def read(documents: Sequence[Document], context: Context) -> Iterator[Found | Problem]:
    """The resources of all files together: they may refer to one another, as files of one module do."""
    blocks: list[_Block] = []
    variables: dict[tuple[str, str], Any] = {}
    for document in documents:
        blocks.extend(_blocks(document))
        variables.update(_variables(document.value))
    names = _Names(blocks, variables)
    for block in blocks:
        yield from _resource(block, names, context)


def _blocks(document: Document) -> Iterator[_Block]:
    value = document.value
    if "__hcl__" in value:
        for index, entry in enumerate(_list(value.get("resource"))):
            for kind, named in _mapping(entry).items():
                for name, body in _mapping(named).items():
                    path = f"$.resource[{index}].{kind}.{name}"
                    yield _Block(kind, name, _mapping(body), document, path)
        return
    if isinstance(value.get("resources"), list):
        for index, entry in enumerate(value["resources"]):
            path = f"$.resources[{index}]"
            for number, instance in enumerate(_list(_mapping(entry).get("instances"))):
                at = f"{path}.instances[{number}].attributes"
                yield from _shown(entry, _mapping(instance).get("attributes"), document, at)
        return
    for key in ("planned_values", "values"):
        if isinstance(value.get(key), dict):
            yield from _module(value[key].get("root_module"), document, f"$.{key}.root_module")
            return


def _module(module: Any, document: Document, path: str) -> Iterator[_Block]:
    for index, entry in enumerate(_list(_mapping(module).get("resources"))):
        at = f"{path}.resources[{index}].values"
        yield from _shown(entry, _mapping(entry).get("values"), document, at)
    for index, child in enumerate(_list(_mapping(module).get("child_modules"))):
        yield from _module(child, document, f"{path}.child_modules[{index}]")


def _shown(entry: Any, values: Any, document: Document, path: str) -> Iterator[_Block]:
    kind = _mapping(entry).get("type")
    managed = _mapping(entry).get("mode", "managed") == "managed"
    if isinstance(kind, str) and kind.startswith(_PREFIX) and managed:
        name = str(_mapping(entry).get("name"))
        yield _Block(kind, name, _mapping(values), document, path)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _variables(value: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Defaults of variables, values of a `.tfvars` file, and locals."""
    found: dict[tuple[str, str], Any] = {}
    if "__hcl__" not in value:
        return found
    for entry in _list(value.get("variable")):
        for name, body in _mapping(entry).items():
            if "default" in _mapping(body):
                found.setdefault(("var", name), body["default"])
    for entry in _list(value.get("locals")):
        found.update({("local", name): item for name, item in _mapping(entry).items() if name not in _META})
    if value["__hcl__"]:
        plain = {name: item for name, item in value.items() if name not in _META and name != "__hcl__"}
        found.update({("var", name): item for name, item in plain.items()})
    return found


class _Unresolved(Exception):
    """An expression that only Terraform can evaluate."""


class _Names:
    """What references, variables and locals stand for."""

    def __init__(self, blocks: Iterable[_Block], variables: Mapping[tuple[str, str], Any]) -> None:
        self.blocks = {(block.type, block.name): block for block in blocks}
        self.variables = variables

    def resolve(self, value: Any, depth: int = 0) -> Any:
        """A value with its expressions replaced. Raises `_Unresolved`."""
        if not isinstance(value, str) or "${" not in value:
            return value
        if depth > 20:
            raise _Unresolved(value)
        whole = _WHOLE.match(value)
        if whole is not None:
            return self.resolve(self._expression(whole[1].strip()), depth + 1)
        text = _PART.sub(lambda part: str(self.resolve(self._expression(part[1].strip()), depth + 1)), value)
        if "${" in text:
            raise _Unresolved(value)
        return text

    def _expression(self, text: str) -> Any:
        named = _NAMED.match(text)
        if named is not None and (named["table"], named["name"]) in self.variables:
            return self.variables[named["table"], named["name"]]
        reference = _REFERENCE.match(text)
        if reference is not None:
            block = self.blocks.get((reference["type"], reference["name"]))
            # App Mesh's ids are names; those of other resources exist only once they are made.
            is_id = reference["attribute"] == "id" and reference["type"].startswith(_PREFIX)
            attribute = "name" if is_id else reference["attribute"]
            if block is not None and attribute in block.values:
                return block.values[attribute]
        raise _Unresolved(text)


def _resource(block: _Block, names: _Names, context: Context) -> Iterator[Found | Problem]:
    if block.type.removeprefix(_PREFIX) not in _TYPES or not block.type.startswith(_PREFIX):
        return
    kind, members = _TYPES[block.type.removeprefix(_PREFIX)]
    walk = _Walk(block, names)
    body: dict[str, Any] = {}
    for argument, member in {"mesh_name": "meshName", "mesh_owner": "meshOwner", **members}.items():
        if block.values.get(argument) not in (None, ""):
            body[member] = walk.scalar(block.values[argument], f"$.{member}")
    if context.mesh is not None:
        body.setdefault("meshName", context.mesh)
    for refused in ("for_each", "count", "dynamic"):
        if refused in block.values:
            walk.problem("$", f"{refused} needs Terraform to evaluate it", _SHOW)
    if kind == "mesh" and block.values.get("mesh_owner"):
        # The owner is set for every mesh; it counts where a mesh is shared with another account.
        body.pop("meshOwner", None)
    data = spec.BY_KIND[kind]
    spec_type = next(field.type for field in msgspec.structs.fields(data) if field.name == "spec")
    blocks = _list(block.values.get("spec"))
    body["spec"] = walk.block(blocks[0], spec_type, "$.spec") if blocks else {}
    yield from walk.problems
    if walk.problems:
        return
    converted = convert(body, data, strict=False, unknown="error")
    found = Found(converted.value, block.document, f"{block.path}.spec[0]", block.path, _to_terraform)
    problems = [msgspec.structs.replace(p, resource=p.resource or walk.key) for p in converted.problems]
    if converted.value is not None:
        problems.extend(check(converted.value))
    for problem in problems:
        yield found.locate(problem)
    if converted.value is not None and not any(p.severity == "error" for p in problems):
        yield found


class _Walk:
    """One resource's blocks, turned into the API's JSON by the spec's own types."""

    def __init__(self, block: _Block, names: _Names) -> None:
        self.source = block
        self.names = names
        self.key = f"{block.type}.{block.name}"
        self.problems: list[Problem] = []

    def problem(self, path: str, message: str, hint: str = "") -> None:
        mark = self.source.document.locate(self.source.path + _to_terraform(path.removeprefix("$")))
        line, column = mark or (0, 0)
        file = self.source.document.file
        self.problems.append(
            Problem(
                file=file, line=line, column=column, resource=self.key, path=path, message=message, hint=hint
            )
        )

    def scalar(self, value: Any, path: str) -> Any:
        if isinstance(value, list):
            return [self.scalar(item, f"{path}[{index}]") for index, item in enumerate(value)]
        try:
            return self.names.resolve(value)
        except _Unresolved as error:
            self.problem(path, f"${{{error}}} needs Terraform to evaluate it", _SHOW)
            return None

    def block(self, value: Any, kind: Any, path: str) -> Any:
        """A block as an object: every member of the struct that it states."""
        if not isinstance(value, dict):
            return self.scalar(value, path)
        if "dynamic" in value:
            self.problem(path, "a dynamic block needs Terraform to evaluate it", _SHOW)
        result: dict[str, Any] = {}
        known = set(_META) | {"dynamic"}
        for field in msgspec.structs.fields(kind):
            argument = _SINGULAR.get(field.name, field.name)
            known.add(argument)
            given = value.get(argument)
            at = f"{path}.{field.encode_name}"
            struct, many = _shape(field.type)
            if argument == "attributes" and isinstance(given, dict):
                pairs = {key: item for key, item in given.items() if key not in _META}
                given = [{"key": key, "value": item} for key, item in sorted(pairs.items())]
            # Terraform has no unset: what nobody wrote is "", 0, false or an empty list.
            if given in (None, "", []) or (given == 0 and not field.required and given is not False):
                continue
            if struct is None:
                result[field.encode_name] = self.scalar(given, at)
            elif many:
                items = enumerate(given if isinstance(given, list) else [given])
                result[field.encode_name] = [self.block(item, struct, f"{at}[{i}]") for i, item in items]
            else:
                one = given[0] if isinstance(given, list) else given
                result[field.encode_name] = self.block({} if one is None else one, struct, at)
        for argument in sorted(value.keys() - known):
            if value[argument] not in (None, "", [], 0, False):
                self.problem(path, f"unknown argument {argument!r}")
        return result


@cache
def _shape(kind: Any) -> tuple[Any, bool]:
    """(struct inside, whether many) of a field's type; (None, _) for scalars and lists of them."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _shape(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        inner = [_shape(one) for one in typing.get_args(kind) if one is not type(None)]
        return next((one for one in inner if one[0] is not None), (None, False))
    if origin is tuple:
        return _shape(typing.get_args(kind)[0])[0], True
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind, False
    return None, False


def _to_terraform(path: str) -> str:
    """An API path below the spec as Terraform's blocks have it, as far as lines need it."""
    parts = []
    for name, index in re.findall(r"\.([A-Za-z0-9]+)((?:\[\d+\])?)", path):
        snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
        parts.append(f".{_SINGULAR.get(snake, snake)}{index or '[0]'}")
    return "".join(parts)
