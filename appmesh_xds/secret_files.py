"""Files beside a bootstrap: key material known as PEM, and secrets which Envoy reads from a file (SDS).

What such a secret names is read again when it is replaced. What is named by a secret in the bootstrap is read
once, and so is what a listener names itself (envoy-notes §0).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from typing import Any, Final

from . import proto, render
from .folders import file_name

_READABLE: Final = re.compile(r"[A-Za-z0-9._-]+")
#: Of a secret's name in the name of its file; a hash tells longer ones apart.
_NAME_MAX: Final = 120


class KeyFile:
    """A file that a bootstrap refers to: what `--out` writes beside it. The content never prints."""

    __slots__ = ("content", "name", "private")

    def __init__(self, name: str, content: bytes, *, private: bool) -> None:
        self.name = name
        self.content = content
        self.private = private

    def __repr__(self) -> str:
        return f"KeyFile(name={self.name!r}, content=[redacted], private={self.private})"


def names_files(secret: Any) -> bool:
    """Whether a secret is one of files on the proxy's disk."""
    if secret.HasField("tls_certificate"):
        return bool(secret.tls_certificate.private_key.filename)
    return bool(secret.validation_context.trusted_ca.filename)


def move_key(secret: Any, folder: str) -> tuple[KeyFile, KeyFile]:
    """Has the secret of a certificate name files in `folder` instead of holding it. Those files."""
    material, stem = secret.tls_certificate, file_name(secret.name)
    files = []
    for source, end in ((material.certificate_chain, ".crt"), (material.private_key, ".key")):
        files.append(KeyFile(stem + end, source.inline_bytes, private=end == ".key"))
        source.filename = f"{folder}/{stem}{end}"
    return files[0], files[1]


def secret_file(secret: proto.Secret) -> KeyFile:
    """A secret that names files, as a file for Envoy's SDS."""
    response = proto.DiscoveryResponse()
    response.resources.append(proto.pack(secret))
    return KeyFile(_file_name(secret.name), render.to_yaml(render.to_dict(response)).encode(), private=False)


def read_from_files(holder: Any, names: Collection[str], folder: str) -> None:
    """Has a cluster or a filter chain read the secrets of these names from their files in `folder`."""
    if not holder.HasField("transport_socket"):
        return
    context: Any = proto.unpack(holder.transport_socket.typed_config)
    for reference in _references(context.common_tls_context):
        if reference.name in names:
            source = reference.sds_config
            source.resource_api_version = 2
            source.path_config_source.path = f"{folder}/{_file_name(reference.name)}"
            # The folder may be a volume of Kubernetes, whose files never change: a link beside them does.
            source.path_config_source.watched_directory.path = folder
    holder.transport_socket.typed_config.CopyFrom(proto.pack(context))


def _references(common: Any) -> Iterator[Any]:
    yield from common.tls_certificate_sds_secret_configs
    kind = common.WhichOneof("validation_context_type")
    if kind == "validation_context_sds_secret_config":
        yield common.validation_context_sds_secret_config
    elif kind == "combined_validation_context":
        yield common.combined_validation_context.validation_context_sds_secret_config


def _file_name(secret: str) -> str:
    """`sds-certs-front.crt-certs-front.key-<hash>.yaml`: only what keys of a ConfigMap may hold."""
    words = [word.strip(".") for word in _READABLE.findall(secret)]
    readable = "-".join(word for word in words if word not in ("", "file"))[:_NAME_MAX]
    return f"sds-{readable}-{hashlib.blake2b(secret.encode(), digest_size=4).hexdigest()}.yaml"
