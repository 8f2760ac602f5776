"""Kubernetes: `appmesh.k8s.aws/v1beta2` as the App Mesh controller read it.

The controller turned objects into API calls. The same is done here: names (`awsName`, or made of name and
namespace), references, mesh membership by namespace labels, the gateway of a gateway route by selectors,
backend groups. `status`, `managedFields` and annotations say nothing to a proxy; unknown fields of a spec are
warnings, because the controller ignored them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from .. import spec
from ..errors import Problem, Severity
from ..spec.checks import check
from ..spec.convert import convert
from .found import Context, Found
from .text import Document

_GROUP: Final = "appmesh.k8s.aws/"
_VERSION: Final = _GROUP + "v1beta2"
_DEFAULT_NAMESPACE: Final = "default"

#: Object kind -> kind of the resource it becomes.
_KINDS: Final = {
    "Mesh": "mesh",
    "VirtualNode": "virtualNode",
    "VirtualGateway": "virtualGateway",
    "VirtualService": "virtualService",
    "VirtualRouter": "virtualRouter",
    "GatewayRoute": "gatewayRoute",
    "BackendGroup": "",
}
#: Members of a spec that only the controller reads.
_CONTROLLER_ONLY: Final = frozenset(
    {
        "awsName",
        "backendGroups",
        "gatewayRouteSelector",
        "meshOwner",
        "meshRef",
        "namespaceSelector",
        "podSelector",
        "routes",
        "virtualGatewayRef",
    }
)
#: Spelling of the CRD -> of the API. The rest is spelt alike.
_RENAMED: Final = {
    "certificateARN": "certificateArn",
    "certificateAuthorityARNs": "certificateAuthorityArns",
    "meshServiceDiscovery": "serviceDiscovery",
}
#: Member that refers -> (kind of the target, member of the API that names it).
_REFERENCES: Final = {
    "virtualServiceRef": ("VirtualService", "virtualServiceName"),
    "virtualServiceARN": ("VirtualService", "virtualServiceName"),
    "virtualRouterRef": ("VirtualRouter", "virtualRouterName"),
    "virtualRouterARN": ("VirtualRouter", "virtualRouterName"),
    "virtualNodeRef": ("VirtualNode", "virtualNodeName"),
    "virtualNodeARN": ("VirtualNode", "virtualNodeName"),
}
_ARN: Final = re.compile(r"mesh/[^/]+/[^/]+/([^/]+)\Z")


def recognise(value: Any) -> bool:
    """Whether a document is an App Mesh object, a Namespace (for its labels), or a List with either."""
    if not isinstance(value, dict):
        return False
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        return any(recognise(item) for item in value["items"])
    version = value.get("apiVersion")
    if value.get("kind") == "Namespace" and version == "v1":
        return True
    return isinstance(version, str) and version.startswith(_GROUP)


class _Object(NamedTuple):
    """One Kubernetes object and where it stands."""

    kind: str
    name: str
    namespace: str
    labels: Mapping[str, Any]
    spec: dict[str, Any]
    document: Document
    path: str

    def problem(self, path: str, message: str, hint: str = "", severity: Severity = "error") -> Problem:
        mark = self.document.locate(self.path + path)
        line, column = mark or (0, 0)
        return Problem(
            file=self.document.file,
            line=line,
            column=column,
            resource=f"{self.kind}/{self.namespace}/{self.name}"
            if self.namespace
            else f"{self.kind}/{self.name}",
            path="$" + path,
            message=message,
            hint=hint,
            severity=severity,
        )


def read(documents: Sequence[Document], context: Context) -> Iterator[Found | Problem]:
    """The resources of all manifests together, and what is wrong with them."""
    objects: list[_Object] = []
    namespaces: dict[str, Mapping[str, Any]] = {}
    for document in documents:
        for value, path in _flatten(document.value, "$"):
            if value.get("kind") == "Namespace":
                metadata = _mapping(value.get("metadata"))
                namespaces[str(metadata.get("name"))] = _mapping(metadata.get("labels"))
                continue
            made = _object(value, document, path)
            if isinstance(made, Problem):
                yield made
            elif made is not None:
                objects.append(made)
    yield from _Cluster(objects, namespaces, context).read()


def _flatten(value: Any, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    if not isinstance(value, dict):
        return
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        for index, item in enumerate(value["items"]):
            yield from _flatten(item, f"{path}.items[{index}]")
    elif recognise(value):
        yield value, path


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _object(value: dict[str, Any], document: Document, path: str) -> _Object | Problem | None:
    metadata = _mapping(value.get("metadata"))
    kind, name = value.get("kind"), metadata.get("name")
    made = _Object(
        str(kind),
        str(name),
        "" if kind == "Mesh" else str(metadata.get("namespace") or _DEFAULT_NAMESPACE),
        _mapping(metadata.get("labels")),
        _mapping(value.get("spec")),
        document,
        path,
    )
    if value.get("apiVersion") != _VERSION:
        return made.problem(
            ".apiVersion",
            f"{value.get('apiVersion')} is not read",
            f"only {_VERSION} is; the controller's own migration guide tells how to get there",
        )
    if not isinstance(kind, str) or kind not in _KINDS:
        return made.problem(".kind", f"unknown kind {kind!r}", f"one of {', '.join(_KINDS)}")
    if not isinstance(name, str) or not name:
        return made.problem(".metadata.name", "is missing")
    if value.get("spec") is not None and not isinstance(value["spec"], dict):
        return made.problem(".spec", "expected a mapping")
    return made


class _Cluster:
    """All objects of one reading, by kind and name."""

    def __init__(
        self, objects: Sequence[_Object], namespaces: Mapping[str, Mapping[str, Any]], context: Context
    ) -> None:
        self.context = context
        self.namespaces = namespaces
        self.objects = objects
        self.by_name = {(one.kind, one.namespace, one.name): one for one in objects}
        self.meshes = [one for one in objects if one.kind == "Mesh"]
        self.gateways = [one for one in objects if one.kind == "VirtualGateway"]
        self.problems: list[Problem] = []

    def read(self) -> Iterator[Found | Problem]:
        seen: list[tuple[str, dict[str, Any]]] = []
        for one in self.objects:
            if one.kind == "BackendGroup":
                continue
            if one.kind == "Mesh":
                # Manifests of several clusters each hold the mesh that they share.
                same = (self._own(one), one.spec)
                if same in seen:
                    continue
                seen.append(same)
            mesh = self._mesh_name(one)
            found = list(self._resources(one, mesh)) if mesh is not None else []
            yield from self.problems
            self.problems.clear()
            yield from found

    # --- names --------------------------------------------------------------------------------------

    def aws_name(self, kind: str, namespace: str, name: str) -> str:
        """`awsName`, or what the controller's webhook made of name and namespace."""
        one = self.by_name.get((kind, namespace, name))
        given = one.spec.get("awsName") if one is not None else None
        if isinstance(given, str) and given:
            return given
        if kind == "Mesh":
            return name
        return f"{name}.{namespace}" if kind == "VirtualService" else f"{name}_{namespace}"

    def _mesh_name(self, one: _Object) -> str | None:
        if one.kind == "Mesh":
            return self.aws_name("Mesh", "", one.name)
        reference = _mapping(one.spec.get("meshRef")).get("name")
        if isinstance(reference, str):
            return self.aws_name("Mesh", "", reference)
        matching = {self._own(mesh) for mesh in self.meshes if self._selects(mesh, one.namespace)}
        if len(matching) > 1 and self.context.mesh in matching:
            return self.context.mesh
        if len(matching) == 1:
            return matching.pop()
        if matching:
            names = ", ".join(sorted(matching))
            self._report(
                one,
                ".metadata.namespace",
                f"namespace {one.namespace!r} is selected by {len(matching)} meshes: {names}",
                "pick one: --mesh NAME",
            )
            return None
        return self._without_selector(one)

    def _without_selector(self, one: _Object) -> str | None:
        """The mesh of an object that no mesh selects, as far as the manifests tell."""
        path = ".metadata.namespace"
        if one.namespace not in self.namespaces and len(self.meshes) == 1:
            mesh = self._own(self.meshes[0])
            self._report(
                one,
                path,
                f"there is no Namespace {one.namespace!r} to tell the mesh by its labels: {mesh} is taken",
                "add the Namespace with its labels",
                "warning",
            )
            return mesh
        if not self.meshes and self.context.mesh is not None:
            return self.context.mesh
        if not self.meshes:
            self._report(one, path, "there is no Mesh among the manifests", "add it, or name it: --mesh NAME")
        else:
            self._report(
                one,
                path,
                f"no mesh selects namespace {one.namespace!r}",
                "label the Namespace as a Mesh's namespaceSelector demands",
            )
        return None

    def _own(self, mesh: _Object) -> str:
        return self.aws_name("Mesh", "", mesh.name)

    def _selects(self, selecting: _Object, namespace: str) -> bool:
        """Whether `namespaceSelector` takes a namespace. None selects nothing, an empty one everything."""
        selector = selecting.spec.get("namespaceSelector")
        if not isinstance(selector, dict):
            return False
        if not selector:
            return True
        labels = self.namespaces.get(namespace)
        return labels is not None and matches(selector, labels)

    def _report(
        self, one: _Object, path: str, message: str, hint: str = "", severity: Severity = "error"
    ) -> None:
        self.problems.append(one.problem(path, message, hint, severity))

    # --- resources ----------------------------------------------------------------------------------

    def _resources(self, one: _Object, mesh: str) -> Iterator[Found | Problem]:
        names = {"meshName": mesh}
        kind = _KINDS[one.kind]
        own = self.aws_name(one.kind, one.namespace, one.name)
        if kind == "gatewayRoute":
            gateway = self._gateway_of(one)
            if gateway is None:
                return
            names["virtualGatewayName"] = gateway
        if kind != "mesh":
            names[f"{kind}Name"] = own
        owner = one.spec.get("meshOwner")
        if kind == "mesh" and isinstance(owner, str) and owner:
            names["meshOwner"] = owner
        body = {key: item for key, item in one.spec.items() if key not in _CONTROLLER_ONLY}
        body = self._to_api(body, one)
        if kind == "virtualNode":
            self._add_groups(body, one)
        yield from self._found(kind, names, body, one, ".spec")
        if kind == "virtualRouter":
            yield from self._routes(one, mesh, own)

    def _routes(self, one: _Object, mesh: str, router: str) -> Iterator[Found | Problem]:
        routes = one.spec.get("routes")
        for index, route in enumerate(routes if isinstance(routes, list) else []):
            path = f".spec.routes[{index}]"
            name = _mapping(route).get("name")
            if not isinstance(name, str) or not name:
                yield one.problem(path, "a route needs a name")
                continue
            body = self._to_api({key: item for key, item in route.items() if key != "name"}, one)
            names = {"meshName": mesh, "virtualRouterName": router, "routeName": name}
            yield from self._found("route", names, body, one, path)

    def _found(
        self, kind: str, names: Mapping[str, str], body: dict[str, Any], one: _Object, path: str
    ) -> Iterator[Found | Problem]:
        converted = convert(
            {**names, "spec": body}, spec.BY_KIND[kind], strict=self.context.strict, unknown="warning"
        )
        found = Found(converted.value, one.document, one.path + path, one.path, translate=_to_manifest)
        key = converted.value.key if converted.value is not None else f"{kind}/{names.get(f'{kind}Name', '')}"
        problems = [msgspec.structs.replace(p, resource=key) for p in converted.problems]
        if converted.value is not None:
            problems.extend(check(converted.value))
        for problem in problems:
            yield found.locate(problem)
        if converted.value is not None and not any(p.severity == "error" for p in problems):
            yield found

    def _to_api(self, value: Any, one: _Object) -> Any:
        """A part of a spec in the API's spelling: names for references, no empty lists."""
        if isinstance(value, list):
            return [self._to_api(item, one) for item in value]
        if not isinstance(value, dict):
            return value
        result: dict[str, Any] = {}
        weighted = "weight" in value
        for key, item in value.items():
            if key in _REFERENCES:
                kind, member = _REFERENCES[key]
                name = self._target(kind, key, item, one)
                # A weighted target names its node by `virtualNode`; an ARN wins over a reference.
                member = "virtualNode" if weighted and kind == "VirtualNode" else member
                if name is not None and (key.endswith("ARN") or member not in result):
                    result[member] = name
            elif item != []:
                result[_RENAMED.get(str(key), str(key))] = self._to_api(item, one)
        return result

    def _target(self, kind: str, key: str, value: Any, one: _Object) -> str | None:
        if key.endswith("ARN"):
            found = _ARN.search(str(value))
            if found is None:
                self._report(one, ".spec", f"{key} {value!r} is not an App Mesh ARN")
            return None if found is None else found[1]
        name = _mapping(value).get("name")
        if not isinstance(name, str):
            self._report(one, ".spec", f"{key} needs a name", f"{key}: {{name: NAME}}")
            return None
        return self.aws_name(kind, str(_mapping(value).get("namespace") or one.namespace), name)

    # --- backend groups -----------------------------------------------------------------------------

    def _add_groups(self, body: dict[str, Any], one: _Object) -> None:
        """Appends the services of a node's backend groups that it does not list itself."""
        groups = one.spec.get("backendGroups")
        if not isinstance(groups, list) or not groups:
            return
        backends = body.setdefault("backends", [])
        if not isinstance(backends, list):
            return  # which is a problem of its own
        listed = {
            str(_mapping(_mapping(backend).get("virtualService")).get("virtualServiceName"))
            for backend in backends
        }
        added: set[str] = set()
        for index, group in enumerate(groups):
            added.update(self._group(_mapping(group), one, f".spec.backendGroups[{index}]"))
        backends.extend({"virtualService": {"virtualServiceName": name}} for name in sorted(added - listed))
        if not backends:
            del body["backends"]

    def _group(self, group: Mapping[str, Any], one: _Object, path: str) -> Iterable[str]:
        name, namespace = group.get("name"), str(group.get("namespace") or one.namespace)
        if name == "*":
            return [
                self.aws_name("VirtualService", service.namespace, service.name)
                for service in self.objects
                if service.kind == "VirtualService" and service.namespace == namespace
            ]
        found = self.by_name.get(("BackendGroup", namespace, str(name)))
        if found is None:
            self._report(
                one, path, f"there is no BackendGroup {name!r} in namespace {namespace!r}", "", "warning"
            )
            return []
        services = found.spec.get("virtualservices")
        return [
            self.aws_name("VirtualService", str(entry.get("namespace") or namespace), str(entry.get("name")))
            for entry in map(_mapping, services if isinstance(services, list) else [])
        ]

    # --- gateways -----------------------------------------------------------------------------------

    def _gateway_of(self, route: _Object) -> str | None:
        """The gateway whose selectors take a gateway route; None, reported, when it is not exactly one."""
        reference = _mapping(route.spec.get("virtualGatewayRef"))
        if isinstance(reference.get("name"), str):
            namespace = str(reference.get("namespace") or route.namespace)
            return self.aws_name("VirtualGateway", namespace, reference["name"])
        taking = [one for one in self.gateways if self._takes(one, route)]
        if len(taking) == 1:
            return self.aws_name("VirtualGateway", taking[0].namespace, taking[0].name)
        if taking:
            names = ", ".join(sorted(one.name for one in taking))
            self._report(route, ".metadata", f"{len(taking)} virtual gateways take this route: {names}")
        else:
            self._report(
                route,
                ".metadata",
                "no virtual gateway takes this route; it is left out",
                "a gateway takes routes by its namespaceSelector and gatewayRouteSelector",
                "warning",
            )
        return None

    def _takes(self, gateway: _Object, route: _Object) -> bool:
        of_route = gateway.spec.get("gatewayRouteSelector")
        if isinstance(of_route, dict) and not matches(of_route, route.labels):
            return False
        if self._selects(gateway, route.namespace):
            return True
        # Without the Namespace its labels are unknown; a lone gateway is what was meant.
        return route.namespace not in self.namespaces and len(self.gateways) == 1


def matches(selector: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """Whether labels satisfy a Kubernetes label selector (matchLabels and matchExpressions)."""
    wanted = _mapping(selector.get("matchLabels"))
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    expressions = selector.get("matchExpressions")
    return all(
        _expression(_mapping(one), labels) for one in (expressions if isinstance(expressions, list) else [])
    )


def _expression(expression: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    key, operator = str(expression.get("key")), expression.get("operator")
    values = expression.get("values")
    among = labels.get(key) in (values if isinstance(values, list) else [])
    return {
        "In": key in labels and among,
        "NotIn": not among,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }.get(str(operator), False)


#: Where names stand in a manifest, for positions: the member of the API -> of the CRD.
_PLACES: Final = (
    (".certificateArn", ".certificateARN"),
    (".certificateAuthorityArns", ".certificateAuthorityARNs"),
    (".virtualServiceName", ".virtualServiceRef"),
    (".virtualNodeName", ".virtualNodeRef"),
    (".virtualRouterName", ".virtualRouterRef"),
)


def _to_manifest(path: str) -> str:
    """An API path below `$.spec` as the manifest spells it."""
    for api, crd in _PLACES:
        path = path.replace(api, crd)
    return path
