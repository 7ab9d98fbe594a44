"""Chat templates: transformers' tokens, no one else's control tokens, and bounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamakit.errors import (
    DialogError,
    FileFormatError,
    LlamakitError,
    OptionError,
    PromptError,
    SpecialTagError,
    UnknownNameError,
    UsageError,
)
from llamakit.plugin_manager.factories import build
from llamakit.plugin_manager.toolkit import default_toolkit
from llamakit.protocols import Dialog, PromptFormat, Tokenizer

CHATML = """{{ bos_token }}{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA2 = """{% if messages[0]['role'] == 'system' %}
{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}
{% else %}
{% set loop_messages = messages %}{% set system_message = false %}
{% endif %}
{% for message in loop_messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if loop.index0 == 0 and system_message != false %}
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}{% set content = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}
{{- ' '  + content.strip() + ' ' + eos_token }}
{%- endif %}
{% endfor %}"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

LLAMA3 = """{% set loop_messages = messages %}{% for message in loop_messages %}
{%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'
    + message['content'] | trim + '<|eot_id|>' %}
{%- if loop.index0 == 0 %}{% set content = '<|begin_of_text|>' + content %}{% endif %}
{{- content }}{% endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

COMPOSED = """{% for message in messages %}
{{- '<|' ~ ('im_start' if loop.first or true) ~ '|>' ~ message.role | upper }}
{%- generation %}{{ message.content.split('#')[-1].lstrip() | capitalize }}{% endgeneration %}
{%- if message.content.startswith('a') or 'wh' in message.content %}<|eot_id|>{% endif %}
{%- if loop.index > 3 %}{% break %}{% endif %}
{%- endfor %}{{ messages[0].content[:3] | tojson }}"""

TEMPLATES = {
    "chatml": CHATML,
    "llama2": LLAMA2,
    "zephyr": ZEPHYR,
    "llama3": LLAMA3,
    "composed": COMPOSED,
}

HARMLESS: list[Dialog] = [
    [{"role": "user", "content": "  What is a shard?\n"}],
    [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": "who # are you? 你好 🙂"},
        {"role": "assistant", "content": " a model "},
        {"role": "user", "content": 'and "then"?\n\n  def f(x):\n\treturn x'},
    ],
]
Make = Callable[..., PromptFormat]


@pytest.fixture
def make(tmp_path: Path, rich_tokenizer: Tokenizer) -> Make:
    """Build the format from the text of a template."""

    def build_format(text: str, tokenizer: Tokenizer = rich_tokenizer) -> PromptFormat:
        file = tmp_path / "chat.jinja"
        file.write_text(text, encoding="utf-8")
        made: PromptFormat = build(
            default_toolkit().prompt_formats.entry("jinja"), {"file": str(file)}, tokenizer
        )
        return made

    return build_format


def from_options(tokenizer: Tokenizer, **options: Any) -> PromptFormat:
    made: PromptFormat = build(default_toolkit().prompt_formats.entry("jinja"), options, tokenizer)
    return made


def special_counts(tokens: list[int], tokenizer: Any) -> dict[int, int]:
    return {token: tokens.count(token) for token in tokenizer.special_ids().values()}


@pytest.mark.parametrize("dialog", HARMLESS, ids=["one", "four"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_tokens_are_those_of_transformers(name: str, dialog: Dialog, make: Make, judge: Any):
    expected = judge.apply_chat_template(
        dialog,
        chat_template=TEMPLATES[name],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )

    assert make(TEMPLATES[name]).encode(dialog) == expected


def test_llama_2s_own_template_gives_what_the_format_llama2_gives(
    make: Make, rich_tokenizer: Tokenizer
):
    llama2 = build(default_toolkit().prompt_formats.entry("llama2"), {}, rich_tokenizer)
    dialog = [{**message, "content": message["content"].strip()} for message in HARMLESS[1]]

    ours, theirs = make(LLAMA2).encode(dialog), llama2.encode(dialog)

    assert rich_tokenizer.decode(ours) == rich_tokenizer.decode(theirs)
    assert special_counts(ours, rich_tokenizer) == special_counts(theirs, rich_tokenizer)


WORDS = st.sampled_from(
    [
        *("<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<PRE>"),
        *("▁<PRE>", "▁<EOT>", " <EOT>", "<|eot_id|>", "<|begin_of_text|>", "<0x0A>", "<", "|>"),
        *("im_start", "<|", "s>", "assistant\n", "#", "a", "wh", "&lt;s&gt;", "\\u003cs>"),
        *("\U000f0000", "\U0010fffd", "{{ bos_token }}", "{% raw %}", "ſ", "K", "\x1c", "é"),
    ]
)
TEXTS = st.lists(WORDS | st.text(max_size=4), max_size=6).map("".join)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_text_of_messages_never_becomes_a_control_id(
    name: str, data: st.DataObject, formats: dict[str, PromptFormat], rich_tokenizer: Any
):
    roles = ("user", "assistant", "user")
    dialog: Any = [{"role": role, "content": data.draw(TEXTS)} for role in roles]
    plain: Any = [{"role": role, "content": "x"} for role in roles]
    prompt_format = formats[name]
    special = set(rich_tokenizer.special_ids().values())

    try:
        tokens = prompt_format.encode(dialog)
    except SpecialTagError:
        return

    written = [token for token in tokens if token in special]
    expected = [token for token in prompt_format.encode(plain) if token in special]
    if name == "composed":  # it writes one more where a string says so
        eot = rich_tokenizer.special_ids()["<|eot_id|>"]
        written = [token for token in written if token != eot]
        expected = [token for token in expected if token != eot]
    assert written == expected


@pytest.fixture(scope="module")
def formats(
    tmp_path_factory: pytest.TempPathFactory, rich_tokenizer: Tokenizer
) -> dict[str, PromptFormat]:
    folder = tmp_path_factory.mktemp("templates")
    for name, text in TEMPLATES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {name: from_options(rich_tokenizer, file=str(folder / name)) for name in TEMPLATES}


@settings(max_examples=150, derandomize=True)
@given(text=TEXTS)
def test_the_text_of_a_message_arrives_whole(
    text: str, formats: dict[str, PromptFormat], rich_tokenizer: Any
):
    tokens = formats["chatml"].encode([{"role": "user", "content": text}])

    start, end = (rich_tokenizer.special_ids()[tag] for tag in ("<|im_start|>", "<|im_end|>"))
    inner = tokens[tokens.index(start) + 1 : tokens.index(end)]
    assert inner == rich_tokenizer.encode(f"user\n{text}")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% for m in messages %}<{{ m.content }}>{% endfor %}", "s"),
        ("{% for m in messages %}{{ m.content }}s>{% endfor %}", "<"),
        ("{% for m in messages %}<{{ m.content ~ '' }}{% endfor %}", "/s>"),
        ("{% for m in messages %}{{ m.content | replace('_', '<s') }}{% endfor %}", "_>"),
        ("{{ messages | map(attribute='content') | join('') }}", "</s>"),
        ("{{ messages[0].content | reverse }}", ">s<"),
        ("{% for c in messages[0].content %}{{ c }}{% endfor %}", "<s>"),
        ("{{ '%s' % messages[0].content }}{{ '{}'.format(messages[0].content) }}", "<s>"),
        ("{{ messages[0].content | lower }}", "<S>"),
        ("{{ messages[0].content | upper | lower }}", "<ſ>"),
        ("{{ (messages[0].content ~ 'x') | lower }}", "<S>"),
        ("{{ messages[0].content | escape }}", "<s>"),
        ("{{ messages | tojson }}", "<s>"),
        ("{{ messages }}", "</s>"),
    ],
)
def test_no_way_through_a_template_makes_a_control_id_of_a_text(
    template: str, text: str, make: Make, rich_tokenizer: Any
):
    try:
        tokens = make(template).encode([{"role": "user", "content": text}])
    except SpecialTagError:
        return

    assert special_counts(tokens, rich_tokenizer) == dict.fromkeys(
        rich_tokenizer.special_ids().values(), 0
    )


def test_a_template_may_ask_what_a_string_holds(make: Make, rich_tokenizer: Any):
    thinking = make(
        "{% for m in messages %}{% set c = m.content %}"
        "{% if m.content.startswith('<think>') and '</think>' in c %}"
        "{% set c = c.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
        "{{ '<|im_start|>' + c + '<|im_end|>' }}{% endfor %}"
    )

    tokens = thinking.encode([{"role": "assistant", "content": "<think>hm <s></think>\n<s> yes"}])

    ids = rich_tokenizer.special_ids()
    expected = [ids["<|im_start|>"], *rich_tokenizer.encode("<s> yes"), ids["<|im_end|>"]]
    assert tokens == expected


def test_a_tag_that_the_template_writes_as_text_is_refused_in_a_message(make: Make):
    with pytest.raises(SpecialTagError, match=r"writes \[/INST\] around .* message 1 holds"):
        make(LLAMA2).encode([{"role": "user", "content": "a [/INST] b"}])


def test_text_that_cannot_be_distinguished_is_refused_and_harmless_text_is_not(
    make: Make, rich_tokenizer: Any
):
    changing = make("<|im_start|>{{ ('%sx' % messages[0].content) | upper }}<|im_end|>")

    tokens = changing.encode([{"role": "user", "content": "hello"}])

    assert rich_tokenizer.decode(tokens) == "HELLOX"
    with pytest.raises(SpecialTagError, match="changes the text of messages"):
        changing.encode([{"role": "user", "content": "hello <s>"}])


def test_user_defined_pieces_are_special_and_not_for_messages(train: Any, make: Make):
    tokenizer = train([], ("<|im_start|>", "<|im_end|>", "ing "))
    prompt_format = make(CHATML, tokenizer)

    tokens = prompt_format.encode([{"role": "user", "content": "seeing it"}])

    assert tokens.count(tokenizer.special_ids()["<|im_start|>"]) == 2
    assert "ing " not in tokenizer.special_ids()
    with pytest.raises(SpecialTagError, match="special token"):
        prompt_format.encode([{"role": "user", "content": "see <|im_start|> it"}])


def test_an_answer_ends_where_the_template_ends_one(make: Make, rich_tokenizer: Any):
    ids = rich_tokenizer.special_ids()

    assert set(make(CHATML).stop_tokens) == {ids["</s>"], ids["<|im_end|>"]}
    assert set(make(LLAMA3).stop_tokens) == {ids["</s>"], ids["<|eot_id|>"]}
    assert set(make(LLAMA2).stop_tokens) == {ids["</s>"]}


def test_what_the_template_refuses_is_said(make: Make):
    with pytest.raises(DialogError, match=r"chat\.jinja says: Conversation roles must alternate"):
        make(LLAMA2).encode([{"role": "assistant", "content": "a"}])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(999999) %}{% endfor %}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.format.__globals__.x }}", "unsafe"),
        ("{{ namespace(__html__=1) }}", "cannot hold '__html__'"),
        ("{% set n = namespace() %}{% set n._x = 1 %}", "cannot hold '_x'"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ nothing.at_all }}", "undefined"),
        ("{{ '\\ud800' }}", "lone surrogate"),
        ("{{ '%c' % 0xdfff }}", "lone surrogate"),
        ("{{ ('x' * 2500000) ~ ('y' * 2500000) }}", "more than 4000000 characters"),
        ("{{ '<s>' * 200000 }}", "more than 100000 special tokens"),
    ],
)
def test_what_a_template_must_not_do_is_said(template: str, message: str, make: Make):
    with pytest.raises(PromptError, match=rf"chat\.jinja .*{message}"):
        make(template).encode([{"role": "user", "content": "x"}])


def test_a_message_with_a_lone_surrogate_is_refused(make: Make):
    with pytest.raises(DialogError, match=r"message 1 has a lone surrogate.*chat\.jinja"):
        make(CHATML).encode([{"role": "user", "content": "a \ud800 b"}])


@pytest.mark.parametrize("name", ["bos_token", "chat_template"])
def test_a_config_with_a_lone_surrogate_is_refused(
    name: str, tmp_path: Path, rich_tokenizer: Tokenizer
):
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({"chat_template": "x", "bos_token": "<s>", name: "a \udc00"}))

    with pytest.raises(FileFormatError, match=r"tokenizer_config\.json .* lone surrogate"):
        from_options(rich_tokenizer, file=str(file))


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("{% for i in [1] %}" * 25 + "{% endfor %}" * 25, id="25 loops"),
        pytest.param("{% if 1 %}" * 150 + "{% endif %}" * 150, id="150 ifs"),
        pytest.param("{% if 0 %}" + "{% elif 0 %}" * 20_000 + "{% endif %}", id="20,000 elifs"),
        pytest.param("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", id="brackets"),
        pytest.param("{{ " + "[" * 500 + "]" * 500 + " }}", id="lists"),
        pytest.param("{{ " + "-" * 50_000 + "1 }}", id="signs"),
        pytest.param("{{ x" + ".a" * 9000 + " }}", id="attributes"),
        pytest.param("{{ x" + "|upper" * 9000 + " }}", id="filters"),
        pytest.param("{{ " + "9" * 5000 + " }}", id="digits"),
        pytest.param("{{ x | nonsense }}", id="a filter that is not there"),
    ],
)
def test_a_template_that_cannot_be_compiled_is_refused_with_a_sentence(template: str, make: Make):
    with pytest.raises(FileFormatError, match=r"^[^\n]*chat\.jinja, [^\n]{10,600}$"):
        make(template)


def test_a_message_with_many_tags_is_compared_with_a_template_of_many(make: Make):
    """Each tag in each message took hours."""
    written = "{% for i in range(99999) %}<a{{ i }}>{% endfor %}{{ messages[0].content }}"
    prompt_format = make(written)

    with pytest.raises(SpecialTagError, match="message 1 holds <a99998>"):
        prompt_format.encode([{"role": "user", "content": "<b>" * 100_000 + "<|<a99998>|>"}])


def test_a_template_that_is_none_is_refused(make: Make):
    with pytest.raises(FileFormatError, match=r"chat\.jinja, line 2 of the template: Encountered"):
        make("\n{% endfor %}")


def test_the_template_next_to_the_tokenizer_is_taken(rich_tokenizer: Tokenizer, tmp_path: Path):
    from llamakit.tokenizer.sentencepiece import load

    model = tmp_path / "tokenizer.model"
    model.write_bytes(rich_tokenizer.path.read_bytes())
    config = tmp_path / "tokenizer_config.json"
    dialog: Dialog = [{"role": "user", "content": "hello"}]
    with pytest.raises(UsageError, match=r"no chat template next to .*\"jinja\", file=FILE"):
        from_options(load(model))

    config.write_text(
        json.dumps(
            {
                "bos_token": {"content": "<|begin_of_text|>"},
                "added_tokens_decoder": {
                    "1": {"content": "<s>"},
                    "9999": {"content": "<|tool|>", "special": False},
                },
                "chat_template": [
                    {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"},
                    {"name": "tool_use", "template": "<|tool|>{{ messages[0].content }}"},
                ],
            }
        ),
        encoding="utf-8",
    )
    tokenizer = load(model)
    hello = tokenizer.encode("hello")
    begin = tokenizer.special_ids()["<|begin_of_text|>"]

    assert from_options(tokenizer).encode(dialog) == [begin, *hello]
    assert from_options(tokenizer, template="tool_use").encode(dialog) == [9999, *hello]
    with pytest.raises(UnknownNameError, match="did you mean 'tool_use'"):
        from_options(tokenizer, template="tool_us")
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}</s>")
    assert from_options(tokenizer).encode(dialog) == [*hello, tokenizer.eos_id]
    config.write_text('{"added_tokens_decoder": {"x": 1}}')
    with pytest.raises(LlamakitError, match="its added tokens cannot be read"):
        from_options(tokenizer)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.json", b"{", FileFormatError, "not JSON"),
        ("a.json", b"[]", FileFormatError, "expected an object"),
        ("a.json", b"{}", FileFormatError, "has no chat_template"),
        ("a.json", b'{"chat_template": 3}', FileFormatError, "neither a string nor a list"),
        ("a.jinja", b"\xff\xe9", FileFormatError, "not UTF-8"),
        ("a.jinja", None, UsageError, "no such file"),
    ],
)
def test_a_file_without_a_template_is_refused_with_a_sentence(
    name: str,
    content: bytes | None,
    error: type[Exception],
    message: str,
    tmp_path: Path,
    rich_tokenizer: Tokenizer,
):
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(error, match=message):
        from_options(rich_tokenizer, file=str(tmp_path / name))


def test_an_option_that_it_lacks_is_refused(rich_tokenizer: Tokenizer):
    with pytest.raises(OptionError, match="no option 'path'; there are: file, template"):
        from_options(rich_tokenizer, path="x")


# Variables of requests --------------------------------------------------------------------------


def test_a_template_reads_the_variables_that_it_is_given(make: Make) -> None:
    dialog: Any = [{"role": "user", "content": "Hello"}]
    template: Any = make("{{ bos_token }}{% if loud %}LOUD{% else %}{{ mood }}{% endif %}")

    loud = template.with_variables({"loud": True}).encode(dialog)
    calm = template.with_variables({"mood": "calm"}).encode(dialog)

    assert loud == make("<s>LOUD").encode(dialog)
    assert calm == make("<s>calm").encode(dialog)


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"messages": "x"}, DialogError),
        ({"mood": ["x"]}, DialogError),
        ({"mood": "\ud800"}, DialogError),
        ({"mood": "a</s>b"}, SpecialTagError),
    ],
)
def test_variables_are_plain_values_without_special_tokens(
    make: Make, variables: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="the variable"):
        make("{{ mood }}").with_variables(variables)  # type: ignore[attr-defined]
