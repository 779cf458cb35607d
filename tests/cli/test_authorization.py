"""Who may do what through the program: callers by their key, hooks, overrides, and what is told to whom."""

import json
from typing import Any

import pytest
from harness import Cli
from world import Hand, World

from keyctl.fields import validate
from keyctl.keystring import checksum
from keyctl.records import User
from keyctl.requests import GenerateRequest
from keyctl.services.directory import DirectoryService
from keyctl.services.issue.generate import GenerateService
from keyctl.services.issue.order import Order
from keyctl.services.workspace import Workspace

pytestmark = [pytest.mark.in_process, pytest.mark.sqlite_mostly]

ROLES = {
    "root": "proxy_admin",
    "victor": "proxy_admin_viewer",
    "vera": "internal_user_viewer",
}
# The keys there are, by the name of who holds them.
KEYS: dict[str, dict[str, Any]] = {
    "root": {"user_id": "root"},
    "victor": {"user_id": "victor"},
    "olga": {"user_id": "olga"},
    "tina": {"user_id": "tina", "team_id": "web"},
    "ada": {"user_id": "ada", "team_id": "web"},
    "vera": {"user_id": "vera"},
    "robot": {"team_id": "web"},
    "nobody": {},
    "nobody_else": {},
}
SEEN = {
    "root": set(KEYS),
    "victor": set(KEYS),
    "olga": {"olga", "tina", "ada", "robot"},
    "tina": {"tina", "ada", "robot"},
    "ada": {"ada"},
    "vera": {"vera"},
    "robot": {"tina", "ada", "robot"},
    "nobody": {"nobody"},
}


class People:
    """The program, and the key strings of everybody in the world."""

    def __init__(self, cli: Cli, workspace: Workspace) -> None:
        self.cli = cli
        self.world = World(workspace)
        directory = DirectoryService(workspace)
        for user, role in ROLES.items():
            directory.update(User, user, {"role": role})
        self.keys: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        for name, owners in KEYS.items():
            hand = Hand()
            request = validate(
                GenerateRequest, {"key_alias": name, **owners}, what="t", schema="generate-request"
            )
            order = Order(request=request, service_account=name == "robot")
            answer = GenerateService(workspace).generate(order, hand).answer
            self.keys[name], self.ids[name] = hand.held, answer["key_id"]

    def by(self, name: str, *arguments: str, **options: Any) -> Any:
        """Run a command line as the holder of a key."""
        return self.cli(*arguments, environment={"KEYCTL_API_KEY": self.keys[name]}, **options)

    def allow_members(self, *permissions: str) -> None:
        """Grant plain members of web something."""
        self.world.change({"team": {"policy": {"team_member_permissions": list(permissions)}}})


@pytest.fixture(name="people")
def _people(cli: Cli, workspace: Workspace) -> People:
    """Everybody, with a key each."""
    return People(cli, workspace)


class TestReading:
    def test_what_each_role_may_see(self, people: People) -> None:
        """Admins and viewers see all, others their organization's, team's or own; null is no owner."""
        for name, seen in SEEN.items():
            listed = people.by(name, "list", "-o", "json", check=True).json["keys"]
            assert {key["key_alias"] for key in listed} == seen, name
            hidden = next((other for other in KEYS if other not in seen), None)
            if hidden is not None:
                result = people.by(name, "info", people.ids[hidden], "-o", "json")
                assert (result.exit_code, result.error["code"]) == (3, "key_not_found"), name
            assert people.by(name, "info", people.ids[name]).exit_code == 0, name

    def test_the_house_is_for_admins(self, people: People) -> None:
        """The audit trail, the database, the configuration and counts of everybody's budgets are for admins; their viewers read."""
        for name in SEEN:
            for command in (
                ["audit", "list"],
                ["audit", "head"],
                ["db", "check"],
                ["config", "show"],
                ["budget", "reset", "--due", "--dry-run"],
            ):
                result = people.by(name, *command, "-o", "json")
                wanted = 0 if name in ("root", "victor") else 4
                assert result.exit_code == wanted, (name, command, result)
            repair = people.by(name, "db", "check", "--repair", "-o", "json")
            assert repair.exit_code == (0 if name == "root" else 4), name


class TestWriting:
    def test_a_member_who_may_makes_keys_for_themselves(self, people: People) -> None:
        """The owner is filled in when it is left out."""
        people.allow_members("/key/generate")
        made = people.by("ada", "generate", "--team", "web", "-o", "json", check=True).json
        assert (made["user_id"], made["created_by"]) == ("ada", f"key:{people.ids['ada']}")
        assert {"field": "user_id", "value": "ada", "source": "caller"} in made["filled"]

    def test_a_team_admin_makes_keys_for_members_where_a_policy_says_so(
        self, people: People
    ) -> None:
        """A member of the team may be the owner, a stranger may not."""
        people.world.change({"team": {"policy": {"create_member_keys": True}}})
        made = people.by(
            "tina", "generate", "--team", "web", "--user", "ada", "-o", "json", check=True
        ).json
        refused = people.by("tina", "generate", "--team", "web", "--user", "eve", "-o", "json")
        assert made["user_id"] == "ada"
        assert (refused.exit_code, [item["rule"] for item in refused.error["violations"]]) == (
            4,
            ["team.owner_member"],
        )

    @pytest.mark.parametrize(
        ("name", "rules"),
        [
            ("vera", {"caller.read_only"}),
            ("victor", {"caller.read_only"}),
            ("nobody", {"caller.no_rights"}),
        ],
    )
    def test_who_may_change_nothing(self, people: People, name: str, rules: set[str]) -> None:
        """Viewers, and keys without a user, neither create nor change, even their own key."""
        before = people.cli("audit", "list", "-o", "json", check=True).json["events"]
        for command in (
            ["generate"],
            ["update", people.ids[name], "--tpm-limit", "1"],
            ["rotate", people.ids[name]],
            ["block", people.ids[name]],
            ["delete", people.ids[name]],
        ):
            result = people.by(name, *command, "-o", "json")
            assert (result.exit_code, result.stdout) == (4, ""), (command, result)
            assert rules <= {item["rule"] for item in result.error["violations"]}, command
        after = people.cli("audit", "list", "-o", "json", check=True).json["events"]
        denied = after[: len(after) - len(before)]
        assert [event["action"] for event in denied] == [
            "key_delete_denied",
            "key_block_denied",
            "key_rotate_denied",
            "key_update_denied",
            "key_denied",
        ]
        assert {event["actor"] for event in denied} == {f"key:{people.ids[name]}"}

    def test_a_service_account_acts_for_its_own_team(self, people: People) -> None:
        """It makes keys for its team when members may, and for no other."""
        people.allow_members("/key/generate", "/key/service-account/generate")
        made = people.by("robot", "generate", "--team", "web", "--service-account", "-o", "json")
        other = people.by("robot", "generate", "--team", "else", "-o", "json")
        assert (made.exit_code, made.json["team_id"], made.json["user_id"]) == (0, "web", None)
        assert other.exit_code == 4
        assert "caller.service_account_team" in {item["rule"] for item in other.error["violations"]}

    def test_the_directory_is_for_admins(self, people: People) -> None:
        """Teams, users, organizations and budgets are changed by admins only."""
        for command in (
            ["team", "create", "new"],
            ["team", "update", "web", "--tpm-limit", "5"],
            ["user", "create", "new"],
            ["org", "create", "new"],
            ["spend", people.ids["ada"], "--reset"],
            ["budget", "reset", "--due"],
        ):
            for name in ("tina", "victor"):
                result = people.by(name, *command, "-o", "json")
                assert (result.exit_code, result.stdout) == (4, ""), (name, command, result)


class TestTheCallersKey:
    def test_a_stranger_learns_nothing(self, people: People) -> None:
        """A key that does not authenticate is told just that, whether its public id exists or not."""
        forged = people.keys["ada"][:16] + "A" * 43
        unknown = "sk-0000000000ZZ_" + "B" * 43
        messages = set()
        for body in (forged, unknown):
            result = people.cli(
                "list",
                "-o",
                "json",
                environment={"KEYCTL_API_KEY": body + checksum(body)},
            )
            assert (result.exit_code, result.stdout) == (4, "")
            messages.add(json.dumps(result.error))
        assert len(messages) == 1

    @pytest.mark.parametrize("state", ["blocked", "expired", "revoked"])
    def test_its_holder_is_told_why(self, people: People, state: str) -> None:
        """Who holds a real key learns what has become of it."""
        if state == "blocked":
            people.cli("block", "ada", check=True)
        elif state == "expired":
            people.cli.execute("UPDATE keys SET expires = '2020-01-01 00:00:00.000000'")
        else:
            people.cli("delete", "ada", check=True)
        result = people.by("ada", "list", "-o", "json")
        assert (result.exit_code, result.stdout) == (4, "")
        assert f"is {state}" in result.error["message"]

    def test_set_but_empty_is_refused(self, people: People) -> None:
        """An empty variable is a mistake in a script, never the local operator."""
        result = people.cli("list", "-o", "json", environment={"KEYCTL_API_KEY": ""})
        assert (result.exit_code, result.stdout) == (2, "")

    def test_a_file_names_the_caller_too(self, people: People) -> None:
        """--caller-key-file acts as the owner of the key in it."""
        path = people.cli.home / "caller"
        path.write_text(people.keys["ada"] + "\n")
        path.chmod(0o600)
        listed = people.cli("list", "--caller-key-file", str(path), "-o", "json", check=True).json
        assert [key["key_alias"] for key in listed["keys"]] == ["ada"]

    def test_the_configuration_can_require_one(self, people: People) -> None:
        """With require_caller_key the local operator is nobody; a key still acts."""
        people.cli.configure("bcrypt_cost = 4\nrequire_caller_key = true\n")
        without = people.cli("list", "-o", "json")
        assert (without.exit_code, without.stdout) == (4, "")
        assert people.by("root", "list").exit_code == 0

    def test_on_whose_behalf_is_recorded(self, people: People) -> None:
        """--changed-by names the person behind a shared key; the actor stays the key."""
        people.by("root", "block", "ada", "--changed-by", "rita@example.com", check=True)
        event = people.cli("audit", "list", "--limit", "1", "-o", "json", check=True).json[
            "events"
        ][0]
        assert (event["action"], event["actor"], event["changed_by"]) == (
            "key_blocked",
            f"key:{people.ids['root']}",
            "rita@example.com",
        )


SEVEN = {
    "models": ["gpt-4"],
    "policy": {
        "required_params": ["metadata"],
        "key_alias_pattern": "web-.*",
        "require_expiry": True,
        "allowed_tags": ["ci"],
        "upperbound_key_generate_params": {"max_budget": 10},
        "max_rotation_interval": "30d",
    },
}
REQUEST = ("generate", "--team", "web", "--models", "o3", "--max-budget", "11", "--tag", "prod")


class TestWhatARefusalSays:
    def test_seven_violations_at_once_as_json_and_as_text(self, people: People) -> None:
        """Everything that is wrong is told in one answer, and the denial is on record."""
        people.world.change({"team": SEVEN})

        as_json = people.cli(*REQUEST, "-o", "json")
        as_text = people.cli(*REQUEST)

        violations = as_json.error["violations"]
        assert (as_json.exit_code, as_json.stdout, len(violations)) == (4, "", 7)
        assert all(
            set(item) == {"rule", "field", "message", "bound", "value"} for item in violations
        )
        for item in violations:
            assert item["rule"] in as_text.stderr
        assert (as_text.exit_code, as_text.stdout) == (4, "")
        events = people.cli("audit", "list", "--action", "key_denied", "-o", "json", check=True)
        recorded = [event["after"]["violations"] for event in events.json["events"]]
        assert [len(item) for item in recorded] == [7, 7]

    def test_a_dry_run_gives_the_whole_verdict_and_writes_nothing(self, people: People) -> None:
        """Not even the denial is recorded."""
        people.world.change({"team": SEVEN})
        before = people.cli("audit", "head", "-o", "json", check=True).json

        result = people.cli(*REQUEST, "--dry-run", "-o", "json")

        assert (result.exit_code, result.json["allowed"], len(result.json["violations"])) == (
            4,
            False,
            7,
        )
        assert people.cli("audit", "head", "-o", "json", check=True).json == before


class TestOverrides:
    def test_each_is_on_record_with_its_reason(self, people: People) -> None:
        """An admin steps over a rule by name and says why; the audit trail keeps both."""
        people.world.change({"team": {"models": ["gpt-4"]}})
        command = ("generate", "--team", "web", "--models", "o3", "--override", "team.models")

        without = people.cli(*command, "-o", "json")
        made = people.cli(*command, "--reason", "trial until May", "-o", "json", check=True).json

        assert (without.exit_code, without.stdout) == (2, "")
        events = people.cli(
            "audit", "list", "--action", "rule_overridden", "-o", "json", check=True
        ).json["events"]
        assert [(item["object_id"], item["after"]["rule"], item["reason"]) for item in events] == [
            (made["key_id"], "team.models", "trial until May")
        ]

    @pytest.mark.parametrize("rule", ["key.strength", "team.organization", "no.such_rule"])
    def test_some_rules_cannot_be_overridden(self, people: People, rule: str) -> None:
        """Asking for it is a mistake: exit 2 before anything is looked at."""
        result = people.cli("generate", "--override", rule, "--reason", "x", "-o", "json")
        assert (result.exit_code, result.stdout) == (2, "")

    def test_others_than_admins_cannot(self, people: People) -> None:
        """A team admin's override is a violation of its own."""
        people.world.change({"team": {"models": ["gpt-4"]}})
        result = people.by(
            "tina",
            *("generate", "--team", "web", "--models", "o3"),
            *("--override", "team.models", "--reason", "x", "-o", "json"),
        )
        assert result.exit_code == 4
        assert {item["rule"] for item in result.error["violations"]} >= {
            "team.models",
            "caller.override",
        }


HOOKS = """
import asyncio, os, sys

print("imported")

def allow(request, caller):
    assert request.key is None, "a hook never sees a key string"
    return {"decision": request.max_budget is not None and caller.role == "proxy_admin"}

def deny(request, caller):
    return {"decision": False, "message": "ask the platform team"}

def say_nothing(request, caller):
    return {"message": "hm"}

def say_yes_as_text(request, caller):
    return {"decision": "true"}

def fail(request, caller):
    raise RuntimeError(str(request))

def leave(request, caller):
    sys.exit(0)

def give_in(request, caller):
    raise BaseException(request)

def talk(request, caller):
    print("printed")
    os.system("echo echoed")
    os.write(1, b"written")
    sys.__stdout__.write("buffered")
    return {"decision": True}

def fork(request, caller):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return {"decision": True}

async def allow_later(request, caller):
    await asyncio.sleep(0)
    return {"decision": True}

async def hang(request, caller):
    await asyncio.sleep(60)
"""


class TestHook:
    @pytest.fixture(autouse=True)
    def _installed(self, cli: Cli) -> None:
        """The hooks' module is where Python finds it."""
        (cli.home / "acme_hooks.py").write_text(HOOKS)
        cli.environment["PYTHONPATH"] = str(cli.home)

    def ask(self, cli: Cli, name: str) -> Any:
        """Generate a key with this hook configured."""
        cli.configure(
            f'bcrypt_cost = 4\ncustom_key_generate = "acme_hooks:{name}"\n'
            'custom_key_generate_timeout = "1s"\n'
        )
        return cli("generate", "--max-budget", "1", "-o", "json")

    @pytest.mark.parametrize("name", ["allow", "allow_later"])
    def test_a_clear_yes_allows(self, cli: Cli, name: str) -> None:
        """A function or a coroutine that decides True lets the request through."""
        assert self.ask(cli, name).exit_code == 0

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("deny", "ask the platform team"),
            ("say_nothing", "hm"),
            ("say_yes_as_text", "the hook did not allow it"),
            ("fail", "the hook failed: it raised RuntimeError (acme_hooks.py, line 20)"),
            ("leave", "the hook failed: it ended the program"),
            ("give_in", "the hook failed: it raised BaseException (acme_hooks.py, line 26)"),
            ("hang", "the hook failed: no answer in time"),
            ("missing", "the hook failed: its module has no 'missing'"),
        ],
    )
    def test_anything_else_denies(self, cli: Cli, name: str, said: str) -> None:
        """No, nothing clear, a failure, a time-out or no such function: exit 4, on record."""
        result = self.ask(cli, name)

        assert (result.exit_code, result.stdout) == (4, "")
        assert [(item["rule"], item["message"]) for item in result.error["violations"]] == [
            ("hook.custom_key_generate", said)
        ]
        assert cli("list", "-o", "json", check=True).json["keys"] == []
        events = cli("audit", "list", "-o", "json", check=True).json["events"]
        assert [event["action"] for event in events] == ["key_denied"]

    def test_what_a_hook_says_is_no_part_of_the_answer(self, cli: Cli) -> None:
        """stdout is the key and a newline, whichever way the hook prints; stderr has the rest."""
        self.ask(cli, "talk")

        made = cli("generate", check=True)

        assert cli.verdict(made.stdout.removesuffix("\n"))["valid"]
        for word in ("imported", "printed", "echoed", "written", "buffered"):
            assert word in made.stderr

    def test_a_process_that_a_hook_forks_makes_no_key(self, cli: Cli) -> None:
        """Only keyctl itself goes on: one answer, and one key."""
        made = self.ask(cli, "fork").json

        keys = cli("list", "-o", "json", check=True).json["keys"]
        assert [key["key_id"] for key in keys] == [made["key_id"]]

    def test_the_current_folder_is_no_place_for_hooks(self, cli: Cli) -> None:
        """What lies in the folder where keyctl is run is never imported."""
        del cli.environment["PYTHONPATH"]
        assert self.ask(cli, "allow").error["violations"][0]["message"] == (
            "the hook failed: there is no module 'acme_hooks'"
        )


class TestPolicyDocuments:
    @pytest.mark.parametrize(
        "document",
        [
            "",
            "[]",
            '{"max_key": 3}',
            '{"max_keys": -1}',
            '{"max_keys": 3, "max_keys": 4}',
            '{"key_alias_pattern": "("}',
            '{"max_rotation_interval": "30days"}',
            '{"upperbound_key_generate_params": {"max_budget": "nan"}}',
            '{"allowed_team_member_roles": ["king"]}',
        ],
    )
    def test_a_malformed_one_never_replaces_the_good_one(self, cli: Cli, document: str) -> None:
        """Exit 2, and the team keeps the policy that it had."""
        cli("team", "create", "web", check=True)
        cli("team", "update", "web", "--policy", "-", input='{"max_keys": 3}', check=True)

        result = cli("team", "update", "web", "--policy", "-", "-o", "json", input=document)

        assert (result.exit_code, result.stdout) == (2, "")
        shown = cli("team", "info", "web", "-o", "json", check=True).json
        assert shown["policy"] == {"max_keys": 3}

    def test_a_misspelt_name_is_told_with_the_nearest(self, cli: Cli) -> None:
        """An unknown name in a policy is an error that names the nearest known one."""
        cli("team", "create", "web", check=True)
        result = cli("team", "update", "web", "--policy", "-", "-o", "json", input='{"max_key": 3}')
        assert "max_keys" in result.stderr


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ("--team", "team_not_found"),
        ("--user", "user_not_found"),
        ("--org", "organization_not_found"),
    ],
)
def test_an_unknown_owner_is_exit_3(cli: Cli, option: str, code: str) -> None:
    """A team, user or organization that does not exist is named, with where to look."""
    result = cli("generate", option, "nowhere", "-o", "json")
    assert (result.exit_code, result.stdout, result.error["code"]) == (3, "", code)
    assert "nowhere" in result.error["message"]
    assert result.error["hint"]
