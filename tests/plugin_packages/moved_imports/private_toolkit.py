from llamakit.toolkit import default_toolkit  # noqa: F401
