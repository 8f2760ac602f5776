"""What a client said, made fit to print.

Envoy puts whole messages into the text of a NACK, private keys included, and into any other text a client
may put what it likes.
"""

from __future__ import annotations

import re
from typing import Final

#: The longest text, in bytes.
LIMIT: Final = 1024

#: Where the summary ends and a dump of the message begins (envoy-notes §0.2). protobuf marks its dumps.
_DUMP: Final = re.compile(r"[\r\n]|goo\.gle/debug")
#: PEM on one line (with `\\n` for its line ends), up to its end or, when that was lost, up to the text's; and
#: the same in base64, which is how JSON shows bytes.
_KEY_MATERIAL: Final = re.compile(
    r"-----BEGIN [^-]*-----(?:.*?-----END [^-]*-----|.*)|LS0tLS1CRUdJTi[A-Za-z0-9+/=_-]*", re.DOTALL
)


def redact(text: str) -> str:
    """The first line without key material, in printable ASCII, of at most 1,024 bytes."""
    # Longer than what is kept, because escapes and masks change the length; no client makes us read 4 MiB.
    line = _DUMP.split(text[: 64 * LIMIT], maxsplit=1)[0]
    return printable(mask(line))


def mask(text: str) -> str:
    """The text with `[redacted]` for whatever is key material."""
    return _KEY_MATERIAL.sub("[redacted]", text)


def printable(text: str) -> str:
    """In printable ASCII, everything else escaped, of at most 1,024 bytes."""
    escaped = "".join(c if " " <= c <= "~" else _escape(c) for c in text[:LIMIT])
    return escaped if len(escaped) <= LIMIT and len(text) <= LIMIT else escaped[: LIMIT - 3] + "..."


def _escape(character: str) -> str:
    return ascii(character)[1:-1]
