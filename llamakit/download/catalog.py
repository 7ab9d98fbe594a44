"""The models that can be downloaded: plugins register them, users name them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llamakit.download.link import INSTRUCTIONS, Link
from llamakit.errors import LinkError, PluginError, UnknownNameError, UsageError
from llamakit.plugin_manager.contracts.catalog import catalog_entry_fault
from llamakit.plugin_manager.registry import Entry

ALL = "all"


@dataclass(frozen=True)
class Model:
    """A model of the catalog.

    Args:
        name: the name it is registered under.
        names: other names that users may type.
        folder: its folder, on the server and on disk.
        shards: how many ``consolidated.NN.pth`` it should have; the checklist decides.
        shard_nbytes: approximate size of one, for planning; the server has the exact sizes.
        family: such as ``Llama 2``; a link is valid for one.
        hosts: that serve the family with signed links.
        root_files: shared by the models of the family, such as ``LICENSE``, next to the folders.
        tokenizer_files: the tokenizer and its checklist, next to the folders.
    """

    name: str
    names: tuple[str, ...]
    folder: str
    shards: int = 1
    shard_nbytes: int = 0
    family: str = ""
    hosts: tuple[str, ...] = ()
    root_files: tuple[str, ...] = ("LICENSE", "USE_POLICY.md")
    tokenizer_files: tuple[str, ...] = ("tokenizer.model", "tokenizer_checklist.chk")

    @property
    def shard_paths(self) -> list[str]:
        """The paths of its shards, relative to the output folder."""
        return [f"{self.folder}/consolidated.{number:02d}.pth" for number in range(self.shards)]


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
        UsageError: no model is named.
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
        known = ", ".join(model.name for model in catalog)
        raise UsageError(f"no model is named; the catalog has {known}")
    return models


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
        if link.policy is not None and not link.policy.covers(_address(link, model.folder)):
            raise LinkError(
                f"the link is signed for {link.policy.resource}, which does not cover "
                f"{_address(link, model.folder)}: request a link for {model.name}"
            )


def _address(link: Link, folder: str) -> str:
    return link.url(f"{folder}/params.json").partition("?")[0]


def _family(catalog: Sequence[Model], link: Link) -> str | None:
    """Return the family that a host serves; None for a mirror or a private server."""
    known = {host: model.family for model in catalog for host in model.hosts}
    return {**OTHER_FAMILIES, **known}.get(link.host.lower())


def _all(catalog: Sequence[Model], link: Link | None) -> list[str]:
    family = _family(catalog, link) if link else None
    listed = [model for model in catalog if model.hosts]
    names = [model.name for model in listed if family is None or model.family == family]
    if link and listed and not names:
        families = ", ".join(dict.fromkeys(model.family for model in listed))
        raise LinkError(
            f"the link is for {family} ({link.host}), and the catalog has no model of it, only "
            f"of {families}: request a link for these from Meta"
        )
    return names


def _find(name: str, catalog: Sequence[Model]) -> str:
    for model in catalog:
        if _plain(name) in (_plain(known) for known in (model.name, model.folder, *model.names)):
            return model.name
    raise UnknownNameError("model to download", name, (model.name for model in catalog))


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


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


OTHER_FAMILIES = {
    "download2.llamameta.net": "Code Llama",
    "download5.llamameta.net": "Llama Guard 2",
    "download6.llamameta.net": "Llama 3",
    "llama3-1.llamameta.net": "Llama 3.1",
    "llama3-2-lightweight.llamameta.net": "Llama 3.2",
    "llama3-2-multimodal.llamameta.net": "Llama 3.2",
    "llama3-3.llamameta.net": "Llama 3.3",
}
"""Hosts of Meta's other links, so that the error for a wrong link can name its family."""
