"""Whatever a chat template calls, it is stopped by memory or CPU time, and the next one works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llamakit.errors import PromptError
from llamakit.plugins.prompt_formats.jinja.format import JinjaFormat
from llamakit.plugins.prompt_formats.jinja.renderer import Limits, Renderer, RenderingError
from llamakit.plugins.prompt_formats.jinja.template_file import TemplateFile
from llamakit.protocols import Tokenizer

CONTENT = "{{ messages[0].content }}"
TREES = (
    "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(40) %}"
    "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}"
)


def doubling(start: str, step: str) -> str:
    """A template that makes a value twice as large, 90 times."""
    return (
        f"{{% set n = namespace(x={start}) %}}"
        f"{{% for i in range(90) %}}{step}{{% endfor %}}{{{{ n.x }}}}"
    )


TOO_LARGE = [
    "{{ range(99999) | join('x' * 99999) }}",
    "{{ range(99999) | join(d='x' * 99999) }}",
    "{{ ('x' * 99999).join('y' * 99999) }}",
    "{{ '\\t'.expandtabs(2000000000) }}",
    "{{ ('\\t' * 99999).expandtabs(tabsize=99999) }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ '{0:{1}}'.format(1, 2000000000) }}",
    "{{ '{0:{w}}'.format('x', w=999999999) }}",
    "{{ '{x:999999999}'.format_map({'x': 1}) }}",
    "{{ '{:.999999999f}'.format(0.1) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%999999999s' | format('x') }}",
    "{{ 'x' | center(width=999999999) }}",
    "{{ 'x'.center(999999999) }}",
    "{{ 'x'.ljust(999999999) }}",
    "{{ '1'.zfill(999999999) }}",
    "{{ 'x' * 9999999999 }}",
    "{{ [0] * 999999999 }}",
    "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "{{ ('a' * 99999) | replace(old='a', new='b' * 99999) }}",
    "{{ ('a\\n' * 999) | indent(width=999999) }}",
    "{{ ('a ' * 9999) | wordwrap(1, wrapstring='x' * 99999) }}",
    "{{ [1] | batch(linecount=999999999, fill_with='x') | list }}",
    "{{ [[1, 2], [3]] | tojson(indent=999999999) }}",
    "{{ range(99999) | list | tojson(separators=('x' * 99999, '')) }}",
    "{{ ('x' * 999999).split('x') | map('center', 9999) | list }}",
    "{{ 'x'.translate({120: 'y' * 99999}) * 99999 }}",
    doubling("'xx'", "{% set n.x = n.x + n.x %}"),
    doubling("'xx'", "{% set n.x = n.x ~ n.x %}"),
    doubling("'xx'", "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}"),
    doubling("[1]", "{% set n.x = n.x + n.x %}"),
    "{% set n = namespace(x={}) %}{% for i in range(99999) %}"
    "{% set n.x = dict(n.x, **{i ~ 'x' * 99999: 1}) %}{% endfor %}",
]
TOO_LONG = [
    "{{ [1] | slice(slices=999999999) | map('length') | sum }}",
    "{{ 9 ** 999999999 }}",
    "{% for i in range(9999) %}{% for i in range(9999) %}{% endfor %}{% endfor %}",
    "{% for i in range(9999) if range(99999) | sum < 0 %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    TREES + "{{ n.a == n.b }}",
    pytest.param(TREES + "{{ [n.a, n.b] | sort }}", marks=pytest.mark.soak),
    pytest.param(TREES + "{{ n.a in [n.b] }}", marks=pytest.mark.soak),
]


@pytest.fixture(scope="module")
def hasty_renderer() -> Iterator[Renderer]:
    one = Renderer(Limits(cpu_seconds=1))
    yield one
    one.close()


def encode(template: str, tokenizer: Tokenizer, renderer: Renderer) -> list[int]:
    file = TemplateFile(Path("chat.jinja"), template, {})
    return JinjaFormat(tokenizer, file, renderer).encode([{"role": "user", "content": "hello"}])


@pytest.mark.parametrize("template", TOO_LARGE)
def test_a_template_that_grows_is_stopped_and_the_next_one_renders(
    template: str, rich_tokenizer: Tokenizer, renderer: Renderer
):
    with pytest.raises(PromptError, match=r"^the chat template chat\.jinja needs more than 256 MB"):
        encode(template, rich_tokenizer, renderer)

    assert encode(CONTENT, rich_tokenizer, renderer) == rich_tokenizer.encode("hello")


@pytest.mark.parametrize("template", TOO_LONG)
def test_a_template_that_does_not_end_is_stopped_and_the_next_one_renders(
    template: str, rich_tokenizer: Tokenizer, hasty_renderer: Renderer
):
    with pytest.raises(PromptError, match=r"chat\.jinja computes for more than 1 s$"):
        encode(template, rich_tokenizer, hasty_renderer)

    assert encode(CONTENT, rich_tokenizer, hasty_renderer) == rich_tokenizer.encode("hello")


def test_numbers_of_any_length_are_no_text(rich_tokenizer: Tokenizer, renderer: Renderer):
    with pytest.raises(PromptError, match=r"chat\.jinja fails with ValueError: .*4300 digits"):
        encode("{{ 10 ** (5000 * messages | length) }}", rich_tokenizer, renderer)

    assert encode("{{ ('9' * 5000) | int }}", rich_tokenizer, renderer) == rich_tokenizer.encode(
        "0"
    )


def test_looking_for_special_tokens_in_what_a_template_wrote_is_bounded_too(
    hasty_renderer: Renderer,
):
    request = {
        **{"template": "{{ '<' * 3999999 }}", "names": {}, "messages": [], "tools": None},
        **{"answer": True, "now": "2026-11-30T12:00:00"},
        "special": ["</s>", *(f"<|reserved_special_token_{n}|>" for n in range(2000))],
    }

    with pytest.raises(RenderingError, match="computes for more than 1 s"):
        hasty_renderer.render(request)
