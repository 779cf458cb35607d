"""What a million keys cost: a page far in, one key shown, one key verified; on both databases."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from filler import another, filled, servers
from measure import alternate, compare

from keyctl.config.settings import Settings
from keyctl.db.database import Database
from keyctl.db.queries import KeyFilter, list_keys
from keyctl.keystring import KeyString
from keyctl.policy.facts import Caller
from keyctl.records import Key
from keyctl.services.keys.read import KeyService, _cursor
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace

MANY, FEW, PAGE = 1_000_000, 1_000, 100
ROUNDS = 101


def service(database: Database, folder: str) -> KeyService:
    """Return what lists and shows the keys of *database*, for the local operator."""
    return KeyService(
        Workspace(
            database=database,
            settings=Settings(bcrypt_cost=4),
            caller=Caller(actor="local:benchmark", role="proxy_admin"),
            runs_folder=Path(folder),
        )
    )


def far_in(database: Database, pages: int) -> str:
    """Return the cursor behind so many pages, found once by the offset that keyctl never uses."""
    with database.read() as connection:
        begun = datetime.now(UTC) + timedelta(days=1)
        (newest,) = list_keys(connection, KeyFilter(), now=begun, after=None, limit=1)
        assert isinstance(newest, Key)
        moment = newest.created_at - timedelta(seconds=pages * PAGE)
        (behind,) = list_keys(connection, KeyFilter(), now=begun, after=(moment, "key_z"), limit=1)
        assert isinstance(behind, Key)
    return _cursor(behind.created_at, behind.id)


def report(kind: str, url: str, many: int, folder: str) -> None:
    """Print the ratios of one kind of database."""
    large, known = filled(another(url), many)
    small, known_of_few = filled(another(url), FEW)
    listing, listing_of_few = service(large, folder), service(small, folder)
    pages = many * 9 // 10 // PAGE
    cursor = far_in(large, pages)
    few, all_ = f"among {FEW:,}", f"among {many:,}"
    compare(
        f"{kind}: a page of {PAGE} among {many:,} keys",
        alternate(
            {
                "the first": lambda: listing.page(KeyFilter(), after=None, limit=PAGE),
                f"the {pages:,}th": lambda: listing.page(KeyFilter(), after=cursor, limit=PAGE),
            },
            rounds=ROUNDS,
        ),
        "the first",
        1.5,
    )
    compare(
        f"{kind}: info of one key",
        alternate(
            {
                few: lambda: listing_of_few.info(known_of_few.reveal()),
                all_: lambda: listing.info(known.reveal()),
            },
            rounds=ROUNDS,
        ),
        few,
        2,
    )
    compare(
        f"{kind}: verify one key (bcrypt cost 4)",
        alternate(
            {few: lambda: check(small, known_of_few), all_: lambda: check(large, known)},
            rounds=ROUNDS,
        ),
        few,
        2,
    )
    large.engine.dispose()
    small.engine.dispose()


def check(database: Database, key: KeyString) -> None:
    """Verify a key that is valid."""
    assert verify(database, key.reveal()).valid


def main() -> None:
    """Print the ratios for both kinds of database; the argument is how many keys."""
    many = int(sys.argv[1]) if sys.argv[1:] else MANY
    with TemporaryDirectory() as folder, servers() as urls:
        for kind, url in urls.items():
            report(kind, url, many, folder)


if __name__ == "__main__":
    main()
