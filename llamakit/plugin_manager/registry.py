"""Names and their values: who registered what, and what happens when two claim one name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from llamakit.errors import PluginError, UnknownNameError
from llamakit.plugin_manager.moved import where_it_is_now

T = TypeVar("T")


class Source(NamedTuple):
    """The plugin that something comes from."""

    name: str
    """Its entry point's name: what ``LLAMAKIT_DISABLE_PLUGINS`` takes."""
    package: str
    """The distribution that brought it: what ``pip uninstall`` takes."""
    version: str
    builtin: bool

    def __str__(self) -> str:
        package = "built in" if self.builtin else f"{self.package} {self.version}".rstrip()
        return f"plugin {self.name!r} ({package})"


class Entry(NamedTuple):
    """One registered thing."""

    kind: str
    name: str
    value: Any
    help: str
    source: Source

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def failure(self, error: BaseException) -> PluginError:
        """Say in one sentence that this thing failed, and whose it is."""
        return PluginError(
            f"the {self} of the {self.source} failed: {in_one_line(error)} "
            "(LLAMAKIT_DEBUG=1 shows where)"
        )

    def breach(self, fault: str) -> PluginError:
        """Say in one sentence that this thing breaks its contract, and whose it is.

        Args:
            fault: what ``llamakit.plugin_manager.contracts`` says is wrong.
        """
        return PluginError(f"the {self} of the {self.source} {fault}: tell its author")


class Registrar(Generic[T]):
    """What a registering hook is called with: it records what the plugin registers.

    Nothing counts until the whole plugin has registered without an error.
    """

    def __init__(self, kind: str, source: Source) -> None:
        self.entries: list[Entry] = []
        self._kind = kind
        self._source = source

    def register(self, name: str, value: T, *, help: str = "") -> None:  # noqa: A002
        """Offer ``value`` under ``name``.

        Args:
            name: what users type, such as ``top-p``.
            value: a factory, a Click command, a catalog entry or an engine: the hook says which.
            help: one line, shown by ``llamakit plugins`` and in ``--help``.
        Raises:
            TypeError: the name is not a string, or empty.
            ValueError: it cannot be typed, or this plugin registered it already.
        """
        if not isinstance(name, str) or not name.strip():
            raise TypeError(f"the name of a {self._kind} is a non-empty string, not {name!r}")
        # After a name there may be options, ``:K=V,K=V``.
        if name[0] == "-" or name.split() != [name] or any(mark in name for mark in ":,="):
            raise ValueError(
                f"nobody could type {name!r} as the name of a {self._kind}: it has to be one word "
                "without : and , and =, and not to begin with -"
            )
        if any(entry.name == name for entry in self.entries):
            raise ValueError(f"the {self._kind} {name!r} is registered twice")
        self.entries.append(Entry(self._kind, name, value, " ".join(help.split()), self._source))


class Registry(Generic[T]):
    """What has been registered of one kind, by name, in the order of registration.

    A built-in keeps its name; third-party plugins that claim one name all lose it.

    Args:
        kind: what an entry is called in messages, such as ``"sampler"``.
        beside: a registry that shares its names with this one: a command and a checkpoint tool
            are typed at the same place, so one name cannot be both.
    """

    def __init__(self, kind: str, beside: Registry[Any] | None = None) -> None:
        self.kind = kind
        self.off: list[str] = []
        """Plugins that are switched off: messages about a name that is unknown mention them."""
        self._claims: dict[str, list[Entry]] = {} if beside is None else beside._claims

    def add(self, entry: Entry) -> None:
        """Take in one entry; whether it keeps its name shows when all are in."""
        self._claims.setdefault(entry.name, []).append(entry)

    def losses(self) -> Iterator[tuple[Entry, str]]:
        """Yield each entry that has lost its name to another, with the reason."""
        for name, claims in self._claims.items():
            holder = _holder(claims)
            for entry in claims:
                if entry.kind == self.kind and entry is not holder:
                    yield entry, (_kept(holder) if holder else _contested(name, claims))

    def entry(self, name: str) -> Entry:
        """Return the entry of that name.

        Raises:
            UnknownNameError: nothing of that name; the message says what was probably meant.
            PluginError: two plugins claim the name.
        """
        claims = self._claims.get(name)
        holder = claims and _holder(claims)
        if claims and not holder:
            raise PluginError(_contested(name, claims))
        if not holder or holder.kind != self.kind:
            known = (entry.name for entry in self)
            raise UnknownNameError(self.kind, name, known, off=self.off)
        return holder

    def get(self, name: str) -> T:
        """Return what is registered under that name. Raises as ``entry`` does."""
        value: T = self.entry(name).value
        return value

    def __iter__(self) -> Iterator[Entry]:
        holders = (_holder(claims) for claims in self._claims.values())
        return (entry for entry in holders if entry and entry.kind == self.kind)

    def __contains__(self, name: object) -> bool:
        return any(entry.name == name for entry in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def in_one_line(error: BaseException) -> str:
    """Write an error as ``Type: message``, without line ends; say where a moved module is."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    now = where_it_is_now(error)
    line = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return f"{line}: {now}" if now else line


def _holder(claims: list[Entry]) -> Entry | None:
    """Return the entry that has the name: a built-in, else the only one, else nobody."""
    for entry in claims:
        if entry.source.builtin:
            return entry
    return claims[0] if len(claims) == 1 else None


def _kept(holder: Entry) -> str:
    return f"the {holder} is built in and keeps its name; the author has to choose another"


def _contested(name: str, claims: list[Entry]) -> str:
    packages = " and ".join(dict.fromkeys(entry.source.package for entry in claims))
    plugins = " or ".join(dict.fromkeys(entry.source.name for entry in claims))
    return (
        f"the {claims[0].kind} {name} is claimed by {packages}: uninstall one, "
        f"or set LLAMAKIT_DISABLE_PLUGINS to {plugins}"
    )
