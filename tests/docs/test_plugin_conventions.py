"""What docs/reference/plugin-conventions.md says is so, and its code runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import llamakit
from llamakit import demo
from llamakit.errors import DestinationError, DialogError, SpecialTagError
from llamakit.plugin_manager.factories import parse_choice
from llamakit.testing import check_exporter

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "plugin-conventions.md").read_text("utf-8")


def run_block(words: str) -> dict[str, Any]:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (source,) = (block for block in blocks if words in block)
    names: dict[str, Any] = {}
    exec(compile(source, "plugin-conventions.md", "exec"), names)
    return names


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("dry:breakers=:,;,|", {"breakers": ":,;,|"}),
        ("x:a=1,b=2", {"a": "1", "b": "2"}),
        ("x:a=p=q;r|s t,u", {"a": "p=q;r|s t,u"}),
        ("x:a=1,b=c=d", {"a": "1", "b": "c=d"}),
    ],
)
def test_separators_are_as_the_page_says(text: str, options: dict[str, str]) -> None:
    assert parse_choice(text).options == options


def test_encode_adds_a_space_where_the_page_says(reference_cases_llama3: Path) -> None:
    old = llamakit.load_tokenizer(demo.path())
    new = llamakit.load_tokenizer(reference_cases_llama3 / "tokenizer.model")

    assert old.sp_model.id_to_piece(old.encode("a")[0]).startswith("▁")
    assert old.decode([*old.encode("a"), *old.encode("b")]) == "a b"
    assert new.decode([*new.encode("a"), *new.encode("b")]) == "ab"


def test_the_prompt_format_of_the_page_works() -> None:
    tokenizer = llamakit.load_tokenizer(demo.path())
    encode = run_block("register_prompt_formats")["question"](tokenizer, greeting="Hi. ").encode
    user, assistant = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}

    tokens = encode([user, assistant, user])

    first = tokenizer.encode("Hi. Q: a\nA: b", bos=True, eos=True)
    assert tokens == first + tokenizer.encode("Q: a\nA:", bos=True)
    for dialog in ([], [assistant], [user, user], [user, assistant]):
        with pytest.raises(DialogError):
            encode(dialog)
    with pytest.raises(SpecialTagError):
        encode([{"role": "user", "content": "Q: x"}])


def test_the_checkpoint_tool_of_the_page_works() -> None:
    tool = run_block("register_checkpoint_tools")["zeros"]

    plain = CliRunner().invoke(tool, [str(demo.path())])
    as_json = CliRunner().invoke(tool, [str(demo.path()), "--json"])

    counts = json.loads(as_json.stdout)["zeros"]
    assert set(counts) == set(llamakit.open_checkpoint(demo.path()).parameters)
    assert len(plain.stdout.splitlines()) == len(counts)
    assert plain.stderr == as_json.stderr == ""


def test_an_exporter_may_write_one_file(tmp_path: Path) -> None:
    from llamakit.checkpoint.atomic_folder import atomic_folder

    with atomic_folder(tmp_path / "model.bin") as destination:
        destination.write_bytes(b"weights")

    assert (tmp_path / "model.bin").read_bytes() == b"weights"
    with pytest.raises(DestinationError, match="only a folder is replaced"):
        atomic_folder(tmp_path / "model.bin", force=True).__enter__()


def test_the_exporter_of_the_page_plans_what_it_writes():
    check_exporter(run_block("class Exporter")["Exporter"]())
