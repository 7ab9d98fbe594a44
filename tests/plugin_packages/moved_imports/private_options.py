from llamakit.options import model_options  # noqa: F401
