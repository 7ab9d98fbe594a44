"""Reads the signed link: from an option, a file, the environment, or a prompt without echo."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from llamakit.cli.terminal import note
from llamakit.download.exposure import exposure
from llamakit.download.link import INSTRUCTIONS, MAX_NBYTES, IncompleteLinkError, Link, read_link
from llamakit.download.link_policy import format_utc
from llamakit.errors import LinkError, LlamakitError, UsageError
from llamakit.files.text import as_utf8

VARIABLE = "LLAMAKIT_URL"


def passed_link(url: str | None, url_file: str | None) -> str | None:
    """Return the link as it was passed; None if it was not."""
    if url is not None and url_file is not None:
        raise UsageError("--url and --url-file both pass a link: use one of them")
    if url is not None:
        note(
            "--url puts the link into the shell's history and the process list, where others may "
            f"read it; next time use --url-file, {VARIABLE} or the prompt"
        )
        return url
    if url_file == "-":
        return sys.stdin.read(MAX_NBYTES + 1)
    if url_file is not None:
        return _link_in(url_file)
    return os.environ.get(VARIABLE) or None


def _text(data: bytes) -> str:
    try:
        data = as_utf8(data)
    except UnicodeDecodeError:
        raise LinkError(f"the text is in no encoding that is known. {INSTRUCTIONS}") from None
    return data.decode("utf-8", "replace")[: MAX_NBYTES + 1]


def _link_in(url_file: str) -> str:
    try:
        with Path(url_file).open("rb") as file:  # which may be a pipe's end
            return _text(file.read(4 * MAX_NBYTES + 4))
    except OSError as error:
        if any(sign in url_file for sign in ("://", "%2F", "Policy=")):
            raise LinkError(
                f"--url-file takes the name of a file, not the link itself. {INSTRUCTIONS}"
            ) from None
        raise UsageError(f"--url-file: {url_file} cannot be read: {error.strerror}") from None


def ask_for_link(title: str = "Link") -> str:
    """Ask for the link without echo; it may be wrapped over several lines."""
    if not is_interactive():
        raise UsageError(f"no link was given. {INSTRUCTIONS}")
    try:
        from llamakit.cli.hidden_input import ask_hidden
    except ImportError:  # Windows has no termios: one line, which its console does not cut
        import getpass

        return getpass.getpass(f"{title} (it is not shown): ")
    try:
        return ask_hidden(f"{title} (it is not shown)", _missing_part, MAX_NBYTES)
    except EOFError:
        raise click.Abort from None


def _missing_part(text: str) -> str | None:
    """Return the prompt for the rest of a link, if what was typed is incomplete."""
    try:
        read_link(text)
    except IncompleteLinkError:
        return "The link is incomplete: paste the rest, or press Enter to use it as it is"
    except LlamakitError:
        pass
    return None


def read_checked_link(text: str) -> Link:
    """Read a link, refuse one that has expired, and print when it expires and who can read it."""
    link = read_link(text)
    if warning := exposure(link):
        note(warning)
    if link.policy is not None and link.policy.expires is not None:
        link.policy.check_time()
        note(f"the link is valid until {format_utc(link.policy.expires)}")
    return link


def ask(question: str, **options: Any) -> str:
    """Ask on the terminal, as ``click.prompt``; Ctrl-C stays a ``KeyboardInterrupt``."""
    try:
        return str(click.prompt(question, err=True, **options))
    except click.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def is_interactive() -> bool:
    """Tell whether standard input and standard error are on a terminal (TTY)."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
