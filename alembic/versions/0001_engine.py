"""The engine's tables, and row-level security on every one of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


TENANT_ROLE = "parley_tenant"
WORKSPACE = "nullif(current_setting('app.workspace', true), '')::uuid"


def add_workspace_net() -> None:
    """Make the tenant role and the policies behind `Database.transaction(workspace)`.

    Roles belong to the cluster: another database of it may make the same one at the same moment, and a
    user without CREATEROLE goes on without the net (`parley doctor` says so).
    """
    op.execute(f"""
        do $$ begin
            create role {TENANT_ROLE} nologin;
        exception when duplicate_object or unique_violation or insufficient_privilege then null;
        end $$
    """)
    tables = "select c.oid::regclass from pg_class c where relnamespace = 'public'::regnamespace and relkind = 'r'"
    op.execute(f"""
        do $$ declare tab regclass; own text; begin
            for tab in {tables} and relname <> 'alembic_version' loop
                execute format('alter table %s enable row level security', tab);
                own := case tab::text
                    when 'workers' then 'true'
                    when 'workspaces' then 'id = {WORKSPACE.replace("'", "''")}'
                    else 'workspace_id = {WORKSPACE.replace("'", "''")}' end;
                execute format('create policy workspace on %s using (%s)', tab, own);
            end loop;
        end $$
    """)
    op.execute(f"""
        do $$ begin
            if exists (select from pg_roles where rolname = '{TENANT_ROLE}') then
                grant usage on schema public to {TENANT_ROLE};
                grant select, insert, update, delete on all tables in schema public to {TENANT_ROLE};
                revoke update, delete on audit from {TENANT_ROLE};
                revoke insert, update, delete on workers, workspaces from {TENANT_ROLE};
                alter default privileges in schema public
                    grant select, insert, update, delete on tables to {TENANT_ROLE};
                begin
                    execute format('grant {TENANT_ROLE} to %I', current_user);
                exception when insufficient_privilege or unique_violation then null;
                end;
            end if;
        end $$
    """)


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "audit",
        sa.Column("principal_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject_kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_workspace_id_id"), "audit", ["workspace_id", "id"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("principal_id", sa.Uuid(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_sha256", sa.Text(), nullable=False),
        sa.Column("resource_kind", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "principal_id", "route", "key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"], unique=False)
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("slots", sa.BigInteger(), nullable=False),
        sa.Column("running", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "workspaces",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
        sa.UniqueConstraint("name", name=op.f("uq_workspaces_name")),
    )
    op.create_table(
        "agents",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("published_version", sa.BigInteger(), nullable=False),
        sa.Column("latest_version", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_agents_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_agents_workspace_id_id")),
    )
    op.create_index(
        "uq_agents_name",
        "agents",
        ["workspace_id", "name"],
        unique=True,
        postgresql_where=sa.text("deleted_at is null"),
    )
    op.create_table(
        "principals",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("slack_user_id", sa.Text(), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind in ('key', 'user', 'system')", name=op.f("ck_principals_kind")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_principals_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_principals")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_principals_workspace_id_id")),
    )
    op.create_table(
        "tools",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("published_version", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_tools_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tools")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_tools_workspace_id_id")),
    )
    op.create_index(
        "uq_tools_name", "tools", ["workspace_id", "name"], unique=True, postgresql_where=sa.text("deleted_at is null")
    )
    op.create_table(
        "agent_versions",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("spec", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "agent_id"],
            ["agents.workspace_id", "agents.id"],
            name=op.f("fk_agent_versions_workspace_id_agent_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("agent_id", "version", name=op.f("pk_agent_versions")),
    )
    op.create_table(
        "api_keys",
        sa.Column("principal_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "principal_id"],
            ["principals.workspace_id", "principals.id"],
            name=op.f("fk_api_keys_workspace_id_principal_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_api_keys_secret_sha256")),
    )
    op.create_table(
        "tasks",
        sa.Column("task_type", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("agent_version", sa.BigInteger(), nullable=True),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("paused_reason", sa.Text(), nullable=True),
        sa.Column("schedule_expression", sa.Text(), nullable=True),
        sa.Column("interval_seconds", sa.BigInteger(), nullable=True),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("timezone", sa.Text(), server_default=sa.text("'UTC'"), nullable=False),
        sa.Column("overlap", sa.Text(), server_default=sa.text("'skip'"), nullable=False),
        sa.Column("catch_up", sa.Text(), server_default=sa.text("'latest'"), nullable=False),
        sa.Column("catch_up_window_seconds", sa.BigInteger(), server_default=sa.text("86400"), nullable=False),
        sa.Column("jitter_seconds", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("auto_pause_after", sa.BigInteger(), nullable=True),
        sa.Column("next_fire_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("consecutive_failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("trigger_config", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("notification_config", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("input", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("context_data", sa.JSON(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("conversation", sa.Text(), server_default=sa.text("'new'"), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("concurrency_key", sa.Text(), nullable=True),
        sa.Column("concurrency_limit", sa.BigInteger(), nullable=True),
        sa.Column("priority", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("retry", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("timeout_seconds", sa.Double(), nullable=True),
        sa.Column("queue_timeout_seconds", sa.Double(), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("budget", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("catch_up in ('latest', 'none', 'all')", name=op.f("ck_tasks_catch_up")),
        sa.CheckConstraint("conversation in ('new', 'same')", name=op.f("ck_tasks_conversation")),
        sa.CheckConstraint("overlap in ('skip', 'queue', 'interrupt', 'allow')", name=op.f("ck_tasks_overlap")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "agent_id"],
            ["agents.workspace_id", "agents.id"],
            name=op.f("fk_tasks_workspace_id_agent_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_tasks_workspace_id_id")),
    )
    op.create_index(
        "ix_tasks_due",
        "tasks",
        ["next_fire_at"],
        unique=False,
        postgresql_where=sa.text("enabled and deleted_at is null and next_fire_at is not null"),
    )
    op.create_table(
        "tool_versions",
        sa.Column("tool_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("spec", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "tool_id"],
            ["tools.workspace_id", "tools.id"],
            name=op.f("fk_tool_versions_workspace_id_tool_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tool_id", "version", name=op.f("pk_tool_versions")),
    )
    op.create_table(
        "conversations",
        sa.Column("pattern_type", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("agent_version", sa.BigInteger(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("trusted", sa.Boolean(), nullable=False),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("parent_run_id", sa.Uuid(), nullable=True),
        sa.Column("root_id", sa.Uuid(), nullable=False),
        sa.Column("depth", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("fire_id", sa.Uuid(), nullable=True),
        sa.Column("forked_from_id", sa.Uuid(), nullable=True),
        sa.Column("forked_at_seq", sa.BigInteger(), nullable=True),
        sa.Column("correlation_key", sa.Text(), nullable=True),
        sa.Column("context_data", sa.JSON(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("on_message", sa.Text(), server_default=sa.text("'enqueue'"), nullable=False),
        sa.Column("budget", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "on_message in ('enqueue', 'reject', 'interrupt', 'steer')", name=op.f("ck_conversations_on_message")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "agent_id"],
            ["agents.workspace_id", "agents.id"],
            name=op.f("fk_conversations_workspace_id_agent_id"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "task_id"],
            ["tasks.workspace_id", "tasks.id"],
            name=op.f("fk_conversations_workspace_id_task_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversations")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_conversations_workspace_id_id")),
    )
    op.create_index(
        op.f("ix_conversations_parent_id"),
        "conversations",
        ["parent_id"],
        unique=False,
        postgresql_where=sa.text("parent_id is not null"),
    )
    op.create_index(
        op.f("ix_conversations_task_id"),
        "conversations",
        ["task_id"],
        unique=False,
        postgresql_where=sa.text("task_id is not null"),
    )
    op.create_index(
        "uq_conversations_correlation",
        "conversations",
        ["task_id", "correlation_key"],
        unique=True,
        postgresql_where=sa.text("correlation_key is not null"),
    )
    op.create_table(
        "fires",
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("count", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind in ('schedule', 'manual')", name=op.f("ck_fires_kind")),
        sa.CheckConstraint("outcome in ('run', 'skipped', 'missed')", name=op.f("ck_fires_outcome")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "task_id"],
            ["tasks.workspace_id", "tasks.id"],
            name=op.f("fk_fires_workspace_id_task_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fires")),
    )
    op.create_index(op.f("ix_fires_task_id_id"), "fires", ["task_id", "id"], unique=False)
    op.create_index(
        "uq_fires_due", "fires", ["task_id", "due_at"], unique=True, postgresql_where=sa.text("kind = 'schedule'")
    )
    op.create_table(
        "receipts",
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("receipt_key", sa.Text(), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("outcome in ('run', 'duplicate', 'filtered', 'refused')", name=op.f("ck_receipts_outcome")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "task_id"],
            ["tasks.workspace_id", "tasks.id"],
            name=op.f("fk_receipts_workspace_id_task_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipts")),
    )
    op.create_index(op.f("ix_receipts_task_id_id"), "receipts", ["task_id", "id"], unique=False)
    op.create_index(
        "uq_receipts_key",
        "receipts",
        ["task_id", "receipt_key"],
        unique=True,
        postgresql_where=sa.text("receipt_key is not null and outcome in ('run', 'filtered')"),
    )
    op.create_table(
        "task_dependencies",
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("depends_on_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("on_outcome", sa.Text(), server_default=sa.text("'success'"), nullable=False),
        sa.CheckConstraint("on_outcome in ('success', 'any')", name=op.f("ck_task_dependencies_on_outcome")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "depends_on_id"],
            ["tasks.workspace_id", "tasks.id"],
            name=op.f("fk_task_dependencies_workspace_id_depends_on_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "task_id"],
            ["tasks.workspace_id", "tasks.id"],
            name=op.f("fk_task_dependencies_workspace_id_task_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("task_id", "depends_on_id", name=op.f("pk_task_dependencies")),
    )
    op.create_table(
        "deliveries",
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("event_seq", sa.BigInteger(), nullable=True),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("resend_of", sa.Uuid(), nullable=True),
        sa.Column("dedup_key", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state in ('pending', 'sending', 'sent', 'dead', 'suppressed')", name=op.f("ck_deliveries_state")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.id"],
            name=op.f("fk_deliveries_workspace_id_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_lease",
        "deliveries",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("state = 'sending'"),
    )
    op.create_index(op.f("ix_deliveries_run_id"), "deliveries", ["run_id"], unique=False)
    op.create_index(op.f("ix_deliveries_workspace_id_id"), "deliveries", ["workspace_id", "id"], unique=False)
    op.create_index(
        "uq_deliveries_dedup",
        "deliveries",
        ["workspace_id", "dedup_key"],
        unique=True,
        postgresql_where=sa.text("dedup_key is not null"),
    )
    op.create_index(
        "uq_deliveries_event",
        "deliveries",
        ["conversation_id", "event_seq", "channel", "address"],
        unique=True,
        postgresql_where=sa.text("resend_of is null and event_seq is not null"),
    )
    op.create_table(
        "events",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("ref", sa.BigInteger(), nullable=True),
        sa.Column("call_index", sa.BigInteger(), nullable=True),
        sa.Column("payload", sa.JSON(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.id"],
            name=op.f("fk_events_workspace_id_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("conversation_id", "seq", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_run_id_seq"), "events", ["run_id", "seq"], unique=False)
    op.create_table(
        "heads",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'idle'"), nullable=False),
        sa.Column("active_run_id", sa.Uuid(), nullable=True),
        sa.Column("open_runs", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("message_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("run_no", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("requests", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_usd", sa.Numeric(precision=24, scale=12), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.id"],
            name=op.f("fk_heads_workspace_id_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("conversation_id", name=op.f("pk_heads")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "inputs",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("principal_id", sa.Uuid(), nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("source_id", sa.Text(), nullable=True),
        sa.Column("consumed_seq", sa.BigInteger(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind in ('prompt', 'steer', 'answer', 'event')", name=op.f("ck_inputs_kind")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.id"],
            name=op.f("fk_inputs_workspace_id_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inputs")),
    )
    op.create_index(
        op.f("ix_inputs_conversation_id"),
        "inputs",
        ["conversation_id"],
        unique=False,
        postgresql_where=sa.text("consumed_seq is null"),
    )
    op.create_index(op.f("ix_inputs_run_id"), "inputs", ["run_id"], unique=False)
    op.create_index(
        "uq_inputs_source",
        "inputs",
        ["source", "source_id"],
        unique=True,
        postgresql_where=sa.text("source_id is not null"),
    )
    op.create_table(
        "messages",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("format", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("interrupted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_usd", sa.Numeric(precision=24, scale=12), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.id"],
            name=op.f("fk_messages_workspace_id_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("conversation_id", "seq", name=op.f("pk_messages")),
    )
    op.create_index(
        "ix_messages_text",
        "messages",
        [sa.literal_column("to_tsvector('simple', left(text, 20000))")],
        unique=False,
        postgresql_using="gin",
    )
    op.create_table(
        "runs",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("parent_run_id", sa.Uuid(), nullable=True),
        sa.Column("root_run_id", sa.Uuid(), nullable=False),
        sa.Column("retry_of", sa.Uuid(), nullable=True),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("fire_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("waits", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("lane", sa.Text(), server_default=sa.text("'default'"), nullable=False),
        sa.Column("priority", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("queue_deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("timeout_seconds", sa.Double(), nullable=True),
        sa.Column("ran_seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempt", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("retry", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("crash_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("write_no", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_reason", sa.Text(), nullable=True),
        sa.Column("detached", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("agent_version", sa.BigInteger(), nullable=True),
        sa.Column("pins", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("concurrency_key", sa.Text(), nullable=True),
        sa.Column("concurrency_limit", sa.BigInteger(), nullable=True),
        sa.Column("principal_id", sa.Uuid(), nullable=True),
        sa.Column("notification", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("budget", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("output_schema", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("output", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("requests", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_usd", sa.Numeric(precision=24, scale=12), server_default=sa.text("0"), nullable=False),
        sa.Column("cost_unknown", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(finished_at is not null) = (state in ('completed', 'failed', 'cancelled'))", name=op.f("ck_runs_finished")
        ),
        sa.CheckConstraint("(state = 'running') = (lease_until is not null)", name=op.f("ck_runs_lease")),
        sa.CheckConstraint(
            "state in ('queued', 'running', 'waiting', 'completed', 'failed', 'cancelled')", name=op.f("ck_runs_state")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.id"],
            name=op.f("fk_runs_workspace_id_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "task_id"], ["tasks.workspace_id", "tasks.id"], name=op.f("fk_runs_workspace_id_task_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("conversation_id", "number", name=op.f("uq_runs_conversation_id_number")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_runs_workspace_id_id")),
    )
    op.create_index(
        "ix_runs_concurrency",
        "runs",
        ["workspace_id", "concurrency_key"],
        unique=False,
        postgresql_where=sa.text("state = 'running' and concurrency_key is not null"),
    )
    op.create_index(
        "ix_runs_deadline",
        "runs",
        ["deadline_at"],
        unique=False,
        postgresql_where=sa.text("deadline_at is not null and state in ('queued', 'running', 'waiting')"),
    )
    op.create_index(
        "ix_runs_due",
        "runs",
        ["lane", sa.literal_column("priority desc"), "run_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued' and ready"),
    )
    op.create_index(
        "ix_runs_lease", "runs", ["lease_until"], unique=False, postgresql_where=sa.text("state = 'running'")
    )
    op.create_index(
        "ix_runs_live",
        "runs",
        ["workspace_id", "id"],
        unique=False,
        postgresql_where=sa.text("state in ('queued', 'running', 'waiting')"),
    )
    op.create_index(
        op.f("ix_runs_parent_run_id"),
        "runs",
        ["parent_run_id"],
        unique=False,
        postgresql_where=sa.text("parent_run_id is not null"),
    )
    op.create_index(
        "ix_runs_queue_deadline",
        "runs",
        ["queue_deadline"],
        unique=False,
        postgresql_where=sa.text("queue_deadline is not null and state = 'queued'"),
    )
    op.create_index(
        op.f("ix_runs_task_id_id"),
        "runs",
        ["task_id", "id"],
        unique=False,
        postgresql_where=sa.text("task_id is not null"),
    )
    op.create_index(
        "uq_runs_ready",
        "runs",
        ["conversation_id"],
        unique=True,
        postgresql_where=sa.text("ready and state in ('queued', 'running', 'waiting')"),
    )
    op.create_table(
        "tool_calls",
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("message_seq", sa.BigInteger(), nullable=True),
        sa.Column("call_index", sa.BigInteger(), nullable=True),
        sa.Column("sub_index", sa.BigInteger(), server_default=sa.text("0"), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("tool_call_id", sa.Text(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("tool_version", sa.BigInteger(), nullable=True),
        sa.Column("arguments", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("args_sha256", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("idempotent", sa.Boolean(), nullable=False),
        sa.Column("risk", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("artifact_id", sa.Uuid(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_ms", sa.Double(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state in ('proposed', 'started', 'done', 'failed', 'denied', 'unknown')", name=op.f("ck_tool_calls_state")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.id"],
            name=op.f("fk_tool_calls_workspace_id_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tool_calls")),
        sa.UniqueConstraint("conversation_id", "message_seq", "call_index", "sub_index", name="uq_tool_calls_effect"),
    )
    op.create_index(op.f("ix_tool_calls_run_id"), "tool_calls", ["run_id"], unique=False)
    op.create_table(
        "approvals",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=True),
        sa.Column("arguments", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("args_sha256", sa.Text(), nullable=True),
        sa.Column("risk", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("on_expiry", sa.Text(), server_default=sa.text("'tell'"), nullable=False),
        sa.Column("decision", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("decided_by", sa.Uuid(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind in ('tool', 'budget', 'effect', 'question')", name=op.f("ck_approvals_kind")),
        sa.CheckConstraint("on_expiry in ('tell', 'fail')", name=op.f("ck_approvals_on_expiry")),
        sa.CheckConstraint(
            "state in ('pending', 'approved', 'denied', 'expired', 'cancelled')", name=op.f("ck_approvals_state")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.id"],
            name=op.f("fk_approvals_workspace_id_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "run_id"],
            ["runs.workspace_id", "runs.id"],
            name=op.f("fk_approvals_workspace_id_run_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_approvals_workspace_id_id")),
    )
    op.create_index(
        "ix_approvals_expiry", "approvals", ["expires_at"], unique=False, postgresql_where=sa.text("state = 'pending'")
    )
    op.create_index(
        "uq_approvals_pending",
        "approvals",
        ["run_id", "kind", "subject"],
        unique=True,
        postgresql_where=sa.text("state = 'pending'"),
    )
    add_workspace_net()


def downgrade() -> None:
    """Take it back."""
    op.drop_index("uq_approvals_pending", table_name="approvals", postgresql_where=sa.text("state = 'pending'"))
    op.drop_index("ix_approvals_expiry", table_name="approvals", postgresql_where=sa.text("state = 'pending'"))
    op.drop_table("approvals")
    op.drop_index(op.f("ix_tool_calls_run_id"), table_name="tool_calls")
    op.drop_table("tool_calls")
    op.drop_index(
        "uq_runs_ready",
        table_name="runs",
        postgresql_where=sa.text("ready and state in ('queued', 'running', 'waiting')"),
    )
    op.drop_index(op.f("ix_runs_task_id_id"), table_name="runs", postgresql_where=sa.text("task_id is not null"))
    op.drop_index(
        "ix_runs_queue_deadline",
        table_name="runs",
        postgresql_where=sa.text("queue_deadline is not null and state = 'queued'"),
    )
    op.drop_index(
        op.f("ix_runs_parent_run_id"), table_name="runs", postgresql_where=sa.text("parent_run_id is not null")
    )
    op.drop_index(
        "ix_runs_live", table_name="runs", postgresql_where=sa.text("state in ('queued', 'running', 'waiting')")
    )
    op.drop_index("ix_runs_lease", table_name="runs", postgresql_where=sa.text("state = 'running'"))
    op.drop_index("ix_runs_due", table_name="runs", postgresql_where=sa.text("state = 'queued' and ready"))
    op.drop_index(
        "ix_runs_deadline",
        table_name="runs",
        postgresql_where=sa.text("deadline_at is not null and state in ('queued', 'running', 'waiting')"),
    )
    op.drop_index(
        "ix_runs_concurrency",
        table_name="runs",
        postgresql_where=sa.text("state = 'running' and concurrency_key is not null"),
    )
    op.drop_table("runs")
    op.drop_index("ix_messages_text", table_name="messages", postgresql_using="gin")
    op.drop_table("messages")
    op.drop_index("uq_inputs_source", table_name="inputs", postgresql_where=sa.text("source_id is not null"))
    op.drop_index(op.f("ix_inputs_run_id"), table_name="inputs")
    op.drop_index(
        op.f("ix_inputs_conversation_id"), table_name="inputs", postgresql_where=sa.text("consumed_seq is null")
    )
    op.drop_table("inputs")
    op.drop_table("heads")
    op.drop_index(op.f("ix_events_run_id_seq"), table_name="events")
    op.drop_table("events")
    op.drop_index(
        "uq_deliveries_event",
        table_name="deliveries",
        postgresql_where=sa.text("resend_of is null and event_seq is not null"),
    )
    op.drop_index("uq_deliveries_dedup", table_name="deliveries", postgresql_where=sa.text("dedup_key is not null"))
    op.drop_index(op.f("ix_deliveries_workspace_id_id"), table_name="deliveries")
    op.drop_index(op.f("ix_deliveries_run_id"), table_name="deliveries")
    op.drop_index("ix_deliveries_lease", table_name="deliveries", postgresql_where=sa.text("state = 'sending'"))
    op.drop_index("ix_deliveries_due", table_name="deliveries", postgresql_where=sa.text("state = 'pending'"))
    op.drop_table("deliveries")
    op.drop_table("task_dependencies")
    op.drop_index(
        "uq_receipts_key",
        table_name="receipts",
        postgresql_where=sa.text("receipt_key is not null and outcome in ('run', 'filtered')"),
    )
    op.drop_index(op.f("ix_receipts_task_id_id"), table_name="receipts")
    op.drop_table("receipts")
    op.drop_index("uq_fires_due", table_name="fires", postgresql_where=sa.text("kind = 'schedule'"))
    op.drop_index(op.f("ix_fires_task_id_id"), table_name="fires")
    op.drop_table("fires")
    op.drop_index(
        "uq_conversations_correlation",
        table_name="conversations",
        postgresql_where=sa.text("correlation_key is not null"),
    )
    op.drop_index(
        op.f("ix_conversations_task_id"), table_name="conversations", postgresql_where=sa.text("task_id is not null")
    )
    op.drop_index(
        op.f("ix_conversations_parent_id"),
        table_name="conversations",
        postgresql_where=sa.text("parent_id is not null"),
    )
    op.drop_table("conversations")
    op.drop_table("tool_versions")
    op.drop_index(
        "ix_tasks_due",
        table_name="tasks",
        postgresql_where=sa.text("enabled and deleted_at is null and next_fire_at is not null"),
    )
    op.drop_table("tasks")
    op.drop_table("api_keys")
    op.drop_table("agent_versions")
    op.drop_index("uq_tools_name", table_name="tools", postgresql_where=sa.text("deleted_at is null"))
    op.drop_table("tools")
    op.drop_table("principals")
    op.drop_index("uq_agents_name", table_name="agents", postgresql_where=sa.text("deleted_at is null"))
    op.drop_table("agents")
    op.drop_table("workspaces")
    op.drop_table("workers")
    op.drop_index(op.f("ix_idempotency_created_at"), table_name="idempotency")
    op.drop_table("idempotency")
    op.drop_index(op.f("ix_audit_workspace_id_id"), table_name="audit")
    op.drop_table("audit")
