"""What Tab completes, in the shells that this machine has."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "completion.md"
INSTALL = dict(re.findall(r"```(\w+)\n(echo .*)\n```", PAGE.read_text()))
"""The line that the page gives for each shell."""

CASES = {
    "gen": {"generate"},
    "--vers": {"--version"},
    "generate --sampler mi": {"mirostat"},
    "generate --processor top-n": {"top-n-sigma"},
    "chat --prompt-format llama": {"llama2", "llama3", "llama4", "llama-guard"},
    "chat --draft p": {"prompt-lookup"},
    "export --format ": {"hf", "safetensors"},
    "download Llama3.1-8": {"Llama3.1-8B", "Llama3.1-8B-Instruct"},
    "plugins show pen": {"penalties"},
    "nonsense --sampler m": set(),
}
ASK = """
_complete() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _llamakit_completion llamakit "${COMP_WORDS[COMP_CWORD]}" ""
    echo "${COMPREPLY[@]}"
}
"""


@pytest.fixture
def at_home(isolated: dict[str, str]) -> dict[str, str]:
    """Return an environment whose PATH has this llamakit."""
    return {**isolated, "PATH": f"{Path(sys.executable).parent}:{isolated['PATH']}"}


def install(shell: str, env: dict[str, str]) -> None:
    """Run the page's line."""
    (Path(env["HOME"]) / ".config/fish/completions").mkdir(parents=True)
    (Path(env["HOME"]) / ".zshrc").write_text("autoload -U compinit && compinit -u\n")
    subprocess.run([shell, "-c", INSTALL[shell]], env=env, check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_what_plugins_have_registered_and_says_nothing(
    at_home: dict[str, str], plugins: Callable[..., dict[str, str]]
) -> None:
    install("bash", at_home)
    asked = "\n".join(
        "_complete llamakit " + " ".join(f"'{word}'" for word in case.split(" ")) for case in CASES
    )

    done = subprocess.run(
        ["bash", "-c", f'source "$HOME/.bashrc"\n{ASK}\n{asked}\n_complete llamakit gre'],
        env={**at_home, **plugins("command", "raises_at_import")},
        capture_output=True,
        text=True,
        check=True,
    )

    *completed, third_party = [set(line.split()) for line in done.stdout.splitlines()]
    assert dict(zip(CASES, completed, strict=True)) == CASES
    assert third_party == {"greet"}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("shell", "options"), [("bash", ["-i"]), ("zsh", ["-i"]), ("fish", ["-i"])]
)
def test_tab_completes_a_sampler_on_a_terminal(
    at_home: dict[str, str], shell: str, options: list[str]
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    install(shell, at_home)
    child = pexpect.spawn(
        shell, options, env={**at_home, "TERM": "dumb"}, encoding="utf-8", timeout=60
    )
    try:
        child.sendline("echo rea''dy")
        child.expect("ready")
        child.send("echo llamakit; llamakit generate --sampler miro\t")
        child.expect("stat")
    finally:
        child.close(force=True)
