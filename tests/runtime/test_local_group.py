"""The process group of launched ranks: its sums, and that nobody else can enter it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Script = Callable[..., "subprocess.CompletedProcess[str]"]

COLLECTIVES = """
import sys, torch
from torch import distributed
from llamakit.runtime import local_group, rank_links

rank, size = int(sys.argv[1]), int(sys.argv[2])
links = rank_links.inherited_links(rank, size)
local_group.register(links)
distributed.init_process_group(
    local_group.BACKEND, store=distributed.HashStore(), rank=rank, world_size=size
)
for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int64):
    for count in (1, 7, 3 * rank_links.SLOT_NBYTES // 4 + 5):
        values = torch.arange(count).remainder(5).to(dtype)
        total = values + rank
        distributed.all_reduce(total)
        assert torch.equal(total, values * size + sum(range(size))), (dtype, count)
        parts = [torch.empty_like(values) for _ in range(size)]
        distributed.all_gather(parts, values + rank)
        assert all(torch.equal(part, values + it) for it, part in enumerate(parts)), (dtype, count)
        sent = values + rank
        distributed.broadcast(sent, 0)
        assert torch.equal(sent, values), (dtype, count)
turned = torch.arange(6.0).view(2, 3).t()  # not contiguous
distributed.all_reduce(turned)
assert torch.equal(turned, size * torch.arange(6.0).view(2, 3).t())
distributed.barrier()
"""


@pytest.mark.parametrize("size", [2, 3])
def test_collectives_of_every_dtype_and_length_are_right(size: int) -> None:
    from llamakit.runtime.rank_links import SOCKETS, make_links

    links = make_links(size)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", COLLECTIVES, str(it.rank), str(size)],
            env={**os.environ, SOCKETS: ",".join(map(str, it.descriptors))},
            pass_fds=it.descriptors,
        )
        for it in links
    ]
    for link in links:
        link.close()

    assert [rank.wait(180) for rank in ranks] == [0] * size


LOOK_AROUND = """
import json, os
from pathlib import Path
from llamakit import Llama, demo

def listening():
    rows = [line.split() for name in ("tcp", "tcp6", "udp", "udp6")
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[9]: row[1] for row in rows if row[3] == "0A"}

def open_files(pid):
    folder = Path(f"/proc/{pid}/fd")
    return [os.readlink(it) for it in folder.iterdir() if os.path.lexists(it)]

def sockets(pid):
    links = open_files(pid)
    return {it.removeprefix("socket:[").removesuffix("]") for it in links if "socket:" in it}

with Llama.open(demo.path(), model_parallel_size=2) as llama:
    text = "".join(llama.stream_text("Once upon", temperature=0, max_new_tokens=4))
    me = os.getpid()
    workers = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    (worker,) = [it for it in workers if "llamakit" in Path(f"/proc/{it}/cmdline").read_text()]
    inodes = sockets(me) | sockets(worker)
    print(json.dumps({
        "text": text,
        "listeners": [address for inode, address in listening().items() if inode in inodes],
        "environment": Path(f"/proc/{worker}/environ").read_text().split(chr(0)),
        "named": [it for it in open_files(worker) if "/tmp/" in it and "(deleted)" not in it],
    }))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_launched_ranks_listen_nowhere_and_get_no_secrets_nor_code_from_the_folder(
    tmp_path: Path,
) -> None:
    secrets = {
        "LLAMAKIT_URL": "https://download.llamameta.net/*?Signature=SECRET",
        "LLAMAKIT_API_KEY": "SECRET-key",
        "HF_TOKEN": "SECRET-token",
        "aws_secret_access_key": "SECRET",
        "PGPASSWORD": "SECRET",
        "SSH_PRIVATE_KEY": "SECRET",
        "https_proxy": "http://user:SECRET@127.0.0.1:1",
        "OPENAI_API_KEYS": "SECRET",
        "SSH_PASSPHRASE": "SECRET",
        "GH_PAT": "SECRET",
        "DATABASE_URL": "postgres://user:SECRET@db/x",
        "WEIGHTS": "https://bucket/x?X-Amz-Date=1&X-Amz-Signature=SECRET",
    }
    for name in ("torch", "numpy", "llamakit", "json"):  # a checkpoint of others to run in
        tmp_path.joinpath(f"{name}.py").write_text("import os; os._exit(66)\n")

    done = subprocess.run(
        [sys.executable, "-c", f"import sys; del sys.path[0]\n{LOOK_AROUND}"],
        env={**os.environ, **secrets},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)

    assert seen["text"]
    assert seen["listeners"] == []
    assert [it for it in seen["environment"] if "SECRET" in it] == []
    assert seen["named"] == []


def test_nothing_imports_torch_before_the_ranks_are_started() -> None:
    """Ctrl-C inside torch's own start-up would abort; only ``import_torch`` holds it back."""
    program = (
        "import sys, llamakit.runtime.rank_setup, llamakit.runtime.launch; "
        "assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


LEFT_HALFWAY = """
from llamakit import Llama, demo

with Llama.open(demo.path(), model_parallel_size=2) as llama:
    answer = llama.stream_text("Once upon", temperature=0, max_new_tokens=4)
    next(answer)
del answer  # ends the generator after the ranks have been sent home
"""


def test_an_answer_that_outlives_its_model_ends_without_a_word(run_script: Script) -> None:
    done = run_script("-c", LEFT_HALFWAY)

    assert (done.returncode, done.stderr) == (0, "")
