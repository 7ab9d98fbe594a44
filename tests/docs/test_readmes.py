"""What the pages tell users to type exists, and is the same in both READMEs."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

import llamakit
from llamakit import demo
from llamakit.cli.main import build_cli
from llamakit.errors import OptionError, UsageError
from llamakit.llama.loading import find_tokenizer
from llamakit.llama.options import SamplingOptions
from llamakit.llama.sampler_choice import choose_sampling
from llamakit.plugin_manager.entry_points import EntryPoint
from llamakit.plugin_manager.toolkit import Toolkit, load_toolkit
from llamakit.testing import check_sampler
from llamakit.testing.new_package import plan_package, write_package

ROOT = Path(__file__).parents[2]
README, README_ZH = ROOT / "README.md", ROOT / "README.zh.md"
PAGES = [README, README_ZH, *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MENTION = re.compile(r"`llamakit ([a-z][^`\n]*)`")
OPTION = re.compile(r"(?<!\S)--?[a-z][\w-]*")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [block for found, block in BLOCK.findall(text) if found == language]


def command_lines(page: Path) -> list[str]:
    text = "".join((*blocks(page, "console"), *blocks(page, "sh")))
    lines = re.sub(r"\\\n *", "", text).splitlines()
    return [line.partition("  #")[0].rstrip() for line in lines if line.strip()]


def llamakit_calls(page: Path) -> Iterator[list[str]]:
    """Yield the words after each ``llamakit`` of a page's commands."""
    for line in command_lines(page):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>&;")
        lexer.whitespace_split = True
        words = list(lexer)
        while "llamakit" in words:
            at = words.index("llamakit")
            rest = words[at + 1 :]
            end = next((n for n, word in enumerate(rest) if word[0] in "|<>&;"), len(rest))
            if line.startswith(("llamakit", "torchrun")) or words[at - 1] == "|" or "=" in words[0]:
                yield rest[:end]
            words = rest[end:]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def toolkit_with_the_pages_plugins(tmp_path_factory: pytest.TempPathFactory) -> Toolkit:
    """The built-in plugins, those whose whole source is on a page, and the packages."""
    folder = tmp_path_factory.mktemp("plugin")
    toolkit = load_toolkit(disabled="all")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for name, page, hook in (
            ("second", README, "register_samplers"),
            ("average", ROOT / "docs/tutorial/checkpoint-tool.md", "register_checkpoint_tools"),
            ("tempered", ROOT / "docs/tutorial/sampler-plugin.md", 'register("tempered"'),
        ):
            (plugin,) = (block for block in blocks(page, "python") if hook in block)
            (folder / f"llamakit_{name}.py").write_text(plugin, encoding="utf-8")
            toolkit.load([EntryPoint(name, f"llamakit_{name}", "", f"llamakit-{name}", "0.1")])
        write_package(plan_package("runner-up", "sampler", folder, {}))  # README has it made
        patch.syspath_prepend(str(folder / "llamakit-runner-up"))
        toolkit.load(
            [EntryPoint("runner-up", "llamakit_runner_up", "", "llamakit-runner-up", "0.1")]
        )
        for package in sorted([*ROOT.glob("examples/plugins/*"), *ROOT.glob("packages/*")]):
            patch.syspath_prepend(str(package))
            module = package.name.replace("-", "_")
            toolkit.load([EntryPoint(package.name, module, "", package.name, "0.1")])
        toolkit.settle_names()
    return toolkit


def test_both_readmes_have_the_same_commands():
    assert command_lines(README) == command_lines(README_ZH)
    assert command_lines(README)


@pytest.mark.parametrize("language", ["python", "toml"])
def test_both_readmes_have_the_same_code(language):
    assert blocks(README, language) == blocks(README_ZH, language)
    assert blocks(README, language)


def test_both_readmes_link_to_the_same_pages():
    def targets(page: Path) -> set[str]:
        return set(LINK.findall(page.read_text(encoding="utf-8"))) - {README.name, README_ZH.name}

    assert targets(README) == targets(README_ZH)


@pytest.mark.parametrize("page", [README, README_ZH], ids=named)
def test_the_two_commands_stand_at_the_top(page):
    text = page.read_text(encoding="utf-8")

    heading, _, rest = text.partition("\n\n")
    first_block = rest.partition("\n```\n")[0].splitlines()

    assert heading == "# llamakit"
    assert first_block[0] == "```console"
    assert [line.partition("  #")[0].strip() for line in first_block[1:]] == [
        "make demo",
        "make test",
    ]


def understand(cli: click.Group, words: list[str]) -> click.Context | None:
    """Parse a command line down to the command that would run, without running it."""
    context = click.Context(cli, info_name="llamakit", **cli.context_settings)
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        if found is None:
            raise UsageError(f"no command {rest[0]!r}")
        command = found
        del rest[0]
    if rest[:1] not in (["-h"], ["--help"]):
        return command.make_context(command.name, rest, parent=context)
    return None


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_llamakit_command_that_a_page_shows_is_understood(
    page, toolkit_with_the_pages_plugins
):
    cli = build_cli(toolkit_with_the_pages_plugins)

    for words in llamakit_calls(page):
        understand(cli, words)


def options_of(cli: click.Group, words: list[str]) -> set[str]:
    """Return the options of a command, which is the first of the words or the first two."""
    command: click.Command = cli
    known = {"-h", "--help"}
    for word in words[:2]:
        if isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            command = found or command
            known |= {name for it in command.params for name in (*it.opts, *it.secondary_opts)}
    return known


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=named)
def test_every_option_that_a_sentence_names_with_its_command_exists(
    page, toolkit_with_the_pages_plugins
):
    cli = build_cli(toolkit_with_the_pages_plugins)

    for mention in MENTION.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        assert {*OPTION.findall(mention)} <= options_of(cli, mention.split()), mention


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_sampler_and_processor_that_a_page_shows_can_be_built(
    page, toolkit_with_the_pages_plugins
):
    toolkit = toolkit_with_the_pages_plugins
    tokenizer = toolkit.load_tokenizer(find_tokenizer(demo.path()))
    cli = build_cli(toolkit)
    typed = [
        context.params for words in llamakit_calls(page) if (context := understand(cli, words))
    ]
    names = [field.name for field in fields(SamplingOptions)]
    asked = [{name: given[name] for name in names} for given in typed if "sampler" in given]
    chats = re.findall(r"^/set processors (.*)", page.read_text("utf-8"), re.MULTILINE)
    asked += [{"processors": words.split()} for words in chats if words != "none"]

    for settings in asked:
        try:
            choose_sampling(**settings, toolkit=toolkit, tokenizer=tokenizer)
        except OptionError as error:  # a page may show what is refused, with the sentence
            if f"llamakit: error: {error}" not in page.read_text("utf-8"):
                raise


@pytest.mark.parametrize(
    "words", [["generat", "x"], ["generate", "--temprature", "1"], ["plugins", "shw", "top-p"]]
)
def test_a_command_that_does_not_exist_is_noticed(words, toolkit_with_the_pages_plugins):
    with pytest.raises((click.ClickException, UsageError)):
        understand(build_cli(toolkit_with_the_pages_plugins), words)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_that_a_page_shows_exists(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    for line in command_lines(page):
        if "make" in (words := line.split()):
            assert words[words.index("make") + 1] in targets


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "reference" not in page.parts], ids=named
)
def test_every_python_block_of_a_page_compiles_and_imports_what_exists(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "llamakit":
                assert {name.name for name in node.names} <= {*llamakit.__all__}


@pytest.mark.parametrize("page", [README, README_ZH, ROOT / "CONTRIBUTING.md"], ids=named)
def test_every_link_leads_to_a_file(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / target).is_file(), target


def test_the_readmes_plugin_works(toolkit_with_the_pages_plugins):
    import torch

    sampler = toolkit_with_the_pages_plugins.samplers.get("nth")(rank=2)

    assert sampler(torch.tensor([[0.0, 3.0, 2.0], [5.0, 4.0, 1.0]]), []).tolist() == [2, 1]


def test_the_readmes_plugin_keeps_the_rules(toolkit_with_the_pages_plugins, monkeypatch):
    factory = toolkit_with_the_pages_plugins.samplers.get("nth")
    monkeypatch.syspath_prepend(str(Path(inspect.getfile(factory)).parent))

    check_sampler(factory)
    with pytest.raises(ValueError, match="1 or more"):
        factory(rank=0)


def test_contributing_fits_one_screen():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 50
