"""Whether a model is a base model or was trained on dialogs, which no file of Meta's says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llamakit.checkpoint.family_detection import read_origin

FOLDERS_OF_THE_HUB = ("original", "mp8", "mp16")
"""Where the hub's repositories have Meta's files: the folder above has the model's name."""
_INSTRUCT = re.compile(r"instruct|guard|(?<![a-z])chat(?![a-z])", re.IGNORECASE)
_GUARD = re.compile("guard", re.IGNORECASE)


@dataclass(frozen=True)
class ModelKind:
    """What a model was trained on.

    Args:
        instruct: dialogs; their stop tokens end its answers.
        has_template: it takes dialogs as they are, so that a chat template of the family fits.
        note: a sentence for the user.
    """

    instruct: bool
    has_template: bool
    note: str


def model_kind(path: Path, given: bool | None, *, template: str | None) -> ModelKind:
    """Decide what kind of model a checkpoint is.

    Args:
        path: its folder.
        given: what the user says.
        template: the file that has a chat template of the model's own, if there is one.
    """
    if template is not None and given is not False:
        return ModelKind(True, True, f"an instruct model: {template} has a chat template")
    if given is not None:
        return ModelKind(given, given, f"{_NAMES[given]}, as you say")
    instruct, name = is_instruct(path), _name(path)
    if instruct and _GUARD.search(name):
        note = f"{name} is a Llama Guard, for which no chat template is written"
        return ModelKind(True, False, note)
    other = "--base" if instruct else "--instruct"
    note = f"{_NAMES[instruct]}, by the name of its folder ({name}); {other} says otherwise"
    return ModelKind(instruct, instruct, note)


def is_instruct(path: Path) -> bool:
    """Tell a model that was trained on dialogs by its folder's name, or what llamakit wrote."""
    said = read_origin(path).get("instruct")
    return said if isinstance(said, bool) else _INSTRUCT.search(_name(path)) is not None


def _name(path: Path) -> str:
    """Return the name of a model's folder; that of the repository where the hub's layout is."""
    folder = path.resolve()
    while folder.name in FOLDERS_OF_THE_HUB:
        folder = folder.parent
    return folder.parents[1].name if folder.parent.name == "snapshots" else folder.name


_NAMES = {True: "an instruct model", False: "a base model"}
