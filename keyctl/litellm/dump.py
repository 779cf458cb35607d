"""Read keys from the JSON that LiteLLM's ``/key/list`` answers, page by page.  Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyctl.errors import MalformedRequestError
from keyctl.litellm.values import Row


@dataclass(frozen=True, slots=True)
class Dump:
    """A source that has keys only: their owners must be here, or come from the database."""

    pages: Sequence[Sequence[Row]]

    @classmethod
    def of(cls, documents: Iterable[Mapping[str, Any]]) -> "Dump":
        """Return the pages in *documents*.

        Raises:
            MalformedRequestError: One is not a page of whole keys.
        """
        pages = []
        for number, document in enumerate(documents, start=1):
            found = document.get("keys")
            if not isinstance(found, list) or any(not isinstance(row, dict) for row in found):
                raise MalformedRequestError(
                    f"page {number} of the dump holds no list of whole keys in 'keys'",
                    hint="save what /key/list?return_full_object=true answers",
                )
            pages.append(found)
        return cls(pages)

    def count_keys(self) -> int:
        """Return how many keys there are."""
        return sum(len(page) for page in self.pages)

    def users(self) -> Iterator[Row]:
        """Yield nothing: a dump of keys does not tell what its users may do."""
        yield from ()

    def groups(self) -> Iterator[Row]:
        """Yield nothing: what is in a group is told by the database only."""
        yield from ()

    def organizations(self) -> Iterator[Row]:
        """Yield nothing, as for users."""
        yield from ()

    def teams(self) -> Iterator[Row]:
        """Yield nothing, as for users."""
        yield from ()

    def keys(self) -> Iterator[Row]:
        """Yield the keys as they were listed."""
        for page in self.pages:
            for row in page:
                # Some versions of LiteLLM answer with another name for the column.
                whole = {**row, "organization_id": row.get("organization_id") or row.get("org_id")}
                whole.pop("grace", None)  # graces are told by the database only
                yield whole
