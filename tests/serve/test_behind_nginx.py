"""Two servers behind the nginx configuration that deploy/ has: affinity, drain, rolling restart."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from server_kit import LONG, QUESTION, held, threaded, wait_until

from llamakit.api import Llama
from llamakit.serve.server import Server, listen
from llamakit.serve.server_settings import Limits, ServeSettings

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIG = Path(__file__).parents[2] / "deploy" / "nginx.conf"
MAIN = """
daemon off; master_process off; pid nginx.pid; error_log error.log;
events { worker_connections 256; }
http {
    access_log off; add_header X-Answered-By $upstream_addr always;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include llamakit.conf;
}
"""
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@dataclass
class Site:
    """nginx, and the servers behind it by their place in the configuration."""

    url: str
    ports: list[int]
    llama: Llama

    @contextlib.contextmanager
    def server(self, place: int, connections: int = 256) -> Iterator[Server]:
        """Run one of the servers, at the port that it always has."""
        settings = ServeSettings(
            port=0, model_name="demo", grace=120.0, limits=Limits(connections=connections)
        )
        made = Server(self.llama, settings, listen("127.0.0.1", self.ports[place]))
        with threaded(made):
            yield made

    @property
    def addresses(self) -> set[str]:
        """Where the servers listen."""
        return {f"127.0.0.1:{port}" for port in self.ports}

    def ask(self, conversation: str, turns: int = 1) -> httpx.Response:
        """Send the next request of a conversation."""
        with httpx.Client(trust_env=False, timeout=180) as http:
            return http.post(
                f"{self.url}/v1/chat/completions",
                headers={"X-Conversation": conversation},
                json={"messages": QUESTION * turns, "max_tokens": 2},
            )


@pytest.fixture(scope="module")
def site(llama: Llama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start nginx with the configuration as it is, but for the ports and a shorter pause."""
    folder = tmp_path_factory.mktemp("nginx")
    ports = free_ports(3)
    text = CONFIG.read_text()
    for written, port in zip(("8001", "8002", "8080"), ports, strict=True):
        assert f"127.0.0.1:{written}" in text
        text = text.replace(f"127.0.0.1:{written}", f"127.0.0.1:{port}")
    (folder / "llamakit.conf").write_text(text.replace("fail_timeout=5s", "fail_timeout=1s"))
    (folder / "nginx.conf").write_text(MAIN)
    url = f"http://127.0.0.1:{ports[2]}"
    words = [str(NGINX), "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
    with subprocess.Popen(words) as nginx:
        wait_until(lambda: nginx.poll() is not None or answers(url))
        assert nginx.poll() is None, (folder / "error.log").read_text()
        yield Site(url, ports[:2], llama)
        nginx.terminate()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return bool(httpx.get(f"{url}/metrics", trust_env=False).status_code == 404)
    return False


def test_each_conversation_stays_on_one_server_and_both_servers_have_some(site: Site) -> None:
    with site.server(0), site.server(1):
        first, second = ([site.ask(str(number), turns) for number in range(12)] for turns in (1, 2))

        assert {it.status_code for it in [*first, *second]} == {200}
        assert answerers(first) == answerers(second)
        assert set(answerers(first)) == site.addresses


def test_a_page_of_another_name_reaches_no_server(site: Site) -> None:
    with site.server(0), httpx.Client(base_url=site.url, trust_env=False) as http:
        found = [
            http.get("/v1/models", headers={"Host": host}).status_code
            for host in ("localhost", "127.0.0.1:8080", "rebound.example", "localhost.example")
        ]

    assert found == [200, 200, 421, 421]


def test_a_restart_of_one_server_after_the_other_loses_no_request(site: Site) -> None:
    with contextlib.ExitStack() as second:
        other = second.enter_context(site.server(1))
        with site.server(0) as leaving:
            streams = [Stream(site, str(number)) for number in range(6)]
            for stream in streams:
                stream.wait_for_event()
            leaving.end()  # as SIGTERM does

            meanwhile = [site.ask(str(number)) for number in range(6)]

            assert [stream.last_line() for stream in streams] == ["data: [DONE]"] * 6
        alone = [site.ask(str(number)) for number in range(6)]
        with site.server(0):
            back: list[httpx.Response] = []
            wait_until(lambda: len({*answerers(asked(site, back))}) == 2)
            other.end()
            second.close()
            afterwards = [site.ask(str(number)) for number in range(6)]

        found = [*meanwhile, *alone, *back, *afterwards]
        assert {it.status_code for it in found} == {200}
        assert len({*answerers(alone), *answerers(afterwards)}) == 2


def test_a_server_with_too_many_connections_is_not_left_out(site: Site) -> None:
    with site.server(0), site.server(1):  # until none is left out for what it did before
        wait_until(lambda: len({*answerers(asked(site, []))}) == 2)
    with site.server(0, connections=2), site.server(1, connections=2):
        with held(site.llama) as step:
            streams = [Stream(site, "busy", processors=[step.name]) for _ in range(2)]
            step.wait()
            wait_until(lambda: sum(map(connections_to, site.ports)) == 2)
            refused = site.ask("busy")
        assert [stream.last_line() for stream in streams] == ["data: [DONE]"] * 2
        afterwards = [site.ask("busy"), site.ask("busy")]

    assert refused.status_code == 429
    assert {it.status_code for it in afterwards} == {200}
    assert len({*answerers([refused, *afterwards])}) == 1


def connections_to(port: int) -> int:
    """Return how many connections a server has that listens at a port."""
    lines = Path("/proc/net/tcp").read_text("utf-8").splitlines()[1:]
    return sum(it[1].endswith(f":{port:04X}") and it[3] == "01" for it in map(str.split, lines))


def asked(site: Site, answers: list[httpx.Response]) -> list[httpx.Response]:
    """Ask once more in each conversation; return those answers, and add them to the others."""
    newest = [site.ask(str(number)) for number in range(6)]
    answers += newest
    return newest


def answerers(answers: list[httpx.Response]) -> list[str]:
    """Return the address of the server that gave each answer."""
    return [it.headers["x-answered-by"].rpartition(", ")[2] for it in answers]


class Stream:
    """An answer that is read in a thread, event by event."""

    def __init__(self, site: Site, conversation: str, **more: object) -> None:
        self._lines: list[str] = []
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(site, conversation, more))
        self._thread.start()

    def wait_for_event(self) -> None:
        assert self._begun.wait(180)
        assert self._lines[0].startswith("data: {"), self._lines

    def last_line(self) -> str:
        self._thread.join(180)
        return self._lines[-1]

    def _read(self, site: Site, conversation: str, more: dict[str, object]) -> None:
        try:
            with httpx.stream(
                "POST",
                f"{site.url}/v1/completions",
                headers={"X-Conversation": conversation},
                json=LONG | {"stream": True} | more,
                timeout=180,
                trust_env=False,
            ) as answer:
                for line in filter(None, answer.iter_lines()):
                    self._lines.append(line)
                    self._begun.set()
        finally:
            self._begun.set()
