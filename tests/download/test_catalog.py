"""Models are found by any of their names, and a link for other models is refused."""

from __future__ import annotations

import hashlib
import io
import shutil

import pytest
from download_kit import signed_query
from fetching import files_in
from server import Server

from llamakit.cli.main import run
from llamakit.download.catalog import choose, read_catalog
from llamakit.download.link import read_link
from llamakit.errors import LinkError, UnknownNameError, UsageError
from llamakit.plugin_manager.registry import Entry, Registry
from llamakit.plugin_manager.toolkit import default_toolkit

ALL = ["7B", "7B-chat", "13B", "13B-chat", "70B", "70B-chat"]


@pytest.fixture(scope="module")
def catalog():
    return read_catalog(default_toolkit().models)


def link_to(host, resource=None):
    return read_link(f"https://{host}/*?{signed_query(resource or f'https://{host}/*')}")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["13B"], ["13B"]),
        (["13b"], ["13B"]),
        (["13B-chat"], ["13B-chat"]),
        (["13b_CHAT"], ["13B-chat"]),
        (["llama-2-13b"], ["13B"]),
        (["llama-2-13b-chat"], ["13B-chat"]),
        (["llama2-7b"], ["7B"]),
        (["meta-llama/Llama-2-13b"], ["13B"]),
        (["7B,13B"], ["7B", "13B"]),
        (["70B", "7B, 13B"], ["7B", "13B", "70B"]),
        (["7B", "llama-2-7b"], ["7B"]),
        (["all"], ALL),
        (["ALL"], ALL),
    ],
)
def test_a_model_has_many_names(catalog, wanted, names):
    models = choose(wanted, catalog, link_to("download.llamameta.net"))

    assert [model.name for model in models] == sorted(names, key=ALL.index)


def test_the_catalog_knows_llama_2(catalog):
    assert {model.name for model in catalog} >= set(ALL)
    sizes = {model.name: (model.folder, model.shards) for model in catalog}
    assert sizes["7B"] == ("llama-2-7b", 1)
    assert sizes["13B-chat"] == ("llama-2-13b-chat", 2)
    assert sizes["70B"] == ("llama-2-70b", 8)


@pytest.mark.parametrize(("typed", "meant"), [("13B-chta", "13B-chat"), ("70", "70B")])
def test_an_unknown_name_is_refused_with_what_was_meant(catalog, typed, meant):
    with pytest.raises(UnknownNameError, match=f"{typed!r}; did you mean '{meant}'"):
        choose([typed], catalog, None)


@pytest.mark.parametrize("wanted", [[","], [" "], [""]])
def test_no_name_at_all_is_refused(catalog, wanted):
    with pytest.raises(UsageError, match="no model is named"):
        choose(wanted, catalog, None)


def test_a_link_in_the_place_of_a_name_is_not_repeated(catalog):
    link = f"https://download.llamameta.net/*?{signed_query()}"

    with pytest.raises(LinkError, match="expected the names of models, found a link") as caught:
        choose([link], catalog, None)

    assert "Signature" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "family", "one_of_it"),
    [
        ("download2.llamameta.net", "Code Llama", "CodeLlama-7b"),
        ("download5.llamameta.net", "Llama Guard 2", "Llama-Guard-2-8B"),
        ("download6.llamameta.net", "Llama 3", "Llama-3-8B"),
        ("LLAMA3-1.llamameta.net", "Llama 3.1", "Llama3.1-8B"),
        ("llama3-2-lightweight.llamameta.net", "Llama 3.2 1B and 3B", "Llama3.2-1B"),
        ("llama3-2-multimodal.llamameta.net", "Llama 3.2 Vision", "Llama3.2-11B-Vision"),
        ("llama3-3.llamameta.net", "Llama 3.3", "Llama3.3-70B-Instruct"),
        ("llama4.llamameta.net", "Llama 4", "Llama-4-Scout-17B-16E"),
    ],
)
def test_a_link_is_for_the_family_of_its_host_alone(catalog, host, family, one_of_it):
    link = link_to(host)

    chosen = choose(["all"], catalog, link)

    assert {model.family for model in chosen} == {family}
    assert one_of_it in {model.name for model in chosen}
    for other in {"7B", "Llama-3-8B-Instruct", "Llama3.2-3B"} - {it.name for it in chosen}:
        with pytest.raises(LinkError, match=f"the link is for {family} .*{other} is of.*request"):
            choose([other], catalog, link)


def test_a_link_that_does_not_cover_a_model_is_refused(catalog):
    host = "download.llamameta.net"
    link = link_to(host, f"https://{host}/llama-2-7b/*")

    assert choose(["7B"], catalog, link)
    with pytest.raises(LinkError, match=r"does not cover .*llama-2-13b/params.json"):
        choose(["7B,13B"], catalog, link)


def test_a_server_of_ones_own_serves_any_family(catalog):
    assert choose(["7B"], catalog, read_link("http://127.0.0.1:8000/*"))


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"folder": "/etc"},
        {"folder": "../up"},
        {"folder": ""},
        {"folder": 5},
        {"folder": "x", "names": "one"},
        {"folder": "x", "hosts": [5]},
        {"folder": "x", "shards": "8"},
        {"folder": "x", "shard_nbytes": 1.5},
        {"folder": "x", "root_files": ["../LICENSE"]},
        {"folder": "x", "tokenizer_files": ["/etc/passwd"]},
        {"folder": "x", "url": "https://x"},
    ],
)
def test_an_entry_that_is_none_is_left_out_and_names_its_plugin(entry, caplog):
    registry = Registry("model")
    source = default_toolkit().models.entry("7B").source
    registry.add(Entry("model", "X", entry, "", source))
    registry.add(default_toolkit().models.entry("7B"))

    models = read_catalog(registry)

    assert [model.name for model in models] == ["7B"]
    (record,) = caplog.records
    assert f"model X of the {source} is not a valid catalog entry" in record.message


def test_a_third_party_model_is_fetched_like_any_other(plugins, download, tmp_path, out):
    model = tmp_path / "served" / "small" / "1b"
    model.mkdir(parents=True)
    (model.parents[1] / "TERMS.txt").write_text("terms")
    (model / "params.json").write_text("{}")
    (model / "consolidated.00.pth").write_bytes(bytes(1000))
    lines = [
        f"{hashlib.md5((model / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("params.json", "consolidated.00.pth")
    ]
    (model / "checklist.chk").write_text("".join(lines))

    with Server(model.parents[1], query="") as server:
        done = download(model="the-small-one", link=server.link, env=plugins("models"))

    assert done.returncode == 0, done.stderr
    assert files_in(out) == files_in(model.parents[1])
    shutil.rmtree(out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["8B"], "no model to download is called '8B'"),
        (["7B", "--url", "x", "--url-file", "y"], "both pass a link"),
        (["7B"], "no link was given"),
        ([], "which models? Name them: llamakit download NAME, or all. The catalog has"),
        (["--repair"], "has none"),
        (["7B", "--limit-rate", "fast"], "--limit-rate: 'fast'"),
        (["7B", "--url-file", "absent.txt"], "absent.txt cannot be read: No such file"),
        (["https://x/*?Policy=abcdefgh"], "expected the names of models, found a link"),
        (["7B", "--url-file", "https://x/*?Policy=abcdefgh"], "not the link itself"),
    ],
)
def test_words_that_are_off_end_with_status_2(words, said, capsys, monkeypatch):
    monkeypatch.delenv("LLAMAKIT_URL", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())

    assert run(["download", *words, "--output-dir", "/nowhere"]) == 2
    said_there = capsys.readouterr().err
    assert said in said_there
    assert "abcdefgh" not in said_there
