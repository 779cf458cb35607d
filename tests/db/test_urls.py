"""A database URL is read as people write it, and no part of it is repeated that may be a secret."""

import pytest

from keyctl.db.database import Database
from keyctl.db.urls import parse_url
from keyctl.errors import DatabaseError, KeyctlError, UsageError


class TestAddresses:
    @pytest.mark.parametrize(
        ("given", "shown", "parameters", "schema"),
        [
            ("sqlite:////srv/k.db\n", "sqlite:////srv/k.db", {}, None),
            (" postgres://u:pw@h/db\r\n", "postgresql://u@h/db", {}, None),
            ("postgresql://u:a/b?c@h:5433/db", "postgresql://u@h:5433/db", {}, None),
            ("postgresql://u@[::1]:5432/db", "postgresql://u@[::1]:5432/db", {}, None),
            (
                "postgresql://%2Frun%2Fpg/db",
                "postgresql://%2Frun%2Fpg/db",
                {"host": "/run/pg"},
                None,
            ),
            (
                "postgresql://u@h1:5432,h2:5433/db",
                "postgresql://u@h1:5432,h2:5433/db",
                {"host": "h1,h2", "port": "5432,5433", "target_session_attrs": "read-write"},
                None,
            ),
            (
                "postgresql://u@h1,h2/db?target_session_attrs=any",
                "postgresql://u@h1,h2/db",
                {"host": "h1,h2", "target_session_attrs": "any"},
                None,
            ),
            (
                "postgresql://u@h/db?schema=keys&pgbouncer=true&connection_limit=5&sslaccept=strict",
                "postgresql://u@h/db",
                {"sslmode": "verify-full"},
                '"keys"',
            ),
            (
                "postgresql://u@h/db?options=-csearch_path%3Dkeys,public%20-cjit%3Doff",
                "postgresql://u@h/db",
                {"options": "-cjit=off"},
                '"keys", "public"',
            ),
        ],
    )
    def test_are_what_they_say(
        self, given: str, shown: str, parameters: dict[str, str], schema: str | None
    ) -> None:
        """White space goes; several servers, Prisma's parameters and a schema are understood."""
        address = parse_url(given)
        assert address.shown == shown
        assert dict(address.url.query) == parameters
        assert address.schema == schema


class TestMalformed:
    @pytest.mark.parametrize(
        "given",
        [
            "postgresql://u:CANARY@CANARY@h/db",
            "postgresql://u:CANARY@h/db?x=@CANARY",
            "postgresql://u:CANARY@h:CANARY/db",
            "postgresql://u:CANARY@h:0/db",
            "postgresql://u:CANARY@h:99999/db",
            "postgresql://u:CANARY/db",
            "postgresql://u:CANARY",
            "postgresql://u:CAN\nARY@h/db",
            "postgresql://u:CANARY@h\x00/db",
            "'postgresql://u:CANARY@h/db'",
            '"postgresql://u:CANARY@h/db"',
            "u:CANARY@h/db",
            "CANARY",
            "CANARY://u@h/db",
            "mysql://u:CANARY@h/db",
            "postgresql+psycopg2://u:CANARY@h/db",
            "postgresql://u:CANARY@h/db?CANARY=1",
            "postgresql://u:CANARY@h/db?autocommit=CANARY",
            "postgresql://u:CANARY@h/db?sslmode=CANARY&sslmode=CANARY",
            "postgresql://u:CANARY@h1,h2/db?port=1,2,3",
            "sqlite://CANARY/k.db",
            "sqlite:///k.db?mode=CANARY",
            "sqlite://",
            "",
        ],
    )
    def test_is_a_usage_error_that_repeats_nothing(self, given: str) -> None:
        with pytest.raises(UsageError) as caught:
            Database(given)
        assert "CANARY" not in f"{caught.value.message} {caught.value.hint}"

    @pytest.mark.parametrize(
        "name", ["sslmode", "sslpassword", "connect_timeout", "options", "gssencmode"]
    )
    def test_values_that_the_library_refuses_are_not_repeated(self, name: str) -> None:
        with pytest.raises(KeyctlError) as caught:
            Database(f"postgresql://u:CANARY@127.0.0.1:1/db?{name}=CANARY").revision()
        assert isinstance(caught.value, DatabaseError)
        assert "CANARY" not in f"{caught.value.message} {caught.value.hint}"

    def test_a_parameter_that_is_nearly_right_is_named(self) -> None:
        with pytest.raises(UsageError) as caught:
            Database("postgresql://h/db?sslmoed=require")
        assert caught.value.hint == "is sslmode meant?"
