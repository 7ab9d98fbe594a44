"""Recognizes files that are not weights: error pages, Git LFS pointers."""

from __future__ import annotations

import re
from pathlib import Path

from llamakit.files.regular_file import open_regular
from llamakit.printable import printable

HEAD_NBYTES = 4096
"""How much of the start of a file ``describe_not_weights`` needs."""

_PAGE = re.compile(r"<(\?xml|!doctype|!--|html|head|body|error)\b|<!--", re.IGNORECASE)
_LONGEST_WORD = 24
"""A longer one is no word but an address or a key, which may be a secret."""
_LONG = 512
_GGML = "a file of llama.cpp from before GGUF: take the model's .pth or .safetensors files"
_OTHER_FORMATS = {
    (0, b"GGUF"): "a GGUF of llama.cpp: install the package llamakit-gguf, which opens it",
    **{(0, magic): _GGML for magic in (b"ggml", b"ggmf", b"ggjt", b"lmgg", b"fmgg", b"tjgg")},
    (0, b"PK\3\4"): "a zip, such as torch.save writes: give it the ending .pth, or unpack it",
    (257, b"ustar"): "a tar archive: unpack it with tar -xf, and give the folder with the weights",
    (0, b"\x1f\x8b"): "compressed with gzip: unpack it with gunzip or tar -xzf",
    (0, b"BZh"): "compressed with bzip2: unpack it",
    (0, b"\xfd7zXZ"): "compressed with xz: unpack it",
    (0, b"\x28\xb5\x2f\xfd"): "compressed with zstd: unpack it",
    (0, b"7z\xbc\xaf\x27\x1c"): "a 7-Zip archive: unpack it",
    (0, b"Rar!"): "a RAR archive: unpack it",
    (0, b"\x89HDF"): "an HDF5 of Keras: save the weights with torch.save or safetensors",
    (0, b"\x93NUMPY"): "an array of numpy: save the weights with torch.save or safetensors",
    **{
        (0, b"\x80" + bytes([protocol])): (
            "a pickle without torch's zip around it: nothing was run. Save the weights with "
            "torch.save or safetensors"
        )
        for protocol in (2, 3, 4, 5)
    },
}
"""By offset and first bytes: what it is, and what to do."""
_TELLING = (
    re.compile(r"<code>(.{1,80}?)</code>", re.IGNORECASE | re.DOTALL),
    re.compile(r"<title[^>]*>(.{1,80}?)</title>", re.IGNORECASE | re.DOTALL),
    re.compile(r"<h1[^>]*>(.{1,80}?)</h1>", re.IGNORECASE | re.DOTALL),
)


def describe_not_weights(head: bytes) -> str | None:
    """Recognize what is often saved under the name of a file that failed to download.

    Args:
        head: the first bytes of the file, ``HEAD_NBYTES`` or all of it.
    Returns:
        The middle of a sentence, such as ``an XML error page ("AccessDenied")``, or None.
    """
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("version https://git-lfs.github.com/"):
        return _LFS
    if not _PAGE.match(text):
        return None
    kind = "an XML error page" if _is_xml(text) else "an HTML page"
    said = next((match[1] for pattern in _TELLING if (match := pattern.search(text))), "")
    said = " ".join(word for word in said.split() if len(word) <= _LONGEST_WORD)
    said = printable(said)
    return f'{kind} ("{said}")' if said else kind


_LFS = "a Git LFS pointer, not the file it points to"


def remedy(problem: str) -> str:
    """Say what to do about what ``describe_not_weights`` has recognized."""
    if problem == _LFS:
        return "Run git lfs install and git lfs pull in its repository, or download it again."
    return "Download it again."


def describe_other_format(head: bytes) -> str:
    """Recognize the formats of other tools, and torch's under the name of another.

    Args:
        head: the first bytes of the file, ``HEAD_NBYTES`` or all of it.
    Returns:
        What it is and what to do, such as ``a gzip archive: unpack it``; "" if it is unknown.
    """
    if len(head) >= _LONG and not head.strip(b"\0"):
        return "zeros only, as a download that was begun and not finished: download it again"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 30:
        return "a .safetensors under another name: give it the ending .safetensors"
    kinds = ((at, magic) for at, magic in _OTHER_FORMATS if head[at : at + len(magic)] == magic)
    return _OTHER_FORMATS[found] if (found := next(kinds, None)) else ""


def _is_xml(text: str) -> bool:
    return text.lower().startswith(("<?xml", "<error")) and "<html" not in text.lower()


def not_weights(path: Path) -> str | None:
    """Describe a file that is not weights, such as an error page; None for any other file."""
    with open_regular(path) as file:
        head = file.read(HEAD_NBYTES)
    return "an empty file" if not head else describe_not_weights(head)
