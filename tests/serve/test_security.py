"""Keys, hosts, origins, and what the log says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server_kit import HTTP, STORY, Running, thread

from llamakit.api import Llama
from llamakit.cli.serve import allowed_hosts, check_auth, read_keys
from llamakit.errors import LlamakitError, OptionError, UsageError
from llamakit.plugin_manager.factories import build, options_of
from llamakit.plugin_manager.registry import Entry, Source
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.serve.api_errors import ApiError
from llamakit.serve.sampling_reader import refuse_files
from llamakit.serve.server import listen

KEYS = ("first-key-0123456789", "second-key-0123456789")
COMPLETION = {"prompt": STORY, "max_tokens": 4, "temperature": 0}


@pytest.fixture(scope="module")
def locked(llama: Llama) -> Iterator[Running]:
    """A server that asks for a key, and lets in a page of another origin."""
    with thread(
        llama,
        keys=KEYS,
        hosts=allowed_hosts("127.0.0.1", ["friend.example"]),
        origins=("https://page.example",),
        json_log=True,
    ) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# Keys ---------------------------------------------------------------------------------------------


def test_each_key_opens_and_others_do_not(locked: Running) -> None:
    for key in KEYS:
        assert len(locked.openai(key).completions.create(model="demo", **COMPLETION).choices) == 1

    for wrong in ("x", "first-key-012345678", KEYS[0] + "9", KEYS[0].upper(), "ключ"):
        response = locked.post(
            "/v1/completions", COMPLETION, headers={"Authorization": f"Bearer {wrong}".encode()}
        )
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.AuthenticationError, match="with a key of this server"):
        locked.openai("nonsense").models.list()


def test_every_path_but_the_page_and_health_asks_for_the_key(locked: Running) -> None:
    for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/llamakit/options", "/nothing"):
        assert locked.get(path).status_code == 401, path
    assert HTTP.post(f"{locked.url}/tokenize", content=b"x" * 9000).status_code == 401

    for path in ("/", "/app.js", "/chat.css", "/health"):
        assert locked.get(path).status_code == 200, path


def test_keys_come_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("# mine\nfirst-key-0123\n\nsecond-key-0123\n")
    monkeypatch.setenv("LLAMAKIT_API_KEY", " environment-key \n")

    assert read_keys(None) == ("environment-key",)
    assert read_keys(str(file)) == ("first-key-0123", "second-key-0123")
    for content in ("", "short", "with a space in it", "é" * 20, "long-key" * 200_000):
        file.write_text(content)
        with pytest.raises(LlamakitError, match="key"):
            read_keys(str(file))


def test_an_address_that_others_reach_needs_a_key() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        check_auth(host, (), no_auth=False)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(UsageError, match="LLAMAKIT_API_KEY"):
            check_auth(host, (), no_auth=False)
        check_auth(host, KEYS, no_auth=False)
        check_auth(host, (), no_auth=True)


def test_the_command_refuses_an_open_address_before_it_loads_anything(
    run_llamakit: Callable[..., Any],
) -> None:
    result = run_llamakit("serve", "--host", "0.0.0.0", "-m", "nowhere")

    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "llamakit: error: --host 0.0.0.0 lets other machines connect, and there is no key: set "
        "LLAMAKIT_API_KEY or pass --api-key-file FILE (--no-auth lets anybody in)"
    ]


def test_an_address_of_ipv6_may_be_typed_in_brackets(run_llamakit: Callable[..., Any]) -> None:
    result = run_llamakit("serve", "--host", "[::1]", "--port", "0", "-m", "nowhere")

    assert "no key" not in result.stderr
    assert "cannot listen on [" not in result.stderr
    assert result.returncode != 0


# Hosts and origins --------------------------------------------------------------------------------


def test_only_names_of_this_machine_are_answered(locked: Running) -> None:
    for host in ("localhost", "127.0.0.1:8000", "[::1]:80", "friend.example", "LOCALHOST:1"):
        assert locked.get("/health", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        response = locked.get("/health", headers={"Host": host})
        assert response.status_code == 421, host
        assert response.json()["error"]["code"] == "unknown_host"


def test_an_address_of_ipv6_is_served_and_named_in_brackets(llama: Llama) -> None:
    try:
        listen("::1", 0).close()
    except UsageError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with thread(llama, "::1", hosts=allowed_hosts("::1", [])) as running:
        assert running.url.startswith("http://[::1]:")
        assert [it.id for it in running.openai().models.list()] == ["demo"]

        for host, status in (
            ("[::1]", 200),
            ("[::1]:80", 200),
            ("localhost:8000", 200),
            ("127.0.0.1", 200),
            ("::1", 421),
            ("[::2]", 421),
            ("[::1].evil.example", 421),
            ("evil.example:1", 421),
        ):
            found = running.get("/health", headers={"Host": host}).status_code
            assert (host, found) == (host, status)


def test_other_spellings_of_the_loopback_address_are_this_machines_too() -> None:
    for host in ("0:0:0:0:0:0:0:1", "::1", "127.0.0.9"):
        check_auth(host, (), no_auth=False)
        assert "[::1]" in allowed_hosts(host, ())
    assert allowed_hosts("::", ()) == allowed_hosts("0.0.0.0", ()) == ()


def test_only_named_origins_may_ask(locked: Running, server: Running) -> None:
    def preflight(running: Running, origin: str) -> httpx.Response:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return HTTP.options(f"{running.url}/v1/completions", headers=headers)

    friend = preflight(locked, "https://page.example")
    refused = locked.get("/v1/models", headers={"Origin": "https://page.example"})

    assert friend.headers["access-control-allow-origin"] == "https://page.example"
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://page.example"
    for running, origin in ((locked, "https://evil.example"), (server, "https://page.example")):
        assert "access-control-allow-origin" not in preflight(running, origin).headers
        assert preflight(running, origin).status_code >= 400


def test_the_page_is_served_with_a_strict_policy(server: Running) -> None:
    page = server.get("/")
    again = server.get("/", headers={"If-None-Match": page.headers["etag"]})

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert again.status_code == 304
    assert server.get("/app.js").headers["content-type"] == "text/javascript; charset=utf-8"


# Options that name files --------------------------------------------------------------------------


def _entry(factory: Callable[..., Any]) -> Entry:
    return Entry("prompt format", "it", factory, "", Source("it", "it", "1", builtin=True))


def test_an_option_that_is_a_path_is_refused_from_requests() -> None:
    def typed(place: Path | None = None, width: int = 1) -> Any: ...
    def named(file: str | None = None, template_file: str = "") -> Any: ...

    for factory, options in (
        (typed, {"place": "/etc/passwd"}),
        (named, {"file": "x"}),
        (named, {"template_file": "x"}),
        (named, {" Template-File".lower(): "x"}),
    ):
        with pytest.raises(ApiError, match="names a file, which requests may not"):
            refuse_files(_entry(factory), options)
    refuse_files(_entry(typed), {"width": 2})
    assert [option.names_a_file for option in options_of(typed)] == [True, False]


def test_a_path_is_read_from_a_string_on_the_command_line() -> None:
    found = build(_entry(lambda: None), {})
    assert found is None

    def factory(place: Path | None = None) -> Path | None:
        return place

    assert build(_entry(factory), ["place=a/b"]) == Path("a/b")
    assert build(_entry(factory), {"place": Path("c")}) == Path("c")
    with pytest.raises(OptionError, match="a path"):
        build(_entry(factory), {"place": 5})


def test_no_built_in_that_requests_name_reads_files_under_another_name() -> None:
    toolkit = default_toolkit()

    for registry in (toolkit.samplers, toolkit.processors, toolkit.prompt_formats):
        for entry in registry:
            for option in options_of(entry.value):
                says = option.help.lower()
                speaks = " file" in f" {says}" or "path" in says or "folder" in says
                if speaks and option.default in (None, ""):  # else it has a name of its own
                    assert option.names_a_file, f"{entry}: annotate {option.name} as Path"


# The log ------------------------------------------------------------------------------------------


def test_the_log_has_a_line_a_request_and_neither_prompts_nor_keys(
    llama: Llama, capfd: pytest.CaptureFixture[str]
) -> None:
    with thread(llama, keys=KEYS, json_log=True) as running:
        running.post(
            "/v1/completions",
            {"prompt": "a secret prompt", "max_tokens": 3},
            headers=bearer(KEYS[1]),
        )
        running.post("/v1/completions", {"prompt": 5}, headers=bearer(KEYS[1]))
        running.get("/v1/models?key=" + KEYS[1], headers=bearer("wrong-key-of-somebody"))

    text = capfd.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    lines.sort(key=lambda line: (line["path"], line["status"]))  # the next may be quicker
    assert [(line["path"], line["status"]) for line in lines] == [
        ("/v1/completions", 200),
        ("/v1/completions", 400),
        ("/v1/models", 401),
    ]
    assert lines[0]["new_tokens"] == 3
    assert lines[0]["finish"] == "length"
    for secret in ("secret", "prompt is", *KEYS, "wrong-key"):
        assert secret not in text


def test_the_log_shows_prompts_when_asked_and_stays_one_line(
    llama: Llama, capfd: pytest.CaptureFixture[str]
) -> None:
    with thread(llama, log_prompts=True) as running:
        running.post("/v1/completions", {"prompt": "a\nb", "max_tokens": 3, "temperature": 0})
        running.get("/%0d%0aforged%20line")

    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    lines.sort(key=lambda line: "forged" in line)  # the next request may be quicker
    assert 'prompt="a\\nb"' in lines[0]
    assert "answers=" in lines[0]
    assert "forged" in lines[1]


def test_settings_do_not_show_keys() -> None:
    from llamakit.serve.server_settings import ServeSettings

    settings = ServeSettings(keys=KEYS)

    assert not [key for key in KEYS if key in repr(settings)]
    assert dataclasses.replace(settings, port=1).keys == KEYS
