"""A saved conversation: a JSON file."""

from __future__ import annotations

import json
from pathlib import Path

from llamakit.cli.chat.conversation import Conversation
from llamakit.errors import DestinationError, FileFormatError
from llamakit.files.atomic_file import write_atomically
from llamakit.files.json_reader import read_json_file
from llamakit.llama.prompts import check_dialog

FORMAT = "llamakit chat 1"


def save(conversation: Conversation, path: Path, *, mode: int = 0o666) -> None:
    """Write a conversation atomically.

    Args:
        mode: of a file that is not there yet, less the umask.
    Raises:
        FileFormatError: the file exists and is no saved conversation.
        DestinationError: there is no folder to write it in, or another user's link is there.
        OSError: it cannot be written.
    """
    if path.exists():
        load(path)  # never overwrite anything else
    content = {"format": FORMAT, "messages": conversation.dialog()}
    if not path.parent.is_dir():
        raise DestinationError(f"there is no folder {path.parent} to save {path.name} in")
    text = json.dumps(content, ensure_ascii=False, indent=2)
    write_atomically(path, f"{text}\n".encode(), mode=mode)


def load(path: Path) -> Conversation:
    """Read a conversation.

    Raises:
        FileFormatError: the file is no saved conversation.
    """
    if not path.exists():
        raise FileFormatError(f"there is no file {path} to load; /save FILE writes one")
    content = read_json_file(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileFormatError(f'{path} is no saved conversation: expected "format": "{FORMAT}"')
    messages = list(check_dialog(content.get("messages"), str(path)))
    system = None
    if messages and messages[0]["role"] == "system":
        system = messages.pop(0)["content"]
    for number, message in enumerate(messages):
        if message["role"] != ("assistant" if number % 2 else "user"):
            raise FileFormatError(f"{path}: user and assistant have to speak in turn")
    if len(messages) % 2:
        raise FileFormatError(f"{path}: the last message has no answer")
    return Conversation(system, messages)
