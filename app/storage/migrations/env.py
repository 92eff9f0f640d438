"""What Alembic runs around the steps; the connection comes from `app.storage.database`."""

from alembic import context

from app.storage.tables import Table


def run_migrations() -> None:
    """Run all steps inside the transaction that the caller began."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=Table.metadata,
        compare_type=True,
        render_as_batch=True,  # SQLite changes a table by making it anew
    )
    context.run_migrations()


if __name__ == "env_py":  # the name that Alembic gives this file; importing it does nothing
    run_migrations()
