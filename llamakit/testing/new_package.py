"""A new plugin as a package: its files, planned first and then written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from llamakit._distribution import DISTRIBUTION, __version__
from llamakit.checkpoint.atomic_folder import atomic_folder
from llamakit.errors import DestinationError, UsageError

KINDS: dict[str, str] = {
    "sampler": 'llamakit generate --sampler {name} "Once upon a time"',
    "processor": 'llamakit generate --temperature 0 --processor {name} "Once upon a time"',
    "prompt-format": "llamakit generate --prompt-format {name} --prompts dialogs.jsonl",
    "exporter": "llamakit export llama-2-7b/ exported/ --format {name}",
    "checkpoint-tool": "llamakit {name} llama-2-7b/",
    "command": 'llamakit {name} "Once upon a time"',
    "drafter": "llamakit plugins show {name}",
    "observer": 'llamakit generate --observer {name} --json "Once upon a time"',
    "kernel": "llamakit doctor --calibrate",
    "checkpoint-form": "llamakit export llama-2-7b/ exported/ --format {name}",
    "tokenizer": 'llamakit generate --tokenizer tokenizer.{name} "once upon a time"',
    "models": "llamakit plugins show {name}",
}
"""The kinds of plugins there are templates of, and how each is used."""

PREFIX = "llamakit-"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class NewPackage:
    """The files of a package that is to be written."""

    name: str
    """The plugin's, and what it registers."""
    kind: str
    folder: Path
    files: Mapping[str, str]
    """The text of each, by its path below the folder."""

    @property
    def package(self) -> str:
        """What ``pip`` calls it."""
        return f"{PREFIX}{self.name}"

    @property
    def module(self) -> str:
        """What Python imports."""
        return self.package.replace("-", "_")

    def described(self) -> dict[str, object]:
        """Describe it in JSON's terms."""
        return {
            "name": self.name,
            "kind": self.kind,
            "package": self.package,
            "module": self.module,
            "folder": str(self.folder),
            "files": list(self.files),
            "next": self.next_commands,
        }

    @property
    def next_commands(self) -> list[str]:
        """What to type to install it, to test it and to see it."""
        place = os.fspath(self.folder)
        if not self.folder.is_absolute():
            place = os.path.join(".", place)  # noqa: PTH118 - pip wants the ./, Path drops it
        return [
            f'pip install -e "{place}[test]"',
            f'python -m pytest "{place}"' if " " in place else f"python -m pytest {place}",
            f"llamakit plugins show {self.name}",
        ]


def plan_package(name: str, kind: str, parent: Path, taken: Mapping[str, str]) -> NewPackage:
    """Work out the files of a new plugin's package.

    Args:
        name: of the plugin, such as ``nth`` or ``llamakit-nth``.
        kind: one of ``KINDS``.
        parent: the folder that the package's folder is to be made in.
        taken: the names that there are already, and whose each is.

    Raises:
        UsageError: a name that a package cannot have, or that is taken.
    """
    short = name.removeprefix(PREFIX)
    _check_name(name, short)
    if f"{PREFIX}{short}" == DISTRIBUTION:
        raise UsageError(f"{DISTRIBUTION} is llamakit itself; choose another name")
    if short in taken:
        raise UsageError(
            f"the name {short} is taken by {taken[short]}: of two that offer one name, a built-in "
            "keeps it, and two others both lose it; choose another"
        )
    package = NewPackage(short, kind, parent / f"{PREFIX}{short}", {})
    values = {
        "name": short,
        "kind": kind.replace("-", " ") if kind != "models" else "download catalog",
        "article": "An" if kind[0] in "aeiou" else "A",
        "package": package.package,
        "module": package.module,
        "distribution": DISTRIBUTION,
        "versions": _versions(),
        "try_it": KINDS[kind].format(name=short),
    }
    files = {
        target.format(module=package.module): _fill(source, values)
        for target, source in {
            "pyproject.toml": "common/pyproject.toml",
            "README.md": "common/README.md",
            ".gitignore": "common/gitignore",
            "{module}.py": f"{kind}/module.py",
            "tests/test_{module}.py": f"{kind}/test.py",
        }.items()
    }
    return NewPackage(short, kind, package.folder, files)


def write_package(package: NewPackage) -> None:
    """Write the files; the folder is renamed into place when all are written.

    Raises:
        DestinationError: there is something already, or no folder to make it in.
        NoSpaceError: there is no room.
    """
    if os.path.lexists(package.folder):
        raise DestinationError(
            f"{package.folder} exists already and stays as it is; choose another name, or another "
            "place with --output-dir"
        )
    with atomic_folder(package.folder) as folder:
        for name, text in package.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")


def _check_name(name: str, short: str) -> None:
    if _NAME.fullmatch(short) and len(short) <= _LONGEST:
        return
    values = re.findall(r"[a-z0-9]+", short.lower())
    likely = "-".join(values).lstrip("0123456789-")[:_LONGEST].rstrip("-")
    hint = f"; {likely} would do" if likely else ""
    raise UsageError(
        f"{name!r} cannot be the name of a package and a module: lower-case letters and digits, "
        f"with single hyphens between them, a letter first, {_LONGEST} at most{hint}"
    )


def _versions() -> str:
    """Say which llamakits a plugin of today works with: see docs/reference/plugin-stability.md."""
    major, minor = __version__.split(".")[:2]
    return f">={major}.{minor},<{int(major) + 1}"


def _fill(source: str, values: Mapping[str, str]) -> str:
    template = (_TEMPLATES / f"{source}.tmpl").read_text("utf-8")
    return Template(template).substitute(values)
