"""The page in a real browser: a model's Markdown as blocks, tables and code that can be copied."""

from __future__ import annotations

import json
from typing import Any

import pytest
from browser_kit import Person
from playwright.sync_api import expect

HOSTILE = """\
[click](javascript:alert(1)) ![x](x" onerror="alert(2)) <https://example.org> <svg onload=alert(3)>

- <img src=x onerror=alert(4)> in a list
- `<b onclick=alert(5)>`

| <i>head</i> | [link](data:text/html,<script>alert(6)</script>) |
|---|---|
| <script>alert(7)</script> | **<u>bold</u>** |

```"><img src=x onerror=alert(8)>
</code></pre><script>alert(9)</script>
"""
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "one\ntwo\n\nthree": [
        {"kind": "paragraph", "text": "one\ntwo"},
        {"kind": "paragraph", "text": "three"},
    ],
    "## Title\ntext": [
        {"kind": "heading", "level": 2, "text": "Title"},
        {"kind": "paragraph", "text": "text"},
    ],
    "#hash -5 *": [{"kind": "paragraph", "text": "#hash -5 *"}],
    "See:\n```py\n  x\n\ny": [
        {"kind": "paragraph", "text": "See:"},
        {"kind": "code", "language": "py", "text": "  x\n\ny"},
    ],
    "````\n```\n````\nend": [
        {"kind": "code", "language": "", "text": "```"},
        {"kind": "paragraph", "text": "end"},
    ],
    "~~~\na\r\nb\n~~~": [{"kind": "code", "language": "", "text": "a\nb"}],
    "```not a fence```": [{"kind": "paragraph", "text": "```not a fence```"}],
    "| a | b |\n|---|:-:|\n| 1 | x \\| y | 3 |\n| 2 |": [
        {"kind": "table", "head": ["a", "b"], "rows": [["1", "x | y"], ["2", ""]]}
    ],
    "a | b\nno table": [{"kind": "paragraph", "text": "a | b\nno table"}],
    "---": [{"kind": "rule"}],
    "> said\n> > twice": [
        {
            "kind": "quote",
            "blocks": [
                {"kind": "paragraph", "text": "said"},
                {"kind": "quote", "blocks": [{"kind": "paragraph", "text": "twice"}]},
            ],
        }
    ],
    "It was in\n1984. Or not": [{"kind": "paragraph", "text": "It was in\n1984. Or not"}],
}
BOTH_WAYS = "مرحبا **بالعالم** 👩‍👩‍👧‍👦\n\n- שלום\n\n```\nx = 1\n```\n\nEnglish, 2*3*4 *so*."
LONG = 200_000
SLOW_FOR_REGEXES = (
    "`" * LONG,
    "```" + "a" * LONG + "`",
    "*" * LONG,
    "**a" * LONG,
    "|" + " " * LONG + "x\n|" + "-" * LONG,
    "| a |\n|" + " " * LONG + "x",
    "- " * LONG,
    "> " * LONG,
    "  - a\n" * 20_000,
    "#" + " " * LONG,
    "1. " * LONG,
)


def parsed(person: Person, text: str) -> Any:
    """Parse a string in the browser."""
    script = "async (text) => (await import('/markdown.js')).parse(text)"
    return person.page.evaluate(script, text)


def show(person: Person, tmp_path, *answers: str) -> None:
    """Import a dialog whose answers the page has to show."""
    messages = [{"role": "assistant", "content": answer} for answer in answers]
    file = tmp_path / "dialog.json"
    file.write_text(json.dumps({"messages": messages}))
    person.page.set_input_files("#import-file", file)
    expect(person.messages).to_have_count(len(answers))


def test_markdown_is_read_as_the_blocks_that_it_means(person):
    items = parsed(person, "Do:\n1. a\n   - b\n\n   ```sh\n   ls\n   ```\n2. c\n\nend")

    assert {text: parsed(person, text) for text in EXAMPLES} == EXAMPLES
    assert [block["kind"] for block in items] == ["paragraph", "list", "paragraph"]
    assert items[1]["isOrdered"]
    first, second = items[1]["items"]
    assert [block["kind"] for block in first] == ["paragraph", "list", "code"]
    assert first[2] == {"kind": "code", "language": "sh", "text": "ls"}
    assert second == [{"kind": "paragraph", "text": "c"}]


def test_no_text_takes_the_browser_more_than_the_time_of_its_length(person, tmp_path):
    counts = """async (texts) => {
      const { parse } = await import("/markdown.js");
      return texts.map((text) => parse(text).length);
    }"""
    show(person, tmp_path, *(text[:20_000] for text in SLOW_FOR_REGEXES[:4]))

    assert all(person.page.evaluate(counts, SLOW_FOR_REGEXES))


def test_hostile_markdown_becomes_elements_that_hold_text_only(person, tmp_path):
    show(person, tmp_path, HOSTILE)
    tags = person.answer.evaluate(
        "it => [...new Set([...it.querySelectorAll('*')].map(one => one.localName))].sort()"
    )
    allowed = {"p", "ul", "li", "code", "div", "table", "thead", "tbody", "tr", "th", "td"}
    allowed |= {"strong", "figure", "figcaption", "span", "button", "pre"}

    assert set(tags) <= allowed
    expect(person.answer).to_contain_text("[click](javascript:alert(1))")
    expect(person.answer.locator("pre code")).to_have_text(
        "</code></pre><script>alert(9)</script>\n"
    )
    assert person.answer.locator("[onerror], [onclick], [onload], [href], [src]").count() == 0


def test_text_of_either_direction_and_code_stand_as_they_are_read(person, tmp_path):
    show(
        person,
        tmp_path,
        "مرحبا **بالعالم** 👩‍👩‍👧‍👦\n\n- שלום\n\n```\nx = 1\n```\n\nEnglish, 2*3*4 *so*.",
    )
    directions = "it => [...it.children].map(one => getComputedStyle(one).direction)"

    assert person.answer.evaluate(directions) == ["rtl", "ltr", "ltr", "ltr"]
    assert person.answer.locator("li").evaluate("it => getComputedStyle(it).direction") == "rtl"
    assert person.answer.locator("pre").evaluate("it => getComputedStyle(it).direction") == "ltr"
    expect(person.answer.locator("em")).to_have_text(["so"])


@pytest.mark.parametrize("has_clipboard", [True, False], ids=["https", "http of another machine"])
def test_a_code_block_is_copied_as_it_is(has_clipboard: bool, person, tmp_path):
    person.context.grant_permissions(["clipboard-read", "clipboard-write"])
    if not has_clipboard:
        person.page.evaluate(
            "() => Object.defineProperty(navigator, 'clipboard', {value: undefined})"
        )
    show(person, tmp_path, "Run:\n```sh\nls -l\n\techo '<b>'\n```")
    copy = person.page.get_by_role("button", name="Copy the code")
    copy.click()
    expect(person.page.locator("#note")).to_contain_text("Copied.")
    expect(copy).to_be_focused()
    person.page.get_by_label("Message", exact=True).focus()
    person.page.keyboard.press("Control+v")

    expect(person.page.get_by_label("Message", exact=True)).to_have_value("ls -l\n\techo '<b>'")
