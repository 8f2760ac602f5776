"""`appmesh-xds dev-certs`"""

from __future__ import annotations

import argparse
from typing import Any

from ..certs import dev_certs
from .outcome import command


def add_parser(commands: Any) -> None:
    parser = command(
        commands,
        "dev-certs",
        "make an authority and certificates to try TLS with",
        "appmesh-xds dev-certs ./certs --name serviceBv1.mesh.local --name client.mesh.local",
        usage="appmesh-xds dev-certs DIR --name NAME... [OPTION]...",
    )
    parser.add_argument("directory", metavar="DIR", help="folder for ca.crt, ca.key, NAME.crt and NAME.key")
    parser.add_argument(
        "--name",
        metavar="NAME",
        action="append",
        required=True,
        help="DNS name, IP address or URI; repeat for several certificates",
    )
    parser.add_argument("--days", type=int, default=825, help="how long they are valid (825)")
    parser.add_argument("--force", action="store_true", help="replace certificates that are there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    made = dev_certs(arguments.directory, arguments.name, days=arguments.days, force=arguments.force)
    print(made.authority)
    for certificate in made.certificates:
        print(certificate.certificate)
        print(certificate.private_key)
    return 0
