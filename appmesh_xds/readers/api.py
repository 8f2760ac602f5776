"""App Mesh's own JSON (or the same in YAML): requests, responses and specs, in every envelope.

{"meshName": ..., "virtualNodeName": ..., "spec": {...}}       a create or update request
{"virtualNode": {"meshName": ..., "spec": {...}, "metadata": ...}}   a response, as the CLI prints it
{"meshName": ..., ..., "metadata": ..., "status": ...}         a response, unwrapped
{"spec": {...}}, or the spec itself                            names and kind come from outside
[ ... ]                                                        several of these
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from .. import spec
from ..errors import Problem, Severity
from ..spec._wording import quote
from ..spec.checks import check, is_clean
from ..spec.convert import convert
from .found import Context, Found
from .text import Document, Tagged, member

#: Body member that names a resource -> kind. Those with a parent come first: they hold the parent's too.
_NAMES: Final = (
    ("gatewayRouteName", "gatewayRoute"),
    ("routeName", "route"),
    ("virtualNodeName", "virtualNode"),
    ("virtualGatewayName", "virtualGateway"),
    ("virtualServiceName", "virtualService"),
    ("virtualRouterName", "virtualRouter"),
    ("meshName", "mesh"),
)
#: Kind -> members of the body that name the resource, besides `meshName`.
_MEMBERS: Final = {
    "mesh": (),
    "virtualNode": ("virtualNodeName",),
    "virtualGateway": ("virtualGatewayName",),
    "virtualService": ("virtualServiceName",),
    "virtualRouter": ("virtualRouterName",),
    "route": ("virtualRouterName", "routeName"),
    "gatewayRoute": ("virtualGatewayName", "gatewayRouteName"),
}
_LISTS: Final = frozenset(
    {
        "meshes",
        "virtualNodes",
        "virtualGateways",
        "virtualServices",
        "virtualRouters",
        "routes",
        "gatewayRoutes",
    }
)
#: Members of the specs, by kind.
_SPEC_FIELDS: Final = tuple(
    frozenset(member.encode_name for member in msgspec.structs.fields(field.type))
    for data in spec.DATA_TYPES
    for field in msgspec.structs.fields(data)
    if field.name == "spec"
)
#: Those that nobody else's file is made of: one of them there, and no others, is a spec without its envelope.
_TELLING: Final = frozenset().union(*_SPEC_FIELDS) - {"logging", "priority", "provider"}
#: Members beside the names and the spec that say nothing to a proxy.
_REQUEST_ONLY: Final = frozenset({"clientToken", "tags"})
_RESPONSE_ONLY: Final = frozenset({"metadata", "status"})
#: Beside a wrapped response.
_AROUND: Final = frozenset({"ResponseMetadata", "nextToken"})


class _Place(NamedTuple):
    document: Document
    path: str


def recognise(value: Any) -> bool:
    """Whether a document looks like App Mesh's API: a request, a response, a spec, or a list of them."""
    if isinstance(value, list):
        return any(recognise(item) for item in value)
    if not isinstance(value, dict):
        return False
    if any(name in value for name, _ in _NAMES) or set(value) == {"spec"} or _is_bare_spec(value):
        return True
    if _is_recorded(value):
        return recognise(value["data"])
    return any(kind in value and isinstance(value[kind], dict) for kind in _MEMBERS if kind != "mesh") or (
        bool(_LISTS & set(value)) or (isinstance(value.get("mesh"), dict) and "meshName" in value["mesh"])
    )


def _is_recorded(value: Mapping[str, Any]) -> bool:
    """A response as recorders of boto3 keep it (placebo)."""
    return set(value) == {"status_code", "data"} and isinstance(value["data"], dict)


def _is_bare_spec(value: Mapping[str, Any]) -> bool:
    return not _TELLING.isdisjoint(value) and any(fields.issuperset(value) for fields in _SPEC_FIELDS)


def read(document: Document, context: Context) -> Iterator[Found | Problem]:
    """Every resource of a document, and what is wrong with it."""
    yield from _read(document.value, _Place(document, "$"), context)


def read_request(
    value: dict[str, Any], document: Document, path: str, context: Context
) -> Iterator[Found | Problem]:
    """One request that stands within a document of another kind. As a call that was made it is not looked at
    more strictly than the service did."""
    yield from _read(value, _Place(document, path), context, response=True)


def _read(
    value: Any, place: _Place, context: Context, *, response: bool = False
) -> Iterator[Found | Problem]:
    if isinstance(value, list):
        if not value:
            yield _problem(place, "an empty list: there is nothing in it")
        for index, item in enumerate(value):
            yield from _read(item, place._replace(path=f"{place.path}[{index}]"), context, response=response)
        return
    if not isinstance(value, dict):
        shown = value.tag if isinstance(value, Tagged) else type(value).__name__
        yield _problem(place, f"expected an App Mesh resource, got {shown}")
        return
    if _is_recorded(value):
        yield from _read(value["data"], place._replace(path=f"{place.path}.data"), context, response=True)
        return
    wrapped = [kind for kind in _MEMBERS if isinstance(value.get(kind), dict)]
    if context.kind is None and len(wrapped) == 1 and set(value) <= {wrapped[0], *_AROUND}:
        inner = place._replace(path=f"{place.path}.{wrapped[0]}")
        yield from _resource(value[wrapped[0]], wrapped[0], inner, context, response=True)
        return
    lists = [name for name in sorted(_LISTS & set(value)) if isinstance(value[name], list)]
    if lists and context.kind is None:
        for name in lists:
            yield from _list(value[name], place._replace(path=f"{place.path}.{name}"), context)
        return
    named = _kind_by_names(value)
    kind = context.kind or named
    if kind is None:
        yield _problem(
            place,
            "this spec does not say what it is a spec of",
            "give its kind and name: virtualNode/NAME=PATH, and --mesh MESH",
        )
        return
    yield from _resource(value, kind, place, context, response=response or bool(_RESPONSE_ONLY & set(value)))


def _kind_by_names(value: Mapping[str, Any]) -> str | None:
    return next((kind for name, kind in _NAMES if name in value), None)


def _list(items: list[Any], place: _Place, context: Context) -> Iterator[Found | Problem]:
    """A list response names resources and holds no specs; a file made of describe responses does."""
    bare = 0
    for index, item in enumerate(items):
        if isinstance(item, dict) and "spec" not in item and len(item) and "arn" in item:
            bare += 1
            continue
        yield from _read(item, place._replace(path=f"{place.path}[{index}]"), context, response=True)
    if bare:
        yield _problem(
            place,
            f"a list response: it names {bare} resources and does not hold their specs",
            "save what `aws appmesh describe-...` prints for each of them",
            "warning",
        )


def _problem(place: _Place, message: str, hint: str = "", severity: Severity = "error") -> Problem:
    mark = place.document.locate(place.path)
    line, column = mark or (0, 0)
    return Problem(
        file=place.document.file,
        line=line,
        column=column,
        path=place.path,
        message=message,
        hint=hint,
        severity=severity,
    )


def _resource(
    value: Mapping[str, Any], kind: str, place: _Place, context: Context, *, response: bool
) -> Iterator[Found | Problem]:
    """One resource. Its names come from the body, or from outside where the body has none."""
    named = _names(value, kind, place, context)
    if isinstance(named, Problem):
        yield named
        return
    body, spec_path = _body(value, kind, named, place)
    unknown: Severity = "warning" if response else "error"
    converted = convert(body, spec.BY_KIND[kind], strict=context.strict, unknown=unknown)
    found = Found(converted.value, place.document, spec_path, place.path)
    key = _key(kind, named)
    for problem in converted.problems:
        yield found.locate(msgspec.structs.replace(problem, resource=key))
    if converted.value is None:
        return
    problems = check(converted.value)
    for problem in problems:
        yield found.locate(problem)
    if not any(problem.severity == "error" for problem in problems):
        yield found


def _key(kind: str, names: Mapping[str, str]) -> str:
    """The resource's key, of names that may not be valid yet: what is too long is cut."""
    members = [names[name][:_NAME_LENGTH] for name in _MEMBERS[kind]]
    if kind == "mesh":
        return f"mesh/{names['meshName'][:_NAME_LENGTH]}"
    if kind in ("route", "gatewayRoute"):
        parent = "virtualRouter" if kind == "route" else "virtualGateway"
        return f"{parent}/{members[0]}/{kind}/{members[1]}"
    return f"{kind}/{members[0]}"


def _names(value: Mapping[str, Any], kind: str, place: _Place, context: Context) -> dict[str, str] | Problem:
    """The resource's names: from the body, or from outside. They must not differ, except for the mesh: a name
    given for that is for resources that state none, and picks one of several."""
    outside: dict[str, str] = {}
    wanted = _MEMBERS[kind]
    if context.name is not None:
        parts = context.name.split("/", 1) if len(wanted) == 2 else [context.name]
        if kind == "mesh":
            outside["meshName"] = context.name
        elif len(parts) != len(wanted):
            return _problem(
                place, f"a {kind} is named by its parent and its own name", f"{kind}/PARENT/NAME=PATH"
            )
        else:
            outside.update(zip(wanted, parts, strict=True))
    if context.mesh is not None:
        outside.setdefault("meshName", context.mesh)
    names: dict[str, str] = {}
    for name in ("meshName", *wanted):
        inside = value.get(name)
        # A spec alone may have members of these names only by mistake; only texts are names.
        if isinstance(inside, str):
            if name != "meshName" and outside.get(name, inside) != inside:
                text = f"the {name} is {quote(inside)} here and {quote(outside[name])} from outside"
                return _problem(place._replace(path=member(place.path, name)), text, "give one of the two")
            names[name] = inside
        elif name in value and inside is not None:
            return _problem(place._replace(path=member(place.path, name)), "expected a text")
        elif name in outside:
            names[name] = outside[name]
        else:
            flag = "--mesh MESH" if name == "meshName" else f"{kind}/NAME=PATH"
            return _problem(place, f"the {name} is missing", f"add it, or give it from outside: {flag}")
    return names


def _body(
    value: Mapping[str, Any], kind: str, names: Mapping[str, str], place: _Place
) -> tuple[dict[str, Any], str]:
    """The value as `spec.*Data` takes it, and where its spec stands in the document."""
    envelope = {"meshName", "meshOwner", "spec", *_MEMBERS[kind], *_REQUEST_ONLY, *_RESPONSE_ONLY}
    is_envelope = not value or "spec" in value or any(name in value for name, _ in _NAMES)
    if not is_envelope:
        return {**names, "spec": dict(value)}, place.path
    body: dict[str, Any] = {key: item for key, item in value.items() if key not in envelope}
    body.update(names)
    owner = value.get("meshOwner")
    metadata = value.get("metadata")
    if owner is None and isinstance(metadata, dict):
        # The owner counts only for a mesh that is shared with the resource's account.
        owner = metadata.get("meshOwner")
        if owner == metadata.get("resourceOwner"):
            owner = None
    if owner is not None:
        body["meshOwner"] = owner
    given = value.get("spec")
    if given is not None:
        body["spec"] = given
    elif kind in ("mesh", "virtualService", "virtualRouter", "virtualNode") and "spec" in value:
        body["spec"] = {}  # `spec:` with nothing under it
    return body, f"{place.path}.spec"


# --- the fast path ------------------------------------------------------------------------------------


class _Request(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """A request as most files hold it: names and a spec, nothing else."""

    mesh_name: str
    spec: msgspec.Raw
    mesh_owner: str | None = None
    virtual_node_name: str | None = None
    virtual_gateway_name: str | None = None
    virtual_service_name: str | None = None
    virtual_router_name: str | None = None
    route_name: str | None = None
    gateway_route_name: str | None = None


_REQUEST: Final = msgspec.json.Decoder(_Request)
_REQUESTS: Final = msgspec.json.Decoder(list[_Request])


def read_fast(content: bytes) -> list[spec.Data] | None:
    """The resources of a JSON text of plain, valid requests; None for every other text.

    msgspec decodes and validates at once, but stops at the first error and lets a later duplicate of a key
    win. The text must therefore be as long, less its white space, as what was understood of it.
    """
    start = content.lstrip()[:1]
    try:
        if start == b"[":
            requests = _REQUESTS.decode(content)
        elif start == b"{":
            requests = [_REQUEST.decode(content)]
        else:
            return None
        found = [_fast(request) for request in requests]
        understood = len(msgspec.json.encode(found if start == b"[" else found[0]))
        if not found or understood != len(msgspec.json.format(content, indent=-1)):
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    printable = content.isascii() and b"\\" not in content and b"\x7f" not in content
    known: set[object] = set()
    return found if all(is_clean(data, printable=printable, known=known) for data in found) else None


def _fast(request: _Request) -> spec.Data:
    names = _names_of(request)
    found = _FAST.get(tuple([name is not None for name in names]))
    if found is None:
        raise msgspec.ValidationError("names that do not belong together")
    kind, attributes = found
    given = dict(zip(attributes, [name for name in names if name is not None], strict=True))
    # Names have bounds too, and constructors check none.
    owner = request.mesh_owner
    for name in (request.mesh_name, *given.values()):
        if not 1 <= len(name) <= _NAME_LENGTH and (name is not given.get("virtual_service_name") or not name):
            raise msgspec.ValidationError("a name out of bounds")
    if owner is not None and len(owner) != _OWNER_LENGTH:
        raise msgspec.ValidationError("a name out of bounds")
    body = _SPECS[kind].decode(request.spec)
    made: spec.Data = spec.BY_KIND[kind](mesh_name=request.mesh_name, mesh_owner=owner, spec=body, **given)
    return made


_NAME_LENGTH: Final = 255
_OWNER_LENGTH: Final = 12
#: Kind -> what names a resource of it, within its mesh.
_NAMED_BY: Final[dict[str, tuple[str, ...]]] = {
    "mesh": (),
    "virtualNode": ("virtual_node_name",),
    "virtualGateway": ("virtual_gateway_name",),
    "virtualService": ("virtual_service_name",),
    "virtualRouter": ("virtual_router_name",),
    "route": ("virtual_router_name", "route_name"),
    "gatewayRoute": ("virtual_gateway_name", "gateway_route_name"),
}
_NAME_ATTRIBUTES: Final = tuple(dict.fromkeys(name for named in _NAMED_BY.values() for name in named))
_names_of = attrgetter(*_NAME_ATTRIBUTES)
#: Which names are there -> the kind, and these names.
_FAST: Final = {
    tuple(name in named for name in _NAME_ATTRIBUTES): (kind, named) for kind, named in _NAMED_BY.items()
}
_SPECS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    kind: msgspec.json.Decoder(field.type)
    for kind, data in spec.BY_KIND.items()
    for field in msgspec.structs.fields(data)
    if field.name == "spec"
}
