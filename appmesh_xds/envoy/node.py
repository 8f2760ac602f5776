"""Everything one virtual node's Envoy needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import names
from ..spec import VirtualNodeData
from .binding import (
    Socket,
    application_address,
    application_port,
    bind_address,
    ingress_ports,
    ip_preference,
    report_clashes,
)
from .egress import add_egress
from .ingress import Ingress, ingress
from .maker import Maker
from .output import Output
from .report import Report
from .sources import listener_arns, material_facts

if TYPE_CHECKING:
    from ..mesh import Mesh
    from ..options import Options


def virtual_node(
    node: VirtualNodeData, mesh: Mesh, options: Options, maker: Maker, report: Report, out: Output
) -> None:
    """Adds the resources of a virtual node's Envoy to `out`."""
    if not _ports_differ(node, options):
        report_clashes(_sockets(node, mesh, options), node.key, report)
    _report_unused_ports(node, options, report)
    listeners = node.spec.listeners or ()
    own = Ingress(
        mesh.name,
        node.name,
        listeners,
        node.spec.logging,
        ip_preference(mesh.data, node.spec.service_discovery),
    )
    facts = material_facts(mesh, listener_arns(listeners))
    out.part(maker.part(ingress, own, facts, options), report)
    add_egress(node, mesh, options, maker, report, out)


def _ports_differ(node: VirtualNodeData, options: Options) -> bool:
    """Whether nothing can clash: a quick look at what nearly every node has, behind iptables."""
    if options.interception != "redirect" or options.app_ports or options.app_port is not None:
        return False
    ports = [spec.port_mapping.port for spec in node.spec.listeners or ()]
    ports += (options.ingress_port or names.INGRESS_PORT, options.egress_port, options.admin_port)
    return len(set(ports)) == len(ports)


def _sockets(node: VirtualNodeData, mesh: Mesh, options: Options) -> list[Socket]:
    """What Envoy and the application of this node would bind."""
    preference = ip_preference(mesh.data, node.spec.service_discovery)
    host = bind_address(options, preference)
    specs = list(enumerate(node.spec.listeners or ()))
    application = application_address(options, preference)
    sockets = [
        Socket(
            f"the application behind listener {spec.port_mapping.port}",
            application,
            application_port(options, spec.port_mapping.port),
            f"$.spec.listeners[{index}].portMapping.port",
            "--app-port",
        )
        for index, spec in specs
    ]
    # Several listeners may lead to one application.
    sockets = list({(socket.host, socket.port): socket for socket in sockets}.values())
    if options.interception == "redirect":
        if specs:
            port = options.ingress_port or names.INGRESS_PORT
            sockets.append(Socket("the ingress listener", host, port, flag="--ingress-port"))
    else:
        bound = ingress_ports(options, [spec.port_mapping.port for _, spec in specs])
        for index, spec in specs:
            port = spec.port_mapping.port
            path = f"$.spec.listeners[{index}].portMapping.port"
            sockets.append(Socket(f"listener {port}", host, bound[port], path, "--ingress-port"))
        sockets.extend(
            Socket(f"the egress listener of TCP port {service}", host, port, flag="--tcp-egress")
            for service, port in options.tcp_egress
        )
    sockets.append(Socket("the egress listener", host, options.egress_port, flag="--egress-port"))
    sockets.append(
        Socket("the admin endpoint", options.admin_address, options.admin_port, flag="--admin-port")
    )
    return sockets


def _report_unused_ports(node: VirtualNodeData, options: Options, report: Report) -> None:
    """Ports given for listeners that the node does not have."""
    listeners = {spec.port_mapping.port for spec in node.spec.listeners or ()}
    for flag, given in (("--ingress-port", options.ingress_ports), ("--app-port", options.app_ports)):
        for port, _ in given:
            if port not in listeners:
                known = ", ".join(map(str, sorted(listeners))) or "none"
                report.warning(
                    node.key,
                    "$.spec.listeners",
                    f"{flag} names listener {port}, which the node does not have",
                    f"its listeners: {known}",
                )
