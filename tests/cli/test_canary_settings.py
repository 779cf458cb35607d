"""No part of a password, a token or a URL's parameters is in any message, however it is mistyped."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from inside import Inside
from receivers import MailServer, mail_server

pytestmark = pytest.mark.sqlite_mostly

CANARY = "Kanarie4711"
URLS = [
    "postgresql://u:{}@127.0.0.1:1/db",
    "postgresql://u:{}@127.0.0.1:1/db?sslmode={}",
    "postgresql://u:{}@127.0.0.1:1/db?sslpassword={}&sslmode=require",
    "postgresql://u:{}@127.0.0.1:1/db?passwrod={}",
    "postgresql://u:{}@h@127.0.0.1/db",
    "postgresql://u:{}@127.0.0.1:port{}/db",
    "postgresql://u:x@y:{}/db",
    "postgresql://u:a#{}@127.0.0.1:1/db",
    "postgresql://u:{}/db",
    "postgresql://u:x\n{}@127.0.0.1/db",
    '"postgresql://u:{}@127.0.0.1/db"',
    "postgresql:/u:{}@127.0.0.1/db",
    "postgres:{}@127.0.0.1",
    "mysql://u:{}@127.0.0.1/db",
    "{}://u@127.0.0.1/db",
    "u:{}@127.0.0.1/db",
    "sqlite:///k.db?key={}",
    "sqlite://{}/k.db",
    "{}",
]
COMMANDS = {
    "KEYCTL_DATABASE_URL": ("list",),
    "KEYCTL_SOURCE_URL": ("import", "litellm"),
    "KEYCTL_TARGET_URL": ("db", "copy"),
}


def said(inside: Inside, *arguments: str, **environment: str) -> str:
    """Return everything that a command line prints; it must fail."""
    done = inside(*arguments, environment=environment)
    assert done.exit_code not in (0, 1), (arguments, done)
    return done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["sqlite"])
class TestUrls:
    @pytest.mark.parametrize("variable", sorted(COMMANDS))
    @pytest.mark.parametrize("shape", URLS)
    def test_are_never_repeated(self, inside: Inside, variable: str, shape: str) -> None:
        """Given in the environment, for each database that a command may be told of."""
        value = shape.replace("{}", CANARY)
        assert CANARY not in said(inside, *COMMANDS[variable], **{variable: value})

    @pytest.mark.parametrize("variable", sorted(COMMANDS))
    def test_put_where_a_file_is_named_are_not_repeated(
        self, inside: Inside, variable: str
    ) -> None:
        """The URL itself in ``…_FILE``, which many deployments get wrong at first."""
        environment = {f"{variable}_FILE": f"postgresql://u:{CANARY}@h/db"}
        if variable == "KEYCTL_DATABASE_URL":
            environment["KEYCTL_DATABASE_URL"] = ""
        assert CANARY not in said(inside, *COMMANDS[variable], **environment)

    @pytest.mark.parametrize("variable", sorted(COMMANDS))
    def test_that_are_wrong_are_told_where_they_stand(
        self, inside: Inside, variable: str, tmp_path: Path
    ) -> None:
        """In the variable, in the file that another one names, or in an option: there may be two databases."""
        file = tmp_path / "url"
        file.write_text(CANARY)
        option = "--" + variable.removeprefix("KEYCTL_").lower().replace("_", "-")
        command = COMMANDS[variable]
        told = {
            variable: said(inside, *command, **{variable: CANARY}),
            option: said(inside, *command, option, CANARY),
        }
        if variable != "KEYCTL_DATABASE_URL":  # which every test sets, and which comes first
            name = f"{variable}_FILE"
            told[name] = said(inside, *command, **{name: str(file)})
        for name, text in told.items():
            assert f"error: {name}: the database URL is not a URL" in text

    def test_put_into_other_variables_are_not_repeated(self, inside: Inside) -> None:
        url = f"postgresql://u:{CANARY}@h/db"
        for variable in ("KEYCTL_CONFIG", "KEYCTL_API_KEY"):
            assert CANARY not in said(inside, "list", **{variable: url})
        assert CANARY not in said(inside, "list", "--caller-key-file", url)
        assert CANARY not in said(inside, "list", "--database-url", url)


@pytest.mark.parametrize("kind", ["sqlite"])
class TestConfiguredFiles:
    @pytest.mark.parametrize(
        "setting",
        [
            'type = "vault"\nurl = "http://127.0.0.1:1"\npath = "{alias}"\ntoken_file = "CANARY"',
            'type = "vault"\nurl = "http://u:CANARY@127.0.0.1:1"\npath = "{alias}"',
            'type = "vault"\nurl = "http://127.0.0.1:1"\npath = "{alias}"\nrole_id = "r"\nsecret_id_file = "CANARY"',
            'type = "vault"\nurl = "http://127.0.0.1:1"\npath = "{alias}"\ntoken = "CANARY"',
        ],
    )
    def test_that_hold_the_secret_itself_do_not_show_it(
        self, inside: Inside, setting: str, tmp_path: Path
    ) -> None:
        """A token in the place of the file that should hold it."""
        pytest.importorskip("hvac")
        config = tmp_path / "c.toml"
        config.write_text(f"bcrypt_cost = 4\n[sinks.v]\n{setting.replace('CANARY', CANARY)}\n")
        config.chmod(0o600)
        for form in ("table", "json"):
            text = said(
                inside, "generate", "--alias", "a", "--deliver", "v", "-o", form,
                KEYCTL_CONFIG=str(config),
            )  # fmt: skip
            assert CANARY not in text
            assert form != "json" or json.loads(text.strip().splitlines()[-1])["error"]["message"]


def configured(tmp_path: Path, text: str, *, content: str = "CANARY") -> dict[str, str]:
    """Return the environment with a configuration in which CANARY and FILE stand for themselves."""
    file = tmp_path / "secret"
    file.write_bytes(content.replace("CANARY", CANARY).encode("utf-8", "surrogateescape"))
    config = tmp_path / "c.toml"
    config.write_text(
        f"bcrypt_cost = 4\n{text}\n".replace("CANARY", CANARY).replace("FILE", str(file))
    )
    config.chmod(0o600)
    return {"KEYCTL_CONFIG": str(config)}


def delivered(inside: Inside, environment: dict[str, str]) -> str:
    """Return what is said where an event cannot be sent: the configuration is refused, or the event waits."""
    done = inside("generate", "--alias", "a", "-o", "json", environment=environment)
    text = done.stdout + done.stderr
    if done.exit_code == 2:
        return text
    listed = inside("events", "list", "-o", "json", environment=environment, check=True)
    retried = inside("events", "retry", "--all", environment=environment)
    assert (done.exit_code, retried.exit_code) == (0, 9), (done, retried)
    assert json.loads(listed.stdout)["events"][0]["last_error"]
    return text + listed.stdout + retried.stdout + retried.stderr


WEBHOOK = '[hooks.h]\ntype = "webhook"\ntimeout = "2s"\n'
MAIL = """
[hooks.h]
type = "mail"
to = "ops@example.com"
[smtp]
host = "localhost"
port = PORT
sender_email = "k@example.com"
timeout = "5s"
"""


@pytest.mark.parametrize("kind", ["sqlite"])
class TestHooks:
    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1:1/?token=CANARY",
            "https://127.0.0.1:1/?token=CANARY#CANARY",
            "https://127.0.0.1:port/?token=CANARY",
            "https://127.0.0.1:99999/?token=CANARY",
            "https://127.0.0.1:CANARY/",
            "https://127.0.0.1:1/a b?token=CANARY",
            "https://127.0.0.1:1/ü?token=CANARY",
            "https://[127.0.0.1/?token=CANARY",
            "https://host-CANARY.invalid/?token=CANARY",
            "https://u:CANARY@127.0.0.1:1/",
            "https://CANARY@127.0.0.1:1/",
            "https:/127.0.0.1/?token=CANARY",
            "http://example.com/?token=CANARY",
            "ftp://127.0.0.1/?token=CANARY",
            "127.0.0.1/?token=CANARY",
            "https://127.0.0.1:1/?token=CANARY\\n",
            "https://127.0.0.1:1/?token=CANARY\\u0000",
            "https://..CANARY../",
            " https://127.0.0.1:1/?token=CANARY",
            "CANARY",
        ],
    )
    def test_do_not_show_what_is_in_their_url(
        self, inside: Inside, url: str, tmp_path: Path
    ) -> None:
        """Many a web server takes a token in the parameters of the URL."""
        text = WEBHOOK + f'url = "{url}"\nsecret_file = "FILE"'
        environment = configured(tmp_path, text, content=f"whsec_{'A' * 32}")
        text = delivered(inside, environment)
        assert CANARY not in text
        assert "its client failed" not in text

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ('"/CANARY"', ""),
            ('"/CANARY/with/slashes=="', ""),
            ('"CANARY"', ""),
            ('["CANARY"]', ""),
            ('{ value = "CANARY" }', ""),
            ('"FILE"', "CANARY"),
            ('"FILE"', "whsec_CANARY"),
            ('"FILE"', "whsec_CANARY\nCANARY"),
            ('"FILE"', "whsec_CANARY-ü"),
            ('"FILE"', '"whsec_CANARY"'),
        ],
    )
    def test_do_not_show_what_they_sign_with(
        self, inside: Inside, file: str, content: str, tmp_path: Path
    ) -> None:
        """The secret in the place of its file, and a file that holds none."""
        text = WEBHOOK + f'url = "http://127.0.0.1:1/"\nsecret_file = {file}'
        content = content.replace("CANARY", f"{CANARY}-")
        assert CANARY not in delivered(inside, configured(tmp_path, text, content=content))

    @pytest.mark.parametrize("wrong", ['secret = "CANARY"', 'token = "CANARY"'])
    def test_do_not_show_what_has_no_place_in_them(
        self, inside: Inside, wrong: str, tmp_path: Path
    ) -> None:
        text = WEBHOOK + f'url = "http://127.0.0.1:1/"\nsecret_file = "FILE"\n{wrong}'
        assert CANARY not in delivered(inside, configured(tmp_path, text))


@pytest.fixture(scope="class", name="mail")
def _mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    """An SMTP server that refuses every password but one."""
    with mail_server(tmp_path_factory.mktemp("mail"), tls="starttls") as server:
        yield server


@pytest.mark.parametrize("kind", ["sqlite"])
class TestMail:
    @pytest.mark.parametrize(
        ("login", "content"),
        [
            ('username = "keyctl"\npassword_file = "/CANARY"', ""),
            ('username = "keyctl"\npassword_file = "/CANARY/with/slashes=="', ""),
            ('username = "keyctl"\npassword_file = "CANARY"', ""),
            ('username = "keyctl"\npassword_file = ["CANARY"]', ""),
            ('username = "keyctl"\npassword = "CANARY"', ""),
            ('password_file = "/CANARY"', ""),
            ('username = "keyctl:CANARY"', ""),
            ('username = "keyctl"\npassword_file = "FILE"', "CANARY"),
            ('username = "keyctl"\npassword_file = "FILE"', "CANARY\nCANARY"),
            (
                'username = "keyctl"\npassword_file = "FILE"',
                "CANARY-\N{LATIN SMALL LETTER U WITH DIAERESIS}",
            ),
            ('username = "keyctl"\npassword_file = "FILE"', "CANARY\udcff"),
            ('username = "keyctl"\npassword_file = "FILE"', "CANARY\0CANARY"),
            ('username = "keyctl"\npassword_file = "FILE"', "CANARY" * 500),
        ],
    )
    def test_does_not_show_its_password(
        self, inside: Inside, mail: MailServer, login: str, content: str, tmp_path: Path
    ) -> None:
        """The password in the place of its file, and a file that holds a wrong one."""
        text = MAIL.replace("PORT", str(mail.port)) + login
        environment = configured(tmp_path, text, content=content)
        text = delivered(inside, {**environment, "SSL_CERT_FILE": str(mail.certificate)})
        assert CANARY not in text

    @pytest.mark.parametrize(
        "host",
        [
            "smtp://u:CANARY@127.0.0.1",
            "u:CANARY@127.0.0.1",
            "127.0.0.1:CANARY",
            "CANARY",
            "..CANARY..",
        ],
    )
    def test_does_not_show_a_password_in_its_host(
        self, inside: Inside, host: str, tmp_path: Path
    ) -> None:
        text = MAIL.replace("PORT", "1").replace("localhost", host)
        text = delivered(inside, configured(tmp_path, text))
        assert CANARY not in text


@pytest.mark.parametrize("kind", ["sqlite"])
class TestCommandLines:
    @pytest.mark.parametrize(
        "argv",
        [
            '"curl -H CANARY https://127.0.0.1"',
            '["curl -H CANARY https://127.0.0.1"]',
            '["TOKEN=CANARY", "curl"]',
            '["/usr/bin/curl --token CANARY"]',
            '["false", "{CANARY}"]',
            '["false", "{\\"token\\": \\"CANARY\\"}"]',
            '["false", "Bearer CANARY {alais}"]',
            '["false", "{user}:CANARY"]',
            '["sh", "-c", "WEAK/send --token CANARY"]',
            '["WEAK/send --token CANARY"]',
            '["false", "CANARY"]',
            '["false", 4711, "CANARY"]',
            '["false", "CANARY\\u0000"]',
            '["false", "CANARY\\n"]',
            '["false", ["CANARY"]]',
            '{ "false" = "CANARY" }',
            '[]\nenv = { TOKEN = "CANARY" }',
        ],
    )
    @pytest.mark.parametrize("table", ["sinks.h", "hooks.h"])
    def test_are_not_shown(self, inside: Inside, table: str, argv: str, tmp_path: Path) -> None:
        """A token stands in an argument now and then, whoever says that it should not."""
        weak = tmp_path / "weak"
        weak.mkdir()
        weak.chmod(0o777)
        text = f'[{table}]\ntype = "command"\nargv = {argv.replace("WEAK", str(weak))}'
        environment = configured(tmp_path, text)
        if table == "hooks.h":
            text = delivered(inside, environment)
        else:
            inside("user", "create", "--", "-u", check=True)
            text = said(inside, "generate", "--user", "-u", "--deliver", "h", **environment)
        assert CANARY not in text


@pytest.mark.parametrize("kind", ["sqlite"])
class TestFilesThatAreNoToml:
    @pytest.mark.parametrize(
        "line",
        [
            'url = "https://h/?token=CANARY',
            "url = 'CANARY",
            "token = CANARY",
            "CANARY",
            "password_file = /etc/CANARY",
            'token = "CANARY" "CANARY"',
            'token = "\\CANARY"',
            'token = "a"\ntoken = "CANARY"',
            "token = 4711CANARY",
            "token = " + "4711" * 2000,
            'token = """CANARY',
            'token = "CANARY\udcff"',
        ],
    )
    def test_are_not_repeated(self, inside: Inside, line: str, tmp_path: Path) -> None:
        """What a quotation mark is missing of is told by its line, and not shown."""
        config = tmp_path / "c.toml"
        text = f"[hooks.h]\n{line}\n".replace("CANARY", CANARY)
        config.write_bytes(text.encode("utf-8", "surrogateescape"))
        config.chmod(0o600)
        text = said(inside, "list", KEYCTL_CONFIG=str(config))
        assert CANARY not in text
        assert "47114711" not in text
        assert "is not TOML" in text


@pytest.mark.parametrize("kind", ["sqlite"])
class TestConfigShow:
    @pytest.mark.parametrize("form", ["table", "json"])
    def test_shows_of_a_url_the_host_only(self, inside: Inside, form: str, tmp_path: Path) -> None:
        """The path of many a chat's webhook is its password."""
        text = WEBHOOK + 'url = "https://chat.example.com:8443/CANARY?t=CANARY"\nsecret_file = "/s"'
        environment = configured(tmp_path, text)
        shown = inside("config", "show", "-o", form, environment=environment, check=True).stdout
        assert CANARY not in shown
        assert "https://chat.example.com:8443/" in shown
