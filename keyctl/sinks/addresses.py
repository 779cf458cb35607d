"""Tell what addresses and names a secret manager takes."""

import re
from typing import Final
from urllib.parse import urlsplit

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
# The name of an annotation has 63 characters behind its slash, and ends with a letter or a digit.
ENTRY: Final = re.compile(r"[-._a-zA-Z0-9]{0,52}[a-zA-Z0-9]")
LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

_HOST = re.compile(r"[^\s/:@?#%\\]+")


def is_private(url: str) -> bool:
    """Tell whether what is sent to *url* can be read by nobody else: https, or this machine."""
    import ipaddress  # noqa: PLC0415  # not before there is a secret manager

    try:
        parts = urlsplit(url)
        if parts.scheme == "https":
            return bool(parts.hostname)
        host = parts.hostname or ""
        return parts.scheme == "http" and (
            host == "localhost" or ipaddress.ip_address(host).is_loopback
        )
    except ValueError:
        return False


def is_whole(url: str) -> bool:
    """Tell whether a request can be made of *url*: a host, a port that is one, and no blanks."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    behind = url.partition("//")[2].removeprefix(parts.netloc)
    return (
        is_host(parts.hostname or "")
        and port != 0
        and behind.isascii()
        and not any(character.isspace() for character in url)
    )


def is_host(text: str) -> bool:
    """Tell whether *text* is the name of a host or its address, and nothing beside it."""
    import ipaddress  # noqa: PLC0415  # not before there is a secret manager

    try:
        ipaddress.ip_address(text)
    except ValueError:
        try:
            text.encode("idna")  # no label is empty or longer than 63
        except UnicodeError:
            return False
        return _HOST.fullmatch(text) is not None
    return True


def without_path(url: str) -> str:
    """Return what may be shown of *url*: whoever knows the rest may be all that a server asks for."""
    parts = urlsplit(url)
    more = parts.path.strip("/") or parts.query or parts.fragment
    return f"{parts.scheme}://{parts.netloc}/…" if more else url


def is_plain(url: str) -> bool:
    """Tell whether *url* is http: to this machine then, and not by way of a proxy of the environment."""
    return urlsplit(url).scheme == "http"
