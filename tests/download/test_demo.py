"""The bundled demo model is downloaded like any other, from the server that ``demo`` starts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

from llamakit import demo
from llamakit.demo.download_server import served


def test_the_demo_model_is_downloaded_from_the_demo_server(download, out):
    with served(demo.path().parent) as link:
        done = download(model="demo", link=link)

    assert done.returncode == 0, done.stderr
    assert "consolidated.07.pth" in done.stderr
    names = {path.name for path in demo.path().iterdir()}
    assert {path.name for path in (out / demo.NAME).iterdir()} == names | {"llamakit.json"}
    for name in names:
        assert (out / demo.NAME / name).read_bytes() == (demo.path() / name).read_bytes()


def test_the_demo_begins_with_a_download(isolated, tmp_path):
    """What follows takes longer, and is tested where it belongs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llamakit", "demo"],
        env=isolated,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    told = []
    for line in process.stdout:
        told.append(line)
        if line.startswith("$ llamakit inspect"):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=180)

    first, second = (line for line in told if line.startswith("$ "))
    assert re.fullmatch(
        r"\$ LLAMAKIT_URL='http://127.0.0.1:\d+/\*' llamakit download demo\n", first
    )
    assert second == "$ llamakit inspect llama-demo\n"
    assert "Everything is there and verified" in "".join(told)
