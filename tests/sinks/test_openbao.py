"""A real OpenBao: nothing of others is lost, logins end with the run, and mounts are looked at first."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bao import Bao, openbao
from harness import Cli
from servers import until

pytestmark = [pytest.mark.parametrize("kind", ["sqlite"])]


@pytest.fixture(name="bao", scope="module")
def _bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    with openbao(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture(name="vault_cli")
def _vault_cli(cli: Cli, bao: Bao, request: pytest.FixtureRequest) -> Cli:
    """The program with a sink into a folder of the test's own, acting with the root token."""
    configure(cli, bao, request.node.name.partition("[")[0])
    cli.environment["VAULT_TOKEN"] = bao.token
    return cli


def configure(cli: Cli, bao: Bao, folder: str, *lines: str) -> None:
    """Point the sink at a folder."""
    more = "\n".join(lines)
    cli.configure(
        f'bcrypt_cost = 4\n[sinks.bao]\ntype = "vault"\nurl = "{bao.url}"\n'
        f'path = "{folder}/{{alias}}"\n{more}\n'
    )
    cli.folder = folder  # type: ignore[attr-defined]


def place(cli: Cli) -> str:
    return f"{cli.folder}/a"  # type: ignore[attr-defined]


class TestWhatOthersKeep:
    def test_stays_beside_the_key_through_a_rotation(self, vault_cli: Cli, bao: Bao) -> None:
        """`bao kv patch … owner=team-x`, then a rotation."""
        vault_cli("generate", "--alias", "a", "--deliver", "bao", check=True)
        bao.run("kv", "patch", "-mount=secret", place(vault_cli), "owner=team-x")
        before = bao.fields(place(vault_cli))
        vault_cli("rotate", "a", check=True)
        after = bao.fields(place(vault_cli))
        assert after["owner"] == "team-x"
        assert after["key"] != before["key"]
        assert vault_cli.verdict(after["key"])["valid"]

    @pytest.mark.parametrize(
        "capabilities",
        ["create, update", "create, update, delete", "create, read, update", "update"],
    )
    def test_is_not_overwritten_whatever_the_token_may(
        self, vault_cli: Cli, bao: Bao, capabilities: str
    ) -> None:
        """Somebody's secret at the path of a new key is exit 5, and stays."""
        bao.policy("some", f"secret/data/*: {capabilities}")
        bao.run("kv", "put", "-mount=secret", place(vault_cli), "password=theirs")
        vault_cli.environment["VAULT_TOKEN"] = bao.token_of("some")
        done = vault_cli("generate", "--alias", "a", "--deliver", "bao")
        assert (done.exit_code, done.stdout) == (5, "")
        assert bao.fields(place(vault_cli)) == {"password": "theirs"}
        assert vault_cli("list", "-o", "json").json["keys"] == []

    def test_without_read_a_new_place_is_filled_and_a_rotation_refused(
        self, vault_cli: Cli, bao: Bao
    ) -> None:
        bao.policy("write", "secret/data/*: create, update")
        vault_cli.environment["VAULT_TOKEN"] = bao.token_of("write")
        vault_cli("generate", "--alias", "a", "--deliver", "bao", check=True)
        held = bao.fields(place(vault_cli))["key"]
        assert vault_cli("rotate", "a").exit_code == 5
        assert bao.fields(place(vault_cli))["key"] == held
        assert vault_cli.verdict(held)["secret_state"] == "active"

    def test_without_delete_a_removal_waits(self, vault_cli: Cli, bao: Bao) -> None:
        bao.policy("keep", "secret/data/*: create, read, update")
        vault_cli.environment["VAULT_TOKEN"] = bao.token_of("keep")
        vault_cli("generate", "--alias", "a", "--deliver", "bao", check=True)
        vault_cli("delete", "a", "--yes", check=True)
        assert bao.fields(place(vault_cli))["key"]
        (event,) = vault_cli("events", "list", "-o", "json").json["events"]
        assert event["attempts"] == 1
        vault_cli.environment["VAULT_TOKEN"] = bao.token
        vault_cli("events", "retry", "--all", check=True)
        gone = bao.run("kv", "get", "-mount=secret", place(vault_cli), check=False)
        assert "secret_id" not in gone


class TestLogins:
    def test_one_serves_a_whole_run_and_ends_with_it(self, vault_cli: Cli, bao: Bao) -> None:
        """AppRole: a run over five keys, a failed one and a removal leave no token behind."""
        self.let_log_in(vault_cli, bao, "1h")
        folder = vault_cli.folder  # type: ignore[attr-defined]
        before = bao.accessors()
        for number in range(5):
            vault_cli(
                *("generate", "--alias", f"k{number}", "--deliver", "bao"),
                *("--auto-rotate", "--rotation-interval", "1s"),
                check=True,
            )
        vault_cli("rotate", "--due", check=True)
        bao.run("kv", "put", "-mount=secret", f"{folder}/theirs", "password=x")
        assert vault_cli("generate", "--alias", "theirs", "--deliver", "bao").exit_code == 5
        vault_cli("delete", "k0", "k1", "--yes", check=True)
        assert bao.accessors() == before

    def test_of_a_killed_run_lasts_as_long_as_its_token_and_no_longer(
        self, vault_cli: Cli, bao: Bao
    ) -> None:
        """SIGKILL behind the delivery: one token is left, which ends by itself after `token_ttl`."""
        self.let_log_in(vault_cli, bao, "3s")
        before = bao.accessors()
        vault_cli.killed("confirm_uncommitted", "generate", "--alias", "a", "--deliver", "bao")
        assert bao.accessors() - before in (0, 1)  # 0: the machine took longer than it lives
        until(lambda: bao.accessors() == before)
        self.lets_live(bao, "1h")  # a busy machine may need longer than the token's three seconds
        vault_cli("generate", "--alias", "a", "--deliver", "bao", check=True)
        assert vault_cli.verdict(bao.fields(place(vault_cli))["key"])["secret_state"] == "active"

    def lets_live(self, bao: Bao, ttl: str) -> None:
        """Let the tokens of logins from now on live for so long."""
        bao.run("write", "auth/approle/role/keyctl", "token_policies=sink", f"token_ttl={ttl}")

    def let_log_in(self, cli: Cli, bao: Bao, ttl: str) -> None:
        """Let the program log in by AppRole, for so long."""
        bao.run("auth", "enable", "approle", check=False)
        bao.policy("sink", "secret/*: create, read, update, delete, list")
        self.lets_live(bao, ttl)
        role = bao.run("read", "-field=role_id", "auth/approle/role/keyctl/role-id").strip()
        secret = bao.run("write", "-f", "-field=secret_id", "auth/approle/role/keyctl/secret-id")
        file = cli.home / "secret-id"
        file.write_text(secret)
        folder = cli.folder  # type: ignore[attr-defined]
        configure(cli, bao, folder, f'role_id = "{role}"', f'secret_id_file = "{file}"')
        del cli.environment["VAULT_TOKEN"]


class TestTls:
    def test_needs_the_server_s_certificate(self, cli: Cli, tmp_path: Path) -> None:
        """With `ca_file` a key is delivered and rotated; without, exit 8 and no key."""
        folder = tmp_path / "bao"
        folder.mkdir()
        with openbao(folder, tls=True) as bao:
            cli.environment["VAULT_TOKEN"] = bao.token
            configure(cli, bao, "tls")
            done = cli("generate", "--alias", "a", "--deliver", "bao")
            assert (done.exit_code, done.stdout) == (8, "")
            assert "certificate" in done.stderr
            assert cli("list", "--all", "-o", "json").json["keys"] == []
            configure(cli, bao, "tls", f'ca_file = "{bao.certificate}"')
            cli("generate", "--alias", "a", "--deliver", "bao", check=True)
            cli("rotate", "a", check=True)
            assert cli.verdict(bao.fields("tls/a")["key"])["secret_state"] == "active"


class TestMounts:
    @pytest.mark.parametrize("mount", ["old", "sys", "nowhere"])
    def test_that_cannot_work_are_found_before_anything_is_written(
        self, vault_cli: Cli, bao: Bao, mount: str
    ) -> None:
        """A KV engine of version 1, no KV engine, none at all: exit 8, and no key."""
        folder = vault_cli.folder  # type: ignore[attr-defined]
        configure(vault_cli, bao, folder, f'mount = "{mount}"')
        done = vault_cli("generate", "--alias", "a", "--deliver", "bao")
        assert done.exit_code == 8, done
        assert vault_cli("list", "--all", "-o", "json").json["keys"] == []
        assert not bao.run("read", f"old/data/{folder}/a", check=False)

    def test_in_namespaces(self, vault_cli: Cli, bao: Bao) -> None:
        """Each namespace has mounts and tokens of its own."""
        bao.run("namespace", "create", "team")
        bao.run("secrets", "enable", "-namespace=team", "-path=secret", "-version=2", "kv")
        folder = vault_cli.folder  # type: ignore[attr-defined]
        configure(vault_cli, bao, folder, 'namespace = "team"')
        vault_cli("generate", "--alias", "a", "--deliver", "bao", check=True)
        vault_cli("rotate", "a", check=True)
        inside = bao.run(
            "kv", "get", "-namespace=team", "-field=key", "-mount=secret", place(vault_cli)
        )
        assert vault_cli.verdict(inside.strip())["secret_state"] == "active"


@pytest.mark.slow
class TestAServerThatFails:
    def test_killed_and_sealed_during_rotations_nothing_is_lost(
        self, cli: Cli, tmp_path: Path
    ) -> None:
        """Whatever a path holds at the end authenticates; nothing of others is overwritten."""
        folder = tmp_path / "bao"
        folder.mkdir()
        with openbao(folder) as bao:
            configure(cli, bao, "keys", 'timeout = "2s"')
            cli.environment["VAULT_TOKEN"] = bao.token
            bao.run("kv", "put", "-mount=secret", "keys/theirs", "password=x")
            for number in range(10):
                cli(
                    *("generate", "--alias", f"k{number}", "--deliver", "bao"),
                    *("--auto-rotate", "--rotation-interval", "1s"),
                    check=True,
                )
            for how in ("kill", "seal", "kill", "seal", "none"):
                process = cli.start("rotate", "--due", "-o", "jsonl")
                assert process.stdout is not None
                process.stdout.readline()
                if how == "kill":
                    bao.kill()
                elif how == "seal":
                    bao.seal()
                process.communicate(timeout=120)
                if how == "kill":
                    bao.start()
                if how != "none":
                    bao.unseal()
            for number in range(10):
                assert cli.verdict(bao.fields(f"keys/k{number}")["key"])["valid"]
            cli("audit", "verify", check=True)
            assert bao.fields("keys/theirs") == {"password": "x"}
