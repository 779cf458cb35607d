"""Map LiteLLM's groups of models.  Pure."""

from keyctl.fields import Name, Strict, validate
from keyctl.litellm.values import Row, decoded


class MappedGroup(Strict):
    """A group of models: keys and teams name it by its id."""

    access_group_id: Name
    access_model_names: list[Name] | None = None


def map_group(row: Row) -> MappedGroup:
    """Return the group of a row.

    Raises:
        UnmappableRowError, MalformedRequestError: It has no equal here.
    """
    whole = decoded(row)
    document = {name: whole.get(name) for name in MappedGroup.model_fields}
    return validate(MappedGroup, document, what="the row")
