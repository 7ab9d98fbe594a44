"""The signed link of a download: from an option, the environment, a file, or asked for unseen."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from llamakit.cli.terminal import note
from llamakit.download.link import HOW_TO_GIVE, MAX_NBYTES, CutLinkError, Link, read_link
from llamakit.download.policy import spell
from llamakit.errors import LinkError, LlamakitError, UsageError

VARIABLE = "LLAMAKIT_URL"


def given_link(url: str | None, url_file: str | None) -> str | None:
    """Return the text of the link, if one was given."""
    if url is not None and url_file is not None:
        raise UsageError("--url and --url-file both name a link: give one of them")
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


def _link_in(url_file: str) -> str:
    try:
        with Path(url_file).open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_NBYTES + 1)
    except OSError as error:
        if any(sign in url_file for sign in ("://", "%2F", "Policy=")):
            raise LinkError(
                f"--url-file takes the name of a file, not the link itself. {HOW_TO_GIVE}"
            ) from None
        raise UsageError(f"--url-file: {url_file} cannot be read: {error.strerror}") from None


def ask_for_link(title: str = "Link") -> str:
    """Ask for the link without showing it, in one line or in many."""
    if not is_interactive():
        raise UsageError(f"no link was given. {HOW_TO_GIVE}")
    from llamakit.cli.hidden_input import ask_hidden

    try:
        return ask_hidden(f"{title} (it is not shown)", _rest_of, MAX_NBYTES)
    except EOFError:
        raise click.Abort from None


def _rest_of(text: str) -> str | None:
    """Say that a link goes on, if what was typed is not all of it."""
    try:
        read_link(text)
    except CutLinkError:
        return "The link goes on: paste the rest, or press Enter to leave it so"
    except LlamakitError:
        pass
    return None


def read_checked_link(text: str) -> Link:
    """Read a link, refuse one that has expired, and say until when it is good."""
    link = read_link(text)
    if link.policy is not None and link.policy.ends is not None:
        link.policy.check_time()
        note(f"the link is good until {spell(link.policy.ends)}")
    return link


def ask(question: str, **how: Any) -> str:
    """Ask on the terminal; Ctrl-C is Ctrl-C, which Click tells from no answer by nothing else."""
    try:
        return str(click.prompt(question, err=True, **how))
    except click.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def is_interactive() -> bool:
    """Tell whether a person can be asked: standard input and error are on a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
