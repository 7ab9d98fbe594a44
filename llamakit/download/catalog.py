"""The models that can be downloaded: plugins register them, users name them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.download.link import INSTRUCTIONS, Link
from llamakit.errors import LinkError, PluginError, UnknownNameError, UsageError
from llamakit.plugin_manager.contracts.catalog_entries import catalog_entry_fault
from llamakit.plugin_manager.registry import Entry

ALL = "all"


@dataclass(frozen=True)
class Model:
    """A model of the catalog.

    Args:
        name: the name it is registered under.
        names: other names that users may type.
        folder: its folder on disk, and on the server too if ``server_folders`` is empty.
        server_folders: what it may be called on the server; the first that is there counts.
        files: in its folder, fetched even if the checklist does not list them.
        has_checklist: whether the server has a checklist of its folder.
        unserved_files: which the checklist lists and the server does not have.
        shards: how many ``consolidated.NN.pth`` it should have; the checklist decides.
        shard_nbytes: approximate size of one, for planning, 0 if unknown; the server decides.
        family: such as ``Llama 2``; a link is valid for one.
        hosts: that serve the family with signed links.
        root_files: shared by the models of the family, such as ``LICENSE``, next to the folders.
        tokenizer_files: the tokenizer and its checklist, next to the folders.
        unverified: the fields that nobody has compared with Meta's server.
    """

    name: str
    names: tuple[str, ...]
    folder: str
    server_folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ("params.json",)
    has_checklist: bool = True
    unserved_files: tuple[str, ...] = ()
    shards: int = 1
    shard_nbytes: int = 0
    family: str = ""
    hosts: tuple[str, ...] = ()
    root_files: tuple[str, ...] = ("LICENSE", "USE_POLICY.md")
    tokenizer_files: tuple[str, ...] = ("tokenizer.model", "tokenizer_checklist.chk")
    unverified: tuple[str, ...] = ()

    @property
    def shard_names(self) -> list[str]:
        """The names of the shards that it should have."""
        return [f"consolidated.{number:02d}.pth" for number in range(self.shards)]


def read_catalog(entries: Iterable[Entry]) -> list[Model]:
    """Read what plugins have registered; an invalid entry is skipped with a warning."""
    models = []
    for entry in entries:
        try:
            models.append(_model(entry))
        except PluginError as error:
            logging.getLogger("llamakit").warning("%s; it is skipped", error)
    return models


def choose(names: Sequence[str], catalog: Sequence[Model], link: Link | None) -> list[Model]:
    """Return the models of the given names, each once, in the catalog's order.

    Args:
        names: upper or lower case, several separated by commas, or ``all``: every model of the
            link's family; without a link, every model of a family that has hosts.
        link: None while it is not known.

    Raises:
        UnknownNameError: a name that is not in the catalog.
        LinkError: the link is for another family, or was passed in place of a name.
        UsageError: no model is named, or ``all`` of a server that is not Meta's.
    """
    if any(sign in name for name in names for sign in ("//", "%2F", "?", "=")):
        raise LinkError(f"expected the names of models, found a link. {INSTRUCTIONS}")
    chosen: list[str] = []
    for name in ",".join(names).replace(",", " ").split():
        chosen += _all(catalog, link) if _plain(name) == ALL else [_find(name, catalog)]
    models = [model for model in catalog if model.name in chosen]
    if link is not None:
        check_family(models, catalog, link)
    if not models:
        raise UsageError(f"no model is named; {listing(catalog)}")
    return models


def listing(catalog: Sequence[Model]) -> str:
    """List the names of models by family, in one line."""
    families: dict[str, list[str]] = {}
    for model in catalog:
        families.setdefault(model.family, []).append(model.name)
    return "; ".join(f"{family}: {', '.join(names)}" for family, names in families.items())


def unserved_files(catalog: Sequence[Model]) -> frozenset[str]:
    """Return the files that some checklists list and that are not on the server."""
    return frozenset(name for model in catalog for name in model.unserved_files)


def check_family(models: Sequence[Model], catalog: Sequence[Model], link: Link) -> None:
    """Check that a link is for the family of the models.

    Raises:
        LinkError: it is for another one.
    """
    family = _family(catalog, link)
    for model in models:
        if family is not None and model.family != family:
            raise LinkError(
                f"the link is for {family} ({link.host}), but {model.name} is of "
                f"{model.family or 'another family'}: request a link for that family from Meta"
            )
        addresses = [_address(link, folder) for folder in model.server_folders or (model.folder,)]
        if link.policy is not None and not any(map(link.policy.covers, addresses)):
            raise LinkError(
                f"the link is signed for {link.policy.resource}, which does not cover "
                f"{addresses[0]}: request a link for {model.name}"
            )


def _address(link: Link, folder: str) -> str:
    return link.url(f"{folder}/params.json").partition("?")[0]


def _family(catalog: Sequence[Model], link: Link) -> str | None:
    """Return the family that a host serves; None for a mirror or a private server."""
    known = {host: model.family for model in catalog for host in model.hosts}
    return known.get(link.host.lower())


def _all(catalog: Sequence[Model], link: Link | None) -> list[str]:
    family = _family(catalog, link) if link else None
    if link and family is None:
        raise UsageError(
            f"all means the family that a link of Meta's is for, and {link.host} is a server of "
            f"another kind: name the models. The catalog has {listing(catalog)}"
        )
    listed = [model for model in catalog if model.hosts]
    return [model.name for model in listed if family is None or model.family == family]


def _find(name: str, catalog: Sequence[Model]) -> str:
    for model in catalog:
        known = (model.name, model.folder, *model.names, *model.server_folders)
        if _plain(name) in map(_plain, known):
            return model.name
    raise UnknownNameError("model to download", name, (model.name for model in catalog))


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(":", "-")


def _model(entry: Entry) -> Model:
    """Read one entry of the catalog.

    Raises:
        PluginError: it breaks the contract.
    """
    if fault := catalog_entry_fault(entry.value):
        raise PluginError(
            f"the {entry} of the {entry.source} is not a valid catalog entry: it {fault}"
        )
    fields: dict[str, Any] = {
        key: value if isinstance(value, str | int) else tuple(value)
        for key, value in entry.value.items()
    }
    return Model(name=entry.name, **{"names": (), **fields})
