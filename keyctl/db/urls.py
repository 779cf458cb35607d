"""Read the URL of a database, and say which one it is without its password."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from keyctl.errors import UsageError

ACCEPTED: Final = "give sqlite:////path/to/file.db or postgresql://user@host/database"
_TELLING: Final = 3  # what is shorter is found in every sentence
_SERVERS: Final = ("postgres", "postgresql", "postgresql+psycopg")
_HOST: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:\[\]]*))(?::(?P<port>[0-9]*))?"
)
_LOGIN: Final = re.compile(r"[^:/?#]*(:.*)?")
_SEARCH_PATH: Final = re.compile(r"-c\s*search_path\s*=\s*(\S+)")
# What Prisma, LiteLLM's database layer, understands in a URL and PostgreSQL's library does not.
_PRISMA: Final = (
    "connection_limit",
    "pgbouncer",
    "pool_timeout",
    "schema",
    "socket_timeout",
    "sslaccept",
    "statement_cache_size",
)
# PostgreSQL's own library connects to the first of several servers that answers, a standby too.
_SEVERAL: Final = {"target_session_attrs": "read-write"}


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where a database is.

    `url` is for SQLAlchemy.  `schema` is a list of PostgreSQL schemas in the form of `search_path`,
    None for the server's own.  `shown` is for people: without the password and the parameters.
    """

    url: URL
    schema: str | None
    shown: str

    @property
    def path(self) -> Path | None:
        """Return the SQLite file's path, None for a server."""
        return None if self.url.get_backend_name() != "sqlite" else Path(self.url.database or "")

    def hide(self, text: str) -> str:
        """Return *text* without anything of the URL that is not in `shown`."""
        for part in self._unsaid():
            if len(part) >= _TELLING:
                text = text.replace(part, "…")
        return text

    def check_parameters(self, known: set[str]) -> None:
        """Refuse parameters that the driver's library does not know; they are not repeated.

        Raises:
            UsageError: One is not *known*, or is there twice.
        """
        for name, value in self.url.query.items():
            if name not in known:
                near = get_close_matches(name, known, 1, 0.75)
                raise UsageError(
                    "the database URL has a parameter that PostgreSQL does not know",
                    hint=f"is {near[0]} meant?" if near else "leave out what stands after the ?",
                )
            if not isinstance(value, str):
                raise UsageError(
                    "the database URL gives a parameter twice", hint="give each parameter once"
                )

    def _unsaid(self) -> Iterator[str]:
        if self.url.password:
            yield str(self.url.password)
        for name, values in self.url.query.items():
            if name not in ("host", "port", "target_session_attrs"):
                yield from (values,) if isinstance(values, str) else values


def parse_url(given: str) -> DatabaseAddress:
    """Return the address of a database that keyctl can use; white space around it is ignored.

    Raises:
        UsageError: It is no URL, or of another kind of database.  No part of it is repeated: it
            may be the password's.
    """
    text = given.strip()
    if not text.isprintable():
        raise UsageError(
            "the database URL holds a line break or a control character", hint=ACCEPTED
        )
    if text[:1] in ("'", '"'):
        raise UsageError(
            "the database URL begins with a quotation mark", hint="give it without quotation marks"
        )
    scheme, found, rest = text.partition("://")
    if not found:
        raise UsageError("the database URL is not a URL", hint=ACCEPTED)
    if scheme in _SERVERS:
        return _server(rest)
    if scheme != "sqlite":
        raise UsageError(
            "the database URL is of a kind that keyctl does not work with", hint=ACCEPTED
        )
    return _sqlite(text)


def _sqlite(text: str) -> DatabaseAddress:
    url = _made(text)
    if url.host or not url.database or url.database == ":memory:" or url.query:
        raise UsageError("the database URL names no SQLite file", hint=ACCEPTED)
    if url.database.startswith("file:"):
        raise UsageError("the database URL names no SQLite file", hint=ACCEPTED)
    url = url.set(database=absolute(os.path.expanduser(url.database)))
    return DatabaseAddress(url, None, url.render_as_string())


def absolute(path: str) -> str:
    """Return *path* as an absolute one.

    Raises:
        UsageError: It begins in the current folder, and that was removed.
    """
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise UsageError(
            "the current folder was removed", hint="go to another one, or give an absolute path"
        ) from None


def _server(rest: str) -> DatabaseAddress:
    if rest.count("@") > 1:
        raise UsageError(
            "the database URL has a second @", hint="write an @ in the password as %40"
        )
    login, at, place = rest.rpartition("@")
    if not _LOGIN.fullmatch(login):  # the @ belongs to a parameter
        login, at, place = "", "", rest
    end = re.search(r"[/?#]", place)
    authority, behind = (place[: end.start()], place[end.start() :]) if end else (place, "")
    hosts = [_host(part) for part in authority.split(",")]
    url = _made(f"postgresql+psycopg://{login}{at}{behind}")
    url = _with_hosts(url, hosts)
    if isinstance(password := url.query.get("password"), str):
        # libpq takes it there too; at its place it is looked for and never shown.
        url = url.difference_update_query(["password"]).set(password=password)
    url, schema = _without_prisma(url)
    return DatabaseAddress(url, schema, _shown(url))


def _made(text: str) -> URL:
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        raise UsageError("the database URL is not a URL", hint=ACCEPTED) from None


def _host(text: str) -> tuple[str, str]:
    """Return a host, or the folder of a socket, and its port."""
    found = _HOST.fullmatch(text)
    port = found["port"] or "" if found else ""
    if found is None or (port and not 1 <= int(port) <= 65535):
        raise UsageError(
            "the database URL has a port that is no number from 1 to 65535",
            hint="write : / ? and @ in the password as %3A %2F %3F and %40",
        )
    return found["v6"] or unquote(found["name"]), port


def _with_hosts(url: URL, hosts: list[tuple[str, str]]) -> URL:
    named = any(host for host, _ in hosts)
    if len(hosts) == 1 and named and not hosts[0][0].startswith("/"):
        host, port = hosts[0]
        return url.set(host=host, port=int(port) if port else None)
    if named:
        url = url.update_query_dict({"host": ",".join(host for host, _ in hosts)})
    if any(port for _, port in hosts):
        url = url.update_query_dict({"port": ",".join(port for _, port in hosts)})
    if "," in _text(url.query.get("host")) and "target_session_attrs" not in url.query:
        url = url.update_query_dict(_SEVERAL)
    return url


def _without_prisma(url: URL) -> tuple[URL, str | None]:
    """Return the URL without what its library does not know, and the schemas that it names.

    They are set in each transaction and not as the connection begins, where a pooler refuses them.
    """
    schema = _quoted(_text(url.query.get("schema"))) or None
    if _text(url.query.get("sslaccept")) == "strict":
        # Prisma's word for: believe only a certificate that an authority has signed for this host.
        url = url.update_query_dict({"sslmode": "verify-full"})
    options = _text(url.query.get("options"))
    if (found := _SEARCH_PATH.search(options)) is not None:
        schema = ", ".join(_quoted(part.strip('"')) for part in found[1].split(","))
        left = (options[: found.start()] + options[found.end() :]).strip()
        url = url.difference_update_query(["options"])
        url = url.update_query_dict({"options": left}) if left else url
    return url.difference_update_query(_PRISMA), schema


def _text(value: str | tuple[str, ...] | None) -> str:
    return value if isinstance(value, str) else ""


def _quoted(name: str) -> str:
    if not name:
        return ""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _shown(url: URL) -> str:
    user = f"{quote(url.username)}@" if url.username else ""
    if url.host:
        hosts, ports = [url.host], [str(url.port or "")]
    else:
        hosts = _text(url.query.get("host")).split(",")
        ports = _text(url.query.get("port")).split(",")
    ports += [ports[-1] if len(ports) == 1 else ""] * (len(hosts) - len(ports))
    places = ",".join(
        (f"[{host}]" if ":" in host else quote(host, safe=""))
        + (f":{port}" if port.isdecimal() else "")
        for host, port in zip(hosts, ports, strict=False)
    )
    return f"postgresql://{user}{places}/{quote(url.database or '')}"
