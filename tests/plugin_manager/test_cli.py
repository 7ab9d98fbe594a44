"""The command line: help, spelling, and what becomes of errors."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

import llamakit
from llamakit.cli import main as cli
from llamakit.errors import LlamakitError
from llamakit.plugin_manager.registry import Entry, Source
from llamakit.plugin_manager.toolkit import Toolkit

BUILTIN = Source("test", "llamakit", llamakit.__version__, builtin=True)


@pytest.fixture
def run(monkeypatch):
    """Run a function as a built-in command of ``llamakit``; return the exit status."""

    def run_function(function, *arguments):
        toolkit = Toolkit()
        command = function if isinstance(function, click.Command) else click.command()(function)
        toolkit.commands.add(Entry("command", "work", command, "works", BUILTIN))
        monkeypatch.setattr(cli, "default_toolkit", lambda: toolkit)
        for name in ("RANK", "WORLD_SIZE", "LLAMAKIT_DEBUG"):
            monkeypatch.delenv(name, raising=False)
        return cli.main(["work", *arguments])

    return run_function


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_commands(run_llamakit, flag):
    result = run_llamakit(flag)

    assert result.returncode == 0
    assert result.stdout.startswith("Usage: llamakit [OPTIONS] COMMAND [ARGS]...")
    assert "\nCommands:\n" in result.stdout
    assert "\n  plugins " in result.stdout


def test_every_command_has_help_on_one_line_and_of_its_own(run_llamakit):
    lines = run_llamakit("--help", env={"COLUMNS": "100"}).stdout.split("Commands:\n")[1]
    commands = dict(line.split(maxsplit=1) for line in lines.split("\n\n")[0].splitlines())

    for name, summary in commands.items():
        assert summary
        assert run_llamakit(name, "-h").stdout.startswith(f"Usage: llamakit {name}")


def test_the_version_is_reported(run_llamakit):
    assert run_llamakit("--version").stdout == f"llamakit, version {llamakit.__version__}\n"


def test_an_unknown_command_is_guessed(run_llamakit):
    result = run_llamakit("genrate", "x")

    assert result.returncode == 2
    assert result.stderr == (
        "llamakit: error: no command is called 'genrate'; did you mean 'generate'?\n"
    )


def test_an_unknown_option_is_a_usage_error(run_llamakit):
    result = run_llamakit("plugins", "--jsno")

    assert result.returncode == 2
    assert "No such option" in result.stderr


def test_options_may_be_spelled_with_underscores(run, capsys):
    @click.command()
    @click.option("--max-seq-len", type=int)
    @click.option("--form", type=click.Choice(["as_is", "other"]))
    def work(max_seq_len, form):
        click.echo(f"{max_seq_len} {form}")

    status = run(work, "--max_seq_len", "5", "--form", "as_is")

    assert status == 0
    assert capsys.readouterr().out == "5 as_is\n"


def test_a_command_that_ends_well_is_0_whatever_it_returns(run):
    assert run(lambda: 17) == 0


def test_a_command_may_choose_its_status(run):
    assert run(lambda: click.get_current_context().exit(5)) == 5


class LinkExpiredError(LlamakitError):
    exit_status = 3


class OutOfMemoryError(RuntimeError):
    """Called as torch's is."""


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (LlamakitError("the shard is short"), 1, "llamakit: error: the shard is short\n"),
        (LinkExpiredError("the link ended"), 3, "llamakit: error: the link ended\n"),
        (
            OSError(28, "No space left on device", "/disk/out.pth"),
            1,
            "llamakit: error: No space left on device: /disk/out.pth; free some space there\n",
        ),
        (
            PermissionError(13, "Permission denied", "/root/x"),
            1,
            "llamakit: error: Permission denied: /root/x\n",
        ),
        (KeyboardInterrupt(), 130, "\n"),
        (click.Abort(), 1, "llamakit: aborted\n"),
    ],
)
def test_an_error_is_one_sentence_and_a_status(run, capsys, error, status, message):
    assert run(raising(error)) == status

    assert capsys.readouterr().err == message


@pytest.mark.parametrize("error", [MemoryError(), OutOfMemoryError("CUDA out of memory")])
def test_running_out_of_memory_says_what_helps(run, capsys, error):
    assert run(raising(error)) == 1

    assert capsys.readouterr().err.startswith("llamakit: error: out of memory: try a lower --max-b")


def test_a_bug_of_ours_is_not_hidden(run):
    with pytest.raises(KeyError):
        run(raising(KeyError("bug")))


def test_output_that_nobody_reads_ends_quietly(isolated, tmp_path):
    program = f"{sys.executable} -m llamakit plugins --json | head -c 1 > /dev/null"
    pipe = ["bash", "-c", program]

    result = subprocess.run(
        pipe, capture_output=True, text=True, env=isolated, cwd=tmp_path, check=False
    )

    assert result.stderr == ""


def test_a_full_disk_is_one_sentence(isolated, tmp_path):
    program = [sys.executable, "-m", "llamakit", "plugins"]

    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = subprocess.run(
            *(program,),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=isolated,
            cwd=tmp_path,
            check=False,
        )

    assert result.returncode == 1
    assert result.stderr == ("llamakit: error: No space left on device; free some space there\n")


TORCHRUN = """
import sys, types
worker = types.ModuleType("llamakit.llama.worker")
worker.main = lambda timeout: print("follows", timeout) or 7
worker.dismiss = lambda: print("dismisses")
sys.modules["llamakit.llama.worker"] = worker
import llamakit.llama
llamakit.llama.worker = worker
from llamakit.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("rank", "world_size", "arguments", "output", "status"),
    [
        ("0", "2", ["--version"], f"llamakit, version {llamakit.__version__}\ndismisses\n", 0),
        ("0", "2", ["nonsense"], "dismisses\n", 2),
        ("1", "2", ["--version"], "follows None\n", 7),
        ("1", "2", ["chat", "-m", "x", "--join_timeout=9", "--n", "4"], "follows 9.0\n", 7),
        ("0", "1", ["--version"], f"llamakit, version {llamakit.__version__}\n", 0),
    ],
)
def test_under_torchrun_rank_0_alone_runs_the_command(
    isolated, rank, world_size, arguments, output, status
):
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}

    result = subprocess.run(
        [sys.executable, "-c", TORCHRUN, *arguments],
        env={**isolated, **meeting, "RANK": rank, "WORLD_SIZE": world_size},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.stdout, result.returncode) == (output, status)


def test_showing_something_unknown_is_guessed(run_llamakit):
    result = run_llamakit("plugins", "show", "gredy")

    assert result.returncode == 2
    assert "'gredy'; did you mean 'greedy'?" in result.stderr


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("verify", {"name": "--deep", "type": "flag", "default": None}),
        ("generate", {"name": "--max-new-tokens", "type": "integer range", "default": None}),
        ("download", {"name": "--connections", "type": "integer range", "default": 8}),
        ("reshard", {"name": "SRC", "type": "argument", "default": None}),
        ("plugins", {"name": "show", "type": "command", "default": None}),
    ],
)
def test_showing_a_command_lists_its_options(run_llamakit, name, option):
    result = run_llamakit("plugins", "show", name, "--json")

    (shown,) = json.loads(result.stdout)
    without_help = [{key: it[key] for key in option} for it in shown["options"]]
    assert option in without_help
