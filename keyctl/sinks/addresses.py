"""Tell what addresses and names a secret manager takes."""

import re
from typing import Final
from urllib.parse import urlsplit

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"
# The name of an annotation has 63 characters behind its slash, and ends with a letter or a digit.
ENTRY: Final = re.compile(r"[-._a-zA-Z0-9]{0,52}[a-zA-Z0-9]")
LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


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


def is_plain(url: str) -> bool:
    """Tell whether *url* is http: to this machine then, and not by way of a proxy of the environment."""
    return urlsplit(url).scheme == "http"
