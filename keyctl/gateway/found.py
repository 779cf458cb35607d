"""Show a gateway what the database held of a key that matched."""

from dataclasses import dataclass

from keyctl.records import Key, Member, Organization, Presented, Team, User


@dataclass(frozen=True, slots=True)
class Found:
    """A key and its owners as they were loaded; no hash and nothing else of the secret but its id.

    Times are aware and in UTC.  Money is in whole nano-dollars (a dollar is 1,000,000,000) and is
    what was stored when the key was loaded: what was spent since then counts in verdicts only.
    None stands for an owner that the key does not have, and in a field for no limit.
    """

    secret_id: str
    key: Key
    team: Team | None
    organization: Organization | None
    user: User | None
    member: Member | None

    @classmethod
    def of(cls, presented: Presented) -> "Found":
        """Return what may be shown of *presented*."""
        return cls(
            secret_id=presented.secret.id,
            key=presented.key,
            team=presented.team,
            organization=presented.organization,
            user=presented.user,
            member=presented.member,
        )
