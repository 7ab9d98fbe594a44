"""What installers call llamakit, its version, and what users type to install more of it.

``llamakit`` on PyPI belongs to somebody else: only the import, the command and the entry-point
group have that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__version__ = "0.1.0"

DISTRIBUTION = "llamakit-core"
"""The name in ``pyproject.toml``, and so the distribution of the built-in plugins."""
NAMESAKE = "llamakit"
"""Somebody else's on PyPI. Clones of llamakit 0.1 were installed under it too."""


def install_command(extra: str = "", *, upgrade: bool = False) -> str:
    """Say what installs llamakit the way it has been installed, from a clone or from an index.

    Args:
        extra: one of its extras, such as ``serve``.
        upgrade: to a newer version.
    """
    extras = f"[{extra}]" if extra else ""
    clone = _clone()
    if clone is None:
        option = "--upgrade " if upgrade else ""
        return f"pip install {option}" + (f"'{DISTRIBUTION}{extras}'" if extra else DISTRIBUTION)
    import shlex

    pull = "git pull && " if upgrade else ""
    return f'cd {shlex.quote(str(clone))} && {pull}pip install -c constraints.txt -e ".{extras}"'


def _clone() -> Path | None:
    """Return the folder of the clone that llamakit was installed from, if it still exists."""
    import json
    import pathlib
    from importlib.metadata import distributions
    from urllib.parse import unquote, urlsplit

    # A clone's folder may have an .egg-info too, which does not say where it was installed from.
    installed = [one for one in distributions(name=DISTRIBUTION) if one.read_text("METADATA")]
    text = installed[0].read_text("direct_url.json") if installed else None
    if not installed:  # it runs from the clone's folder
        folder = pathlib.Path(__file__).parents[1]
    elif not text:
        return None
    else:
        origin = json.loads(text)  # noqa: TID251 - pip wrote it
        if "dir_info" not in origin:
            return None
        folder = pathlib.Path(unquote(urlsplit(origin["url"]).path))
    return folder if (folder / "constraints.txt").is_file() else None
