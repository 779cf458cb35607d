"""Events that a hook mails: what stands in them, to whom they go and when."""

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from harness import Cli
from receivers import MailServer, mail_server

MAIL = """
bcrypt_cost = 4
[smtp]
host = "localhost"
port = {port}
tls = "{tls}"
sender_email = "keys@example.com"
username = "keyctl"
password_file = "{home}/smtp-password"
timeout = "5s"
{fetch}
[hooks.ops]
type = "mail"
to = "ops@example.com"
events = ["key_deleted"]
"""


class TestMail:
    @pytest.fixture(name="mail", params=["starttls", "tls"])
    def _mail(
        self, request: pytest.FixtureRequest, cli: Cli, tmp_path: Path
    ) -> Iterator[MailServer]:
        """An SMTP server with TLS and a login, and the program configured for it."""
        with mail_server(tmp_path, tls=request.param) as server:
            (cli.home / "smtp-password").write_text("s3cret\n")
            configure_mail(cli, server, request.param)
            cli.environment["SSL_CERT_FILE"] = str(server.certificate)
            cli("user", "create", "alice", "--email", "alice@example.com", check=True)
            yield server

    def test_an_owner_is_invited_without_the_key(self, cli: Cli, mail: MailServer) -> None:
        """The mail names key, limits and how to fetch it; it goes over TLS and holds no key string."""
        asked = ("--user", "alice", "--alias", "ci", "--max-budget", "5", "--send-invite-email")

        key = cli.key(*asked)

        ((encrypted, letter),) = letters(mail)
        text = letter.get_content().replace("\r\n", "\n")
        assert encrypted
        assert (letter["to"], letter["from"]) == ("alice@example.com", "keys@example.com")
        assert letter["subject"] == "API key ci was made"
        assert letter.get_content_type() == "text/plain"
        assert "budget in USD:        5\n" in text
        assert "The key itself is never sent by mail." in text
        assert "if it is lost: keyctl rotate key_" in text
        assert key not in letter.as_string()
        assert key[-20:] not in letter.as_string()

    def test_without_the_wish_nobody_is_invited(self, cli: Cli, mail: MailServer) -> None:
        """Neither is an owner without an address."""
        cli("user", "create", "bob", check=True)
        cli.key("--user", "alice")
        cli.key("--user", "bob", "--send-invite-email")

        assert letters(mail) == []

    def test_a_rotation_tells_the_owner_how_to_fetch_the_new_secret(
        self, cli: Cli, mail: MailServer
    ) -> None:
        """`smtp.fetch` is a template, filled in with the key's own names."""
        configure_mail(cli, mail, None, fetch='fetch = "vault kv get llm/{alias}"')
        cli.key("--user", "alice", "--alias", "ci", "--send-invite-email")
        cli("rotate", "ci", check=True)

        subjects = [letter["subject"] for _, letter in letters(mail)]
        assert subjects == ["API key ci was made", "API key ci has a new secret"]
        assert all("vault kv get llm/ci" in letter.get_content() for _, letter in letters(mail))

    def test_a_rotation_tells_where_its_secret_went(self, cli: Cli, mail: MailServer) -> None:
        """Shown once, or delivered to a sink, which need not be the key's own."""
        sink = f'[sinks.files]\ntype = "file"\npath = "{cli.home}/{{alias}}.key"\n'
        cli.configure(cli.config.read_text() + sink)
        cli.key("--user", "alice", "--alias", "ci", "--send-invite-email")
        cli("rotate", "ci", "--deliver", "files", check=True)
        cli("rotate", "ci", check=True)

        _, delivered, shown = (letter.get_content() for _, letter in letters(mail))
        assert "It was delivered to files, where its users find it." in delivered
        assert "It was shown once, to local:" in shown

    def test_a_mail_hook_writes_to_its_address(self, cli: Cli, mail: MailServer) -> None:
        """It gets the events it asked for and no others; the Message-ID is the event's."""
        cli.key("--alias", "ci")
        cli("delete", "ci", check=True)

        ((_, letter),) = letters(mail)
        (row,) = cli("events", "list", "--delivered", "-o", "json").json["events"]
        assert (letter["to"], letter["subject"]) == ("ops@example.com", "API key ci was deleted")
        assert letter["message-id"] == f"<{row['event_id']}@example.com>"

    def test_a_server_that_refuses_is_a_row_to_retry(self, cli: Cli, mail: MailServer) -> None:
        """The key is made, the warning says which answer came, and a later delivery succeeds."""
        mail.refuses = True
        result = cli("generate", "--user", "alice", "--send-invite-email")
        assert result.exit_code == 0
        assert "warning: smtp: SMTP 451" in result.stderr

        mail.refuses = False
        cli("events", "retry", "--all", check=True)

        assert len(letters(mail)) == 1

    def test_a_server_that_nobody_vouches_for_gets_nothing(
        self, cli: Cli, mail: MailServer
    ) -> None:
        """Without trust in its certificate neither password nor mail is sent."""
        del cli.environment["SSL_CERT_FILE"]

        result = cli("generate", "--user", "alice", "--send-invite-email")

        assert result.exit_code == 0
        assert "the certificate is not trusted: " in result.stderr
        assert letters(mail) == []


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
class TestMailIsWhatPeopleTyped:
    def test_an_alias_cannot_write_a_header_or_a_paragraph(self, cli: Cli, tmp_path: Path) -> None:
        """What a person typed stays in one line."""
        with mail_server(tmp_path, tls="starttls") as mail:
            (cli.home / "smtp-password").write_text("s3cret\n")
            configure_mail(cli, mail, "starttls")
            cli.environment["SSL_CERT_FILE"] = str(mail.certificate)
            cli.key("--alias", "Bcc: eve@example.com, =?utf-8?q?x?=")
            cli("delete", "Bcc: eve@example.com, =?utf-8?q?x?=", check=True)

            ((_, letter),) = letters(mail)
            assert letter["bcc"] is None
            assert letter["to"] == "ops@example.com"
            assert mail.letters[0][1].rcpt_tos == ["ops@example.com"]

    def test_without_a_server_a_wish_for_mail_is_warned_about(self, cli: Cli) -> None:
        """The key is made, and the answer says that no mail goes out."""
        result = cli("generate", "--send-invite-email")

        assert result.exit_code == 0
        assert "warning: send_invite_email: the configuration has no [smtp]" in result.stderr


def configure_mail(cli: Cli, server: MailServer, tls: str | None, *, fetch: str = "") -> None:
    """Configure the SMTP server; *tls* None keeps what is configured."""
    if tls is None:
        tls = "starttls" if '"starttls"' in cli.config.read_text() else "tls"
    cli.configure(MAIL.format(port=server.port, tls=tls, home=cli.home, fetch=fetch))


def letters(server: MailServer) -> list[tuple[bool, EmailMessage]]:
    """Return the mails that came in, each with whether it came over TLS."""
    return [
        (encrypted, message_from_bytes(envelope.content, policy=policy.default))
        for encrypted, envelope in server.letters
    ]
