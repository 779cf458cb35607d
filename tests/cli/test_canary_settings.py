"""No part of a password, a token or a URL's parameters is in any message, however it is mistyped."""

import json
from pathlib import Path

import pytest
from inside import Inside

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
