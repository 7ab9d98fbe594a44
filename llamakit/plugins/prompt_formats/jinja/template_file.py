"""Where a chat template is, and which tokens it calls BOS, EOS and so on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamakit.errors import FileFormatError, UnknownNameError, UsageError
from llamakit.files.home_folder import expand_home
from llamakit.files.json_reader import read_json_file
from llamakit.files.regular_file import open_regular
from llamakit.files.text import as_utf8

if TYPE_CHECKING:
    from llamakit.protocols import Tokenizer

CONFIG = "tokenizer_config.json"
TEMPLATE_FILES = ("chat_template.jinja", CONFIG, "chat_template.json")
"""Where transformers keeps templates, in the order that it looks."""
LARGEST = 4_000_000
"""Bytes that a file may have: templates have thousands."""


@dataclass(frozen=True)
class TemplateFile:
    """A chat template as its file says it.

    Args:
        tokens: what the file calls ``bos_token``, ``eos_token`` and so on, by that name.
    """

    path: Path
    text: str
    tokens: Mapping[str, str]


def find(tokenizer: Tokenizer, file: str | None, template: str) -> TemplateFile:
    """Read a chat template.

    Args:
        file: None looks in the tokenizer's own file, or next to it.
        template: which one, where the file names several.
    Raises:
        UsageError: there is no such file, or none next to the tokenizer.
        FileFormatError: the file holds no template.
        UnknownNameError: no template of that name.
    """
    folder = tokenizer.path.parent
    if file is not None:
        path = expand_home(file)
        if not path.exists():
            raise UsageError(f"{path}: no such file to read a chat template from")
        text = _template(path, template)
        if text is None:
            raise FileFormatError(f"{path} has no chat_template: give a file that has one")
        return TemplateFile(path, text, _tokens(path, folder))
    if own := getattr(tokenizer, "chat_template", None):
        return TemplateFile(tokenizer.path, own, {})
    for path in (folder / name for name in TEMPLATE_FILES):
        text = _template(path, template) if path.exists() else None
        if text is not None:
            return TemplateFile(path, text, _tokens(path, folder))
    raise UsageError(
        f"no chat template next to {tokenizer.path} ({', '.join(TEMPLATE_FILES)}): name one with "
        "--prompt-format jinja:file=FILE"
    )


def _template(path: Path, wanted: str) -> str | None:
    """Return the template of a file, or None if it is JSON without one."""
    if path.suffix != ".json":
        return _read(path)
    value = _json(path).get("chat_template")
    if value is None or isinstance(value, str):
        return value
    try:
        named = {str(item["name"]): str(item["template"]) for item in value}
    except (TypeError, KeyError) as error:
        raise FileFormatError(
            f"{path}: its chat_template is neither a string nor a list of names and templates"
        ) from error
    if wanted not in named:
        raise UnknownNameError(f"template of {path}", wanted, named)
    return named[wanted]


def _tokens(template: Path, folder: Path) -> dict[str, str]:
    """Read what the config that belongs to a template calls its tokens."""
    places = (template, template.with_name(CONFIG), folder / CONFIG)
    for path in places:
        if path.suffix == ".json" and path.exists():
            values = {
                name: value.get("content") if isinstance(value, dict) else value
                for name, value in _json(path).items()
                if name.endswith("_token")
            }
            if tokens := {name: it for name, it in values.items() if isinstance(it, str)}:
                return tokens
    return {}


def _json(path: Path) -> dict[str, Any]:
    value = read_json_file(path, max_nbytes=LARGEST)
    if not isinstance(value, dict):
        raise FileFormatError(f"{path}: a list or a value; expected an object, as in {CONFIG}")
    return value


def _read(path: Path) -> str:
    with open_regular(path) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise FileFormatError(f"{path} has over {LARGEST} bytes: no chat template is that large")
    try:
        return as_utf8(data).decode()
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not UTF-8 text: {error.reason}") from error
