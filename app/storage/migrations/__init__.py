"""The history of the database, one file a step, run by Alembic at every start."""
