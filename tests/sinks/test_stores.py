"""What is special about each secret manager: logins, names, versions, conditions, and the settings.

Vault and Kubernetes are fakes of their documented HTTP APIs, over real sockets; AWS is moto's server.
"""

import base64
import json
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_kubernetes import FakeKubernetes
from fake_vault import FakeVault
from hypothesis import given
from hypothesis import strategies as st
from places import Aws, Kubernetes, Place, Vault, configuration, kubeconfig, place
from store_bench import Bench
from unruly import Answer, Request

from keyctl.config import file
from keyctl.errors import ConfigurationError, DeliveryError, FileTakenError, UsageError
from keyctl.services.workspace import Workspace
from keyctl.sinks.aws import aws_encoded
from keyctl.sinks.base import NotTakenError
from keyctl.sinks.templates import dns_encoded

KIND = pytest.mark.parametrize("kind", ["sqlite"], indirect=True)


def bench_with(
    manager: Place, workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """Return a bench on *manager*, its credentials in the environment."""
    for name, value in manager.environment(folder).items():
        monkeypatch.setenv(name, value)
    bench = Bench(workspace, manager, folder)
    bench.configure()
    return bench


def configured(bench: Bench, text: str) -> None:
    """Configure *bench* with a text of its own."""
    path = bench.folder / "config.toml"
    path.write_text(text)
    path.chmod(0o600)
    bench.workspace = replace(bench.workspace, settings=file.load(path))


@KIND
class TestVault:
    @pytest.fixture(name="vault")
    def _vault(self) -> Iterator[FakeVault]:
        with FakeVault() as server:
            yield server

    @pytest.fixture(name="bench")
    def _bench(
        self,
        vault: FakeVault,
        workspace: Workspace,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Bench:
        return bench_with(Vault(vault), workspace, tmp_path, monkeypatch)

    @pytest.mark.parametrize(
        "login",
        [
            ['token_file = "{home}/token"'],
            ['role_id = "the-role"', 'secret_id_file = "{home}/secret-id"'],
            [
                'kubernetes_role = "keyctl"',
                'kubernetes_token_file = "{home}/jwt"',
                'auth_mount = "prod"',
            ],
        ],
    )
    def test_each_way_to_log_in(
        self, bench: Bench, login: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A token from a file, an AppRole, or a service account; a newline at the end is no part of it."""
        monkeypatch.delenv("VAULT_TOKEN")
        for name, text in (
            ("token", "good-token"),
            ("secret-id", "the-secret"),
            ("jwt", "the-jwt"),
        ):
            (bench.folder / name).write_text(f"{text}\n")
        bench.configure(*(line.format(home=bench.folder) for line in login))

        bench.generate()

        assert bench.verdict().valid

    @pytest.mark.parametrize(
        "login",
        [
            ['token_file = "/nowhere/token"'],
            ['token_file = "/dev/null"'],
            ['role_id = "another"', 'secret_id_file = "{home}/config.toml"'],
        ],
    )
    def test_a_login_that_fails_costs_nothing(self, bench: Bench, login: list[str]) -> None:
        """It is found out before anything is written."""
        bench.configure(*(line.format(home=bench.folder) for line in login))
        bench.failed(bench.generate)
        assert bench.states() == []

    def test_a_token_that_is_not_good_is_no_write_only_token(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Vault answers 403 to both; only a good token may look itself up."""
        monkeypatch.setenv("VAULT_TOKEN", "stale-token")
        bench.failed(bench.generate)
        assert bench.states() == []

    def test_an_engine_that_is_not_there_costs_nothing(self, bench: Bench) -> None:
        """A mistyped mount is found out before anything is written."""
        bench.configure('mount = "sercet"')
        bench.failed(bench.generate)
        assert bench.states() == []

    def test_the_document_says_whose_it_is(self, bench: Bench, vault: FakeVault) -> None:
        """Beside the key stand its id, its alias and its secret's id; the namespace is asked for."""
        bench.configure('namespace = "teams/web"')

        key_id = bench.generate()

        document = dict(vault.versions["keyctl/ci"][1] or {})
        public_id = document.pop("key", "")[3:15]
        assert document == {"key_id": key_id, "key_alias": "ci", "secret_id": public_id}
        assert set(vault.namespaces) == {"teams/web"}

    def test_names_stay_in_their_folder(self, bench: Bench, vault: FakeVault) -> None:
        """What is percent-encoded in a path is so in Vault too: it is not decoded on the way."""
        bench.generate("../up")
        assert list(vault.versions) == ["keyctl/%2E%2E%2Fup"]

    def test_what_came_since_it_was_read_is_not_overwritten(
        self, bench: Bench, vault: FakeVault
    ) -> None:
        """Check and set: another writer's version makes Vault refuse ours, and nothing is lost."""
        bench.generate()
        answer = vault.answer

        def overtaken(request: Request) -> Answer:
            if request.method == "POST":
                vault.versions["keyctl/ci"][9] = {"key": "somebody's"}
            return answer(request)

        vault.answer = overtaken  # type: ignore[method-assign]  # the fake's, at its seam

        bench.failed(bench.rotate)

        assert bench.states() == ["active", "revoked"]
        assert max(vault.versions["keyctl/ci"]) == 9

    def test_only_a_key_s_own_versions_are_deleted(self, bench: Bench, vault: FakeVault) -> None:
        """Those of the next key of this name, and what others wrote in between, are not."""
        first = bench.generate()
        bench.rotate()
        bench.delete("ci")
        bench.generate()
        before = dict(vault.versions["keyctl/ci"])

        assert bench.remove(first) is True

        assert vault.versions["keyctl/ci"] == {**before, 1: None, 2: None}
        assert bench.remove(first) is False

    def test_what_may_not_be_read_is_not_removed(self, bench: Bench, vault: FakeVault) -> None:
        """Whose it is cannot be known then."""
        key_id = bench.generate()
        vault.upset("^GET /v1/secret", 403)
        with pytest.raises(NotTakenError):
            bench.remove(key_id)
        assert bench.place.held("ci") != []


@KIND
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
class TestTls:
    def test_only_the_authority_that_the_configuration_names_is_believed(
        self, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server with a certificate of its own gets no key until `ca_file` names it."""
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        certificate, private = tmp_path / "server.pem", tmp_path / "server.key"
        subprocess.run(
            [
                *(
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                ),
                *("-nodes", "-days", "2", "-subj", "/CN=vault", "-addext"),
                *("subjectAltName=IP:127.0.0.1", "-keyout", private, "-out", certificate),
            ],
            check=True,
            capture_output=True,
            timeout=30,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private)
        with FakeVault(context) as server:
            bench = bench_with(Vault(server), workspace, tmp_path, monkeypatch)
            bench.failed(bench.generate)
            assert server.asked == []

            bench.configure(f'ca_file = "{certificate}"')
            bench.generate()

            assert bench.verdict().valid


@KIND
class TestAws:
    @pytest.fixture(name="aws")
    def _aws(self) -> Iterator[Aws]:
        with place("aws") as manager:
            assert isinstance(manager, Aws)
            yield manager

    @pytest.fixture(name="bench")
    def _bench(
        self, aws: Aws, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Bench:
        return bench_with(aws, workspace, tmp_path, monkeypatch)

    @pytest.mark.parametrize(("form", "begins"), [("key", "sk-"), ("env", "OPENAI_API_KEY=sk-")])
    def test_bare_forms_are_known_by_their_tag(
        self, bench: Bench, aws: Aws, form: str, begins: str
    ) -> None:
        """Without a document around the key, rotation and removal still know whose it is."""
        bench.configure(f'format = "{form}"')
        key_id = bench.generate()
        bench.rotate()

        value = aws.client.get_secret_value(SecretId="keyctl/ci")

        assert value["SecretString"].startswith(begins)
        assert bench.remove(key_id) is True

    def test_the_version_says_which_secret_it_is(self, bench: Bench, aws: Aws) -> None:
        """The document, the tag and the version's id name key and secret."""
        key_id = bench.generate()

        value = aws.client.get_secret_value(SecretId="keyctl/ci")

        document = json.loads(value["SecretString"])
        public_id = document.pop("key")[3:15]
        assert document == {"key_id": key_id, "key_alias": "ci", "secret_id": public_id}
        assert value["VersionId"] == f"keyctl-{key_id}-{public_id}"
        tags = aws.client.describe_secret(SecretId="keyctl/ci")["Tags"]
        assert tags == [{"Key": "keyctl:key-id", "Value": key_id}]

    def test_an_empty_secret_is_filled(self, bench: Bench, aws: Aws) -> None:
        """One that Terraform made without a value holds nothing that could be lost."""
        aws.client.create_secret(Name="keyctl/ci")
        bench.generate()
        assert bench.verdict().valid

    def test_a_removed_secret_can_be_restored_for_seven_days(self, bench: Bench, aws: Aws) -> None:
        """Deletion is scheduled, not done; what it held is revoked anyway."""
        key_id = bench.generate()
        bench.remove(key_id)
        described = aws.client.describe_secret(SecretId="keyctl/ci")
        assert (described["DeletedDate"] - described["CreatedDate"]).days in (6, 7)

    def test_a_foreign_secret_that_is_going_is_not_brought_back(
        self, bench: Bench, aws: Aws
    ) -> None:
        """Its owner asked for its deletion; to restore it for a key of ours would undo that."""
        bench.place.plant("ci")
        aws.client.delete_secret(SecretId="keyctl/ci", RecoveryWindowInDays=30)
        with pytest.raises(FileTakenError, match="not keyctl's"):
            bench.generate()

    def test_what_another_key_wrote_during_a_removal_is_brought_back(
        self, bench: Bench, aws: Aws
    ) -> None:
        """AWS deletes without a condition: what turns out to be another key's is restored."""
        key_id = bench.generate()
        door = aws.server
        answer = door.answer

        def overtaken(request: Request) -> Answer:
            if door.described(request) == "DeleteSecret":
                tags = [{"Key": "keyctl:key-id", "Value": "key_another"}]
                aws.client.tag_resource(SecretId="keyctl/ci", Tags=tags)
            return answer(request)

        door.answer = overtaken  # type: ignore[method-assign]  # at the door of the real server

        assert bench.remove(key_id) is False

        assert "DeletedDate" not in aws.client.describe_secret(SecretId="keyctl/ci")

    def test_describing_must_be_allowed(self, bench: Bench, aws: Aws) -> None:
        """It shows no value; without it nobody knows whose a secret is, and nothing is written."""
        aws.server.upset("DescribeSecret", aws.forbidden)
        error = bench.failed(bench.generate)
        assert "secretsmanager:DescribeSecret" in error.message
        assert bench.states() == []

    @pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER"])
    def test_a_server_that_the_environment_names_is_asked_by_https(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """What the configuration may not say, the environment may not either; a profile is the same."""
        configured(bench, configuration("aws", 'region = "eu-central-1"', 'name = "a"'))
        monkeypatch.setenv(name, "http://192.0.2.1:9")
        error = bench.failed(bench.generate)
        assert "http://192.0.2.1:9 is no https address" in error.message
        assert bench.states() == []

    def test_a_local_server_that_the_environment_names_is_asked_without_a_proxy(
        self, bench: Bench, aws: Aws, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As one that the configuration names."""
        configured(
            bench, configuration("aws", 'region = "eu-central-1"', 'name = "keyctl/{alias}"')
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.server.url)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        bench.generate()
        assert bench.verdict().valid

    def test_a_region_must_be_known(self, bench: Bench, aws: Aws) -> None:
        """Without one there is no server to ask."""
        configured(bench, configuration("aws", f'endpoint_url = "{aws.server.url}"', 'name = "a"'))
        error = bench.failed(bench.generate)
        assert "no region" in error.message


@KIND
class TestKubernetes:
    @pytest.fixture(name="cluster")
    def _cluster(self) -> Iterator[FakeKubernetes]:
        with FakeKubernetes() as server:
            yield server

    @pytest.fixture(name="bench")
    def _bench(
        self,
        cluster: FakeKubernetes,
        workspace: Workspace,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Bench:
        return bench_with(Kubernetes(cluster), workspace, tmp_path, monkeypatch)

    def test_the_secret_says_whose_it_is(self, bench: Bench, cluster: FakeKubernetes) -> None:
        """Annotations name key and secret; the one entry holds the bare key."""
        key_id = bench.generate()
        secret = cluster.secrets["apps", "keyctl-ci"]
        key = base64.b64decode(secret["data"]["api-key"]).decode()
        assert list(secret["data"]) == ["api-key"]
        assert secret["metadata"]["annotations"] == {
            "keyctl/key-id.api-key": key_id,
            "keyctl/secret-id.api-key": key[3:15],
        }

    def test_two_keys_share_a_secret(
        self, bench: Bench, cluster: FakeKubernetes, tmp_path: Path
    ) -> None:
        """Each has an entry: one is rotated and removed without the other, the last with the Secret."""
        shared = ('namespace = "apps"', 'name = "app"')
        chat = configuration("kubernetes", *shared, 'entry = "chat"')
        embed = configuration("kubernetes", *shared, f'entry = "{"embed" * 10}"')
        configured(bench, chat)
        first = bench.generate()
        configured(bench, embed)
        second = bench.generate("other")
        kept = cluster.secrets["apps", "app"]["data"]["embed" * 10]

        configured(bench, chat)
        bench.rotate()
        assert bench.remove(second) is False
        assert bench.remove(first) is True

        assert cluster.secrets["apps", "app"]["data"] == {"embed" * 10: kept}
        configured(bench, embed)
        assert bench.remove(second) is True
        assert cluster.secrets == {}

    def test_entries_of_others_are_kept(self, bench: Bench, cluster: FakeKubernetes) -> None:
        """A rotation changes one entry, a removal takes it out and leaves the rest."""
        key_id = bench.generate()
        theirs = {"url": base64.b64encode(b"https://gateway").decode()}
        cluster.secrets["apps", "keyctl-ci"]["data"].update(theirs)

        bench.rotate()

        assert bench.verdict().secret_state == "active"
        assert bench.remove(key_id) is True
        assert cluster.secrets["apps", "keyctl-ci"]["data"] == theirs
        assert bench.remove(key_id) is False
        bench.delete("ci")
        bench.generate()
        assert bench.verdict().valid

    @pytest.mark.parametrize("step", ["rotate", "remove"])
    def test_what_changed_since_it_was_read_is_left_alone(
        self, bench: Bench, cluster: FakeKubernetes, step: str
    ) -> None:
        """The resourceVersion that was read is the condition of each change: a conflict is a refusal."""
        key_id = bench.generate()
        answer = cluster.answer

        def overtaken(request: Request) -> Answer:
            if request.method in ("PUT", "DELETE"):
                secret = cluster.secrets["apps", "keyctl-ci"]
                secret["metadata"]["resourceVersion"] = "999"
            return answer(request)

        cluster.answer = overtaken  # type: ignore[method-assign]  # the fake's, at its seam
        before = bench.place.held("ci")

        with pytest.raises((DeliveryError, NotTakenError), match="409"):
            bench.rotate() if step == "rotate" else bench.remove(key_id)

        assert bench.place.held("ci") == before
        assert bench.verdict().secret_state == "active"

    def test_namespaces_are_taken_as_they_are(self, bench: Bench, cluster: FakeKubernetes) -> None:
        """They exist already under their own names, so a value that is none is refused, by name."""
        configured(
            bench, configuration("kubernetes", 'namespace = "team-{alias}"', 'name = "{key_id}"')
        )

        key_id = bench.generate("web")

        assert list(cluster.secrets) == [("team-web", dns_encoded(key_id))]
        with pytest.raises(UsageError, match="team-Web_1"):
            bench.generate("Web_1")

    def test_a_name_that_is_too_long_is_refused(self, bench: Bench) -> None:
        """Cut, it might be another key's."""
        with pytest.raises(UsageError, match="no name that Kubernetes takes"):
            bench.generate("é" * 100)

    @pytest.mark.parametrize(
        ("server", "more"),
        [
            ("http://kube.example.com", {}),
            ("https://kube.example.com", {"insecure-skip-tls-verify": True}),
        ],
    )
    def test_a_cluster_that_proves_nothing_gets_no_key(
        self, bench: Bench, server: str, more: dict[str, bool]
    ) -> None:
        """A kubeconfig may name plain http, or skip the look at the certificate: a key does not go there."""
        document = kubeconfig(server)
        document["clusters"][0]["cluster"].update(more)
        (bench.folder / "kubeconfig").write_text(json.dumps(document))
        error = bench.failed(bench.generate)
        assert "its certificate is not checked" in error.message

    def test_a_context_that_is_not_there_costs_nothing(self, bench: Bench) -> None:
        """It is found out before anything is written."""
        bench.configure('context = "elsewhere"')
        bench.failed(bench.generate)
        assert bench.states() == []


class TestNames:
    @given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
    def test_different_values_make_different_names(self, values: list[str]) -> None:
        """And each is a name that the store takes, at the beginning, inside or at the end."""
        for encode, form in (
            (dns_encoded, r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"),
            (aws_encoded, r"[A-Za-z0-9/_+=.@-]+"),
        ):
            one, other = (encode(value.encode(errors="replace").decode()) for value in values)
            assert re.fullmatch(form, one)
            assert (one == other) == (
                values[0].encode(errors="replace") == values[1].encode(errors="replace")
            )

    @pytest.mark.parametrize(
        ("value", "name"),
        [
            ("checkout-web2", "checkout-web2"),
            ("proxy", "proxy"),
            ("a_b", "x--ax5fb"),
            ("A", "x--x41"),
            ("a-", "x--ax2d"),
            ("x--a", "x--x78--a"),
            ("a--b", "x--a--b"),
        ],
    )
    def test_what_is_a_dns_name_stays_as_it_is(self, value: str, name: str) -> None:
        """Only what is none is encoded, and marked as that."""
        assert dns_encoded(value) == name


class TestSettings:
    @pytest.mark.parametrize(
        ("manager", "lines"),
        [
            ("vault", ['url = "http://vault.example.com"', 'path = "a"']),
            ("vault", ['url = "http://127.0.0.1.example.com"', 'path = "a"']),
            ("vault", ['url = "https://me:pass@vault.example.com"', 'path = "a"']),
            ("vault", ['url = "https://vault.example.com"', 'path = "/a"']),
            ("vault", ['url = "https://vault.example.com"', 'path = "a/../b"']),
            ("vault", ['url = "https://vault.example.com"', 'path = "{aliass}"']),
            ("vault", ['url = "https://v"', 'path = "a"', 'token_file = "t"', 'role_id = "r"']),
            ("vault", ['url = "https://v"', 'path = "a"', 'secret_id_file = "s"']),
            ("vault", ['url = "https://v"', 'path = "a"', 'token = "s.secret"']),
            ("aws", ['name = "a b"']),
            ("aws", ['name = "a"', 'endpoint_url = "http://example.com"']),
            ("kubernetes", ['namespace = "Apps"', 'name = "a"']),
            ("kubernetes", ['namespace = "apps"', 'name = "keyctl_{alias}"']),
            ("kubernetes", ['namespace = "apps"', 'name = "a"', 'entry = "a b"']),
            ("kubernetes", ['namespace = "apps"', 'name = "a"', 'entry = "ends-"']),
            ("kubernetes", ['namespace = "apps"', 'name = "a"', f'entry = "{"a" * 54}"']),
        ],
    )
    def test_what_cannot_work_or_is_not_safe_is_refused(
        self, tmp_path: Path, manager: str, lines: list[str]
    ) -> None:
        """When the file is read, and not when the first key is made."""
        path = tmp_path / "config.toml"
        path.write_text(configuration(manager, *lines))
        path.chmod(0o600)
        with pytest.raises(ConfigurationError):
            file.load(path)
