from llamakit.tables import grid  # noqa: F401
