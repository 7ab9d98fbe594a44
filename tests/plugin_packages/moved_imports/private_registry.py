from llamakit.registry import Registrar  # noqa: F401
