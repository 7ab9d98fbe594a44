from llamakit.factories import build  # noqa: F401
