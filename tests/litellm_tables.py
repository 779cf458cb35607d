"""LiteLLM's tables as its 1.109 has them, in a database of their own; no gateway runs."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import JSON

from keyctl.db.urls import parse_url

TEXTS = ARRAY(Text).with_variant(JSON(), "sqlite")
DOCUMENT = JSONB().with_variant(JSON(), "sqlite")
KINDS: dict[str, Any] = {
    "text": Text,
    "texts": TEXTS,
    "json": DOCUMENT,
    "time": DateTime,
    "float": Double,
    "int": Integer,
    "bigint": BigInteger,
    "bool": Boolean,
}
COLUMNS = {
    "LiteLLM_VerificationToken": """
        token:text key_name:text key_alias:text soft_budget_cooldown:bool spend:float
        total_spend:float expires:time models:texts aliases:json config:json router_settings:json
        user_id:text team_id:text agent_id:text project_id:text permissions:json
        max_parallel_requests:int metadata:json blocked:bool tpm_limit:bigint rpm_limit:bigint
        tpd_limit:bigint max_budget:float budget_duration:text budget_reset_at:time
        allowed_cache_controls:texts allowed_routes:texts policies:texts access_group_ids:texts
        model_spend:json model_max_budget:json budget_fallbacks:json budget_id:text
        organization_id:text object_permission_id:text created_at:time created_by:text
        updated_at:time updated_by:text settings_updated_at:time last_active:time
        rotation_count:int auto_rotate:bool rotation_interval:text last_rotation_at:time
        key_rotation_at:time budget_limits:json key_type:text""",
    "LiteLLM_DeprecatedVerificationToken": """
        id:text token:text active_token_id:text revoke_at:time created_at:time""",
    "LiteLLM_TeamTable": """
        team_id:text team_alias:text organization_id:text object_permission_id:text admins:texts
        members:texts members_with_roles:json metadata:json max_budget:float soft_budget:float
        spend:float models:texts max_parallel_requests:int tpm_limit:bigint rpm_limit:bigint
        tpd_limit:bigint budget_duration:text budget_reset_at:time blocked:bool created_at:time
        updated_at:time model_spend:json model_max_budget:json router_settings:json
        team_member_permissions:texts access_group_ids:texts policies:texts
        default_team_member_models:texts budget_limits:json model_id:int
        allow_team_guardrail_config:bool""",
    "LiteLLM_UserTable": """
        user_id:text user_alias:text team_id:text sso_user_id:text organization_id:text
        object_permission_id:text password:text teams:texts user_role:text max_budget:float
        spend:float user_email:text models:texts metadata:json max_parallel_requests:int
        tpm_limit:bigint rpm_limit:bigint tpd_limit:bigint budget_duration:text
        budget_reset_at:time allowed_cache_controls:texts policies:texts model_spend:json
        model_max_budget:json created_at:time updated_at:time""",
    "LiteLLM_OrganizationTable": """
        organization_id:text organization_alias:text budget_id:text metadata:json models:texts
        spend:float model_spend:json object_permission_id:text created_at:time created_by:text
        updated_at:time updated_by:text""",
    "LiteLLM_OrganizationMembership": """
        user_id:text organization_id:text user_role:text spend:float budget_id:text
        created_at:time updated_at:time""",
    "LiteLLM_TeamMembership": "user_id:text team_id:text spend:float budget_id:text",
    "LiteLLM_BudgetTable": """
        budget_id:text max_budget:float soft_budget:float max_parallel_requests:int
        tpm_limit:bigint rpm_limit:bigint tpd_limit:bigint model_max_budget:json
        budget_duration:text budget_reset_at:time allowed_models:texts created_at:time
        created_by:text updated_at:time updated_by:text""",
    "LiteLLM_ObjectPermissionTable": """
        object_permission_id:text mcp_servers:texts mcp_access_groups:texts
        mcp_tool_permissions:json vector_stores:texts agents:texts agent_access_groups:texts
        models:texts blocked_tools:texts mcp_toolsets:texts search_tools:texts""",
    "LiteLLM_AccessGroupTable": """
        access_group_id:text access_group_name:text access_model_names:texts""",
}
SHORT = {
    "keys": "LiteLLM_VerificationToken",
    "grace": "LiteLLM_DeprecatedVerificationToken",
    "teams": "LiteLLM_TeamTable",
    "users": "LiteLLM_UserTable",
    "organizations": "LiteLLM_OrganizationTable",
    "members": "LiteLLM_OrganizationMembership",
    "team_members": "LiteLLM_TeamMembership",
    "budgets": "LiteLLM_BudgetTable",
    "permissions": "LiteLLM_ObjectPermissionTable",
    "groups": "LiteLLM_AccessGroupTable",
}
# LiteLLM writes these where nothing is said, not NULL.
FILLED: dict[str, Any] = {"texts": [], "json": {}}
NULLABLE = ("mcp_tool_permissions", "budget_limits")

METADATA = MetaData()


def _table(name: str) -> Table:
    pairs = [item.split(":") for item in COLUMNS[name].split()]
    return Table(
        name,
        METADATA,
        *(
            Column(
                column,
                KINDS[kind],
                default=None if column in NULLABLE else FILLED.get(kind),
            )
            for column, kind in pairs
        ),
    )


TABLES = {short: _table(name) for short, name in SHORT.items()}


class LiteLLM:
    """A database with LiteLLM's tables, to be filled and read back."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = create_engine(parse_url(url).url)
        METADATA.create_all(self.engine)

    def add(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Insert rows; names that a row leaves out hold what LiteLLM writes there."""
        with self.engine.begin() as connection:
            for row in rows:
                connection.execute(insert(TABLES[table]), dict(row))

    def keys(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Insert many keys that name the same columns."""
        with self.engine.begin() as connection:
            connection.execute(insert(TABLES["keys"]), [dict(row) for row in rows])

    def execute(self, statement: str) -> None:
        """Change the schema, as another version of LiteLLM would."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    def everything(self) -> dict[str, list[Any]]:
        """Return all rows of all tables."""
        with self.engine.connect() as connection:
            return {
                short: sorted(repr(tuple(row)) for row in connection.execute(select(table)))
                for short, table in TABLES.items()
            }


def digest(text: str) -> str:
    """Return what LiteLLM stores of a key string."""
    return hashlib.sha256(text.encode()).hexdigest()


def key(text: str, **columns: Any) -> dict[str, Any]:
    """Return a row of the key table for the key string *text*."""
    made_at = datetime(2029, 6, 1, 8, 30, tzinfo=UTC).replace(tzinfo=None)
    return {"token": digest(text), "created_at": made_at, "spend": 0.0, **columns}
