"""Which access-log formats Envoy accepts: its command operators, and the forms each allows.

Found by handing every candidate to Envoy 1.40 (`--mode validate`): an operator it does not know, or a
form"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final, NamedTuple

from ._finding import Finding, error, warning


class _Form(NamedTuple):
    """How an operator may be written: `%NAME(parameter):length%`."""

    #: The whole parameter must match; None: there must be none.
    parameter: str | None
    required: bool = False
    length: bool = False
    #: How it is written, for hints.
    example: str = ""


# `?` separates a header from the one to fall back to; both may be empty. The characters are Envoy's.
_HEADER: Final = r"(:?[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?(\?(:?[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?)?"
_ANY: Final = r"(?s:.*)"
_SOME: Final = r"(?s:.+)"

_PLAIN: Final = _Form(None)
_TIME: Final = _Form(_ANY, example="(%Y-%m-%dT%H:%M:%S)")
_HEADER_FORM: Final = _Form(_HEADER, required=True, length=True, example="(X-HEADER?ALTERNATIVE):40")
_PATH_MODES: Final = r"(ORIG|PATH|ORIG_OR_PATH)?"
_SNI: Final = r"(SNI_ONLY|SNI_FIRST|HOST_FIRST)(:(ORIG|HOST|ORIG_OR_HOST))?"

#: Operators that take something. All others are in `_BARE`.
_FORMS: Final[dict[str, _Form]] = {
    "REQ": _HEADER_FORM,
    "REQUEST_HEADER": _HEADER_FORM,
    "RESP": _HEADER_FORM,
    "RESPONSE_HEADER": _HEADER_FORM,
    "TRAILER": _HEADER_FORM,
    "RESPONSE_TRAILER": _HEADER_FORM,
    "STREAM_INFO_REQ": _HEADER_FORM,
    "START_TIME": _TIME,
    "START_TIME_LOCAL": _TIME,
    "EMIT_TIME": _TIME,
    "EMIT_TIME_LOCAL": _TIME,
    "DOWNSTREAM_PEER_CERT_V_START": _TIME,
    "DOWNSTREAM_PEER_CERT_V_END": _TIME,
    "UPSTREAM_PEER_CERT_V_START": _TIME,
    "UPSTREAM_PEER_CERT_V_END": _TIME,
    # A mask; Envoy checks it only when it logs.
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT": _Form(_ANY),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": _Form(_ANY),
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": _Form(_ANY),
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": _Form(_ANY),
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": _Form(_ANY),
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": _Form(_ANY),
    "RESPONSE_CODE_DETAILS": _Form(_ANY, example="(ALLOW_WHITESPACES)"),
    "DYNAMIC_METADATA": _Form(_SOME, required=True, length=True, example="(namespace:key)"),
    "CLUSTER_METADATA": _Form(_SOME, required=True, example="(namespace:key)"),
    "UPSTREAM_METADATA": _Form(_SOME, required=True, example="(namespace:key)"),
    "METADATA": _Form(
        r"(CLUSTER|ROUTE|DYNAMIC|UPSTREAM_HOST|LISTENER|LISTENER_FILTER_CHAIN|VIRTUAL_HOST)(:.*)?",
        required=True,
        length=True,
        example="(ROUTE:namespace:key)",
    ),
    "FILTER_STATE": _Form(
        r"[^:]+(:(PLAIN|TYPED)?|:FIELD:[^:]+)?", required=True, length=True, example="(key:PLAIN)"
    ),
    "UPSTREAM_FILTER_STATE": _Form(
        r"[^:]+(:(PLAIN|TYPED)?|:FIELD:[^:]+)?", required=True, length=True, example="(key:PLAIN)"
    ),
    "ENVIRONMENT": _Form(_SOME, required=True, length=True, example="(NAME)"),
    "QUERY_PARAM": _Form(_SOME, required=True, length=True, example="(name)"),
    "QUERY_PARAMS": _Form(r"(ORIG|DECODED)?", length=True, example="(DECODED)"),
    "PATH": _Form(rf"((WQ|NQ)?(:{_PATH_MODES})?)?", length=True, example="(NQ:ORIG)"),
    "REQUESTED_SERVER_NAME": _Form(rf"({_SNI})?", example="(SNI_FIRST:ORIG)"),
    "COMMON_DURATION": _Form(
        r"[A-Z_]+:[A-Z_]+(:(ms|us|ns))?", required=True, example="(DS_RX_BEG:DS_RX_END:ms)"
    ),
    "CEL": _Form(_SOME, required=True, length=True, example="(request.path)"),
    "COALESCE": _Form(_SOME, required=True, length=True, example='({"operators": ["PROTOCOL"]})'),
}

#: Written `%NAME%` and in no other way.
_BARE: Final = frozenset(
    [
        "ACCESS_LOG_TYPE",
        "BYTES_RECEIVED",
        "BYTES_RETRANSMITTED",
        "BYTES_SENT",
        "CONNECTION_ID",
        "CONNECTION_TERMINATION_DETAILS",
        "CUSTOM_FLAGS",
        "DURATION",
        "FILTER_CHAIN_NAME",
        "GRPC_STATUS",
        "GRPC_STATUS_NUMBER",
        "HOSTNAME",
        "LISTENER_NAME",
        "LOCAL_REPLY_BODY",
        "PACKETS_RETRANSMITTED",
        "PROTOCOL",
        "REQUEST_DURATION",
        "REQUEST_HEADERS_BYTES",
        "REQUEST_TX_DURATION",
        "RESPONSE_CODE",
        "RESPONSE_DURATION",
        "RESPONSE_FLAGS",
        "RESPONSE_FLAGS_LONG",
        "RESPONSE_HEADERS_BYTES",
        "RESPONSE_TRAILERS_BYTES",
        "RESPONSE_TX_DURATION",
        "ROUNDTRIP_DURATION",
        "ROUTE_NAME",
        "ROUTE_RESOLUTION_COUNT",
        "ROUTE_RESOLUTION_TIME_US",
        "SPAN_ID",
        "STREAM_ID",
        "TLS_JA3_FINGERPRINT",
        "TLS_JA4_FINGERPRINT",
        "TRACE_ID",
        "UNIQUE_ID",
        "VIRTUAL_CLUSTER_NAME",
        "DOWNSTREAM_CX_RTT",
        "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
        "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
        "DOWNSTREAM_DETECTED_CLOSE_TYPE",
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID",
        "DOWNSTREAM_DIRECT_LOCAL_PORT",
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
        "DOWNSTREAM_DIRECT_REMOTE_PORT",
        "DOWNSTREAM_HANDSHAKE_DURATION",
        "DOWNSTREAM_HEADER_BYTES_RECEIVED",
        "DOWNSTREAM_HEADER_BYTES_SENT",
        "DOWNSTREAM_LOCAL_ADDRESS",
        "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
        "DOWNSTREAM_LOCAL_CLOSE_REASON",
        "DOWNSTREAM_LOCAL_DNS_SAN",
        "DOWNSTREAM_LOCAL_EMAIL_SAN",
        "DOWNSTREAM_LOCAL_IP_SAN",
        "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
        "DOWNSTREAM_LOCAL_PORT",
        "DOWNSTREAM_LOCAL_SUBJECT",
        "DOWNSTREAM_LOCAL_URI_SAN",
        "DOWNSTREAM_PEER_CERT",
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
        "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
        "DOWNSTREAM_PEER_CHAIN_SERIALS",
        "DOWNSTREAM_PEER_DNS_SAN",
        "DOWNSTREAM_PEER_EMAIL_SAN",
        "DOWNSTREAM_PEER_FINGERPRINT_1",
        "DOWNSTREAM_PEER_FINGERPRINT_256",
        "DOWNSTREAM_PEER_IP_SAN",
        "DOWNSTREAM_PEER_ISSUER",
        "DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256",
        "DOWNSTREAM_PEER_ISSUER_SERIAL",
        "DOWNSTREAM_PEER_OTHERNAME_SAN",
        "DOWNSTREAM_PEER_SERIAL",
        "DOWNSTREAM_PEER_SUBJECT",
        "DOWNSTREAM_PEER_URI_SAN",
        "DOWNSTREAM_REMOTE_ADDRESS",
        "DOWNSTREAM_REMOTE_PORT",
        "DOWNSTREAM_TLS_CIPHER",
        "DOWNSTREAM_TLS_GROUP",
        "DOWNSTREAM_TLS_SESSION_ID",
        "DOWNSTREAM_TLS_VERSION",
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
        "DOWNSTREAM_WIRE_BYTES_RECEIVED",
        "DOWNSTREAM_WIRE_BYTES_SENT",
        "UPSTREAM_CLUSTER",
        "UPSTREAM_CLUSTER_RAW",
        "UPSTREAM_CONNECTION_ID",
        "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
        "UPSTREAM_CONNECTION_POOL_READY_DURATION",
        "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
        "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
        "UPSTREAM_DETECTED_CLOSE_TYPE",
        "UPSTREAM_HEADER_BYTES_RECEIVED",
        "UPSTREAM_HEADER_BYTES_SENT",
        "UPSTREAM_HOST",
        "UPSTREAM_HOSTS_ATTEMPTED",
        "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
        "UPSTREAM_HOST_NAME",
        "UPSTREAM_HOST_NAMES_ATTEMPTED",
        "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
        "UPSTREAM_HOST_NAME_WITHOUT_PORT",
        "UPSTREAM_LOCAL_ADDRESS",
        "UPSTREAM_LOCAL_CLOSE_REASON",
        "UPSTREAM_LOCAL_DNS_SAN",
        "UPSTREAM_LOCAL_IP_SAN",
        "UPSTREAM_LOCAL_PORT",
        "UPSTREAM_LOCAL_URI_SAN",
        "UPSTREAM_PEER_CERT",
        "UPSTREAM_PEER_DNS_SAN",
        "UPSTREAM_PEER_IP_SAN",
        "UPSTREAM_PEER_ISSUER",
        "UPSTREAM_PEER_SUBJECT",
        "UPSTREAM_PEER_URI_SAN",
        "UPSTREAM_PROTOCOL",
        "UPSTREAM_REMOTE_ADDRESS",
        "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
        "UPSTREAM_REMOTE_PORT",
        "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        "UPSTREAM_SERVER_NAME",
        "UPSTREAM_TLS_CIPHER",
        "UPSTREAM_TLS_GROUP",
        "UPSTREAM_TLS_SESSION_ID",
        "UPSTREAM_TLS_VERSION",
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        "UPSTREAM_WIRE_BYTES_RECEIVED",
        "UPSTREAM_WIRE_BYTES_SENT",
    ]
)

OPERATORS: Final = frozenset(_FORMS) | _BARE

#: Known to Envoy 1.40 and not yet to 1.36.
RECENT: Final = frozenset(
    re.findall(
        r"\w+",
        """
        COALESCE DOWNSTREAM_CX_RTT DOWNSTREAM_DETECTED_CLOSE_TYPE
        DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID
        DOWNSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256 DOWNSTREAM_PEER_ISSUER_SERIAL
        DOWNSTREAM_TLS_GROUP LISTENER_NAME QUERY_PARAMS REQUEST_HEADER RESPONSE_HEADER RESPONSE_TRAILER
        ROUTE_RESOLUTION_COUNT ROUTE_RESOLUTION_TIME_US SPAN_ID UPSTREAM_CONNECTION_IDS_ATTEMPTED
        UPSTREAM_DETECTED_CLOSE_TYPE UPSTREAM_HOSTS_ATTEMPTED UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT
        UPSTREAM_HOST_NAMES_ATTEMPTED UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT UPSTREAM_LOCAL_CLOSE_REASON
        UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID UPSTREAM_SERVER_NAME UPSTREAM_TLS_GROUP
    """,
    )
)

#: As Envoy reads it: `%%`, or an operator whose parameter ends at the first `)` that can end it.
_TOKEN: Final = re.compile(r"%%|%([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]+))?%")
_UINT64_MAX: Final = 2**64 - 1


def format_findings(text: str, at: str) -> Iterator[Finding]:
    """What Envoy would refuse about a format string (reference §6.1)."""
    position = text.find("%")
    while position >= 0:
        token = _TOKEN.match(text, position)
        if token is None:
            yield error(
                at,
                f"the `%` at character {position + 1} begins no command operator",
                "an operator is `%NAME%`, `%NAME(parameter)%` or `%NAME(parameter):length%`, in capitals; "
                "a percent sign is `%%`",
            )
            return
        if token[1]:
            yield from _operator(token[1], token[2] or "", token[3], at)
        position = text.find("%", token.end())


def _operator(name: str, parameter: str, length: str | None, at: str) -> Iterator[Finding]:
    form = _FORMS.get(name, _PLAIN)
    example = f"write `%{name}{form.example}%`"
    if name not in OPERATORS:
        close = get_close_matches(name, sorted(OPERATORS), n=1)
        hint = f"did you mean `%{close[0]}%`?" if close else ""
        yield error(at, f"Envoy knows no command operator `%{name[:60]}%`", hint)
    elif form.parameter is None and (parameter or length):
        yield error(at, f"`%{name}%` takes no parameter and no length", f"write `%{name}%`")
    elif form.required and not parameter:
        yield error(at, f"`%{name}%` needs a parameter", example)
    elif form.parameter is not None and not re.fullmatch(form.parameter, parameter):
        yield error(at, f"Envoy refuses the parameter of `%{name}({parameter[:60]})%`", example)
    elif length and not form.length:
        yield error(at, f"`%{name}%` takes no length", f"leave out `:{length[:20]}`")
    elif length and (len(length) > 20 or int(length) > _UINT64_MAX):
        yield error(at, f"the length of `%{name}%` is out of range")
    else:
        yield from _doubtful(name, parameter, at)


def _doubtful(name: str, parameter: str, at: str) -> Iterator[Finding]:
    if name in ("CEL", "COALESCE"):
        # Envoy refuses the whole listener when the expression is wrong, and only it can tell.
        hint = "use other operators; App Mesh's Envoy had none of this name"
        yield error(at, f"the expression in `%{name}(…)%` cannot be checked", hint)
    # These took no parameter in 1.36.
    grown = name == "REQUESTED_SERVER_NAME" or name.endswith("_ADDRESS_WITHOUT_PORT")
    if name in RECENT or (grown and parameter):
        yield warning(at, f"Envoy 1.36 does not know `%{name}{'(…)' if parameter else ''}%`")
