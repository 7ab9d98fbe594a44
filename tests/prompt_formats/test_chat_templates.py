"""Templates as models have them, rendered as transformers renders them.

Written for these tests in the ways of the families that they are named after.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import transformers
from jinja2.exceptions import TemplateError

from llamakit.convert.hf_tokenizer import tokenizer_json
from llamakit.convert.sentencepiece_model import read_sentencepiece_model
from llamakit.plugins.prompt_formats.jinja.renderer import Renderer, RenderingError
from llamakit.protocols import Dialog, Tokenizer

LLAMA2 = """
{%- set turns = messages %}
{%- set intro = '' %}
{%- if messages and messages[0].role == 'system' %}
    {%- set intro = '<<SYS>>\\n' ~ messages[0].content ~ '\\n<</SYS>>\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- endif %}
{%- for turn in turns %}
    {%- if (turn.role == 'user') == (loop.index0 is odd) %}
        {{- raise_exception('user and assistant take turns') }}
    {%- endif %}
    {%- if turn.role == 'user' %}
        {{- bos_token ~ '[INST] ' ~ (intro if loop.first else '') ~ turn.content | trim }}
        {{- ' [/INST]' }}
    {%- else %}
        {{- ' ' ~ turn.content.strip() ~ ' ' ~ eos_token }}
    {%- endif %}
{%- endfor %}"""

LLAMA3 = """
{%- for m in messages %}
    {%- set head = '<|start_header_id|>' ~ m['role'] ~ '<|end_header_id|>\\n\\n' %}
    {{- ('<|begin_of_text|>' if loop.first) ~ head ~ m['content'] | trim ~ '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

LLAMA31 = """
{{- bos_token }}
{%- if tools is not defined or not tools %}{% set tools = none %}{% endif %}
{%- if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}
{%- macro turn(role) %}{{ '<|start_header_id|>' ~ role ~ '<|end_header_id|>\\n\\n' }}
{{- caller() }}{{ '<|eot_id|>' }}{% endmacro %}
{%- set ns = namespace(system='', rest=messages) %}
{%- if messages[0]['role'] == 'system' %}
    {%- set ns.system = messages[0]['content'] | trim %}
    {%- set ns.rest = messages[1:] %}
{%- endif %}
{%- call turn('system') %}
    {%- if tools is not none %}{{ 'Environment: ipython\\n' }}{% endif %}
    {{- 'Cutting Knowledge Date: December 2023\\nToday Date: ' ~ date_string ~ '\\n\\n' }}
    {%- for tool in tools or [] %}{{ tool | tojson(indent=4) ~ '\\n\\n' }}{% endfor %}
    {{- ns.system }}
{%- endcall %}
{%- for m in ns.rest %}
    {%- if m.tool_calls is defined and m.tool_calls | length != 1 %}
        {{- raise_exception('one call at a time') }}
    {%- elif m.role == 'tool' %}{% continue %}
    {%- endif %}
    {%- call turn(m.role) %}{{ m.content | trim }}{% endcall %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

LLAMA32 = """
{{- bos_token }}
{%- if strftime_now is defined %}{% set today = strftime_now('%d %b %Y') %}
{%- else %}{% set today = 'unknown' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' ~ today ~ '\\n\\n<|eot_id|>' }}
{%- for m in messages if m.role != 'system' %}
    {{- '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' }}
    {%- if m.content is string %}{{ m.content }}
    {%- else %}{% for part in m.content %}{% if part.type == 'image' %}<|image|>
    {%- else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}
    {{- '<|eot_id|>' }}
{%- endfor %}"""

MISTRAL = """
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}{% set loop_messages = messages[1:] %}
{%- else %}{% set loop_messages = messages %}{% endif %}
{%- set ns = namespace(index=0) %}
{%- for m in loop_messages %}
    {%- if not (m.role == 'tool' or (m.tool_calls is defined and m.tool_calls is not none)) %}
        {%- if (m['role'] == 'user') != (ns.index % 2 == 0) %}
            {{- raise_exception('roles must alternate') }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for m in loop_messages %}
    {%- if m.role == 'user' and loop.last and system is defined %}
        {{- '[INST] ' + system + '\\n\\n' + m.content + '[/INST]' }}
    {%- elif m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}
    {%- else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}
{%- endfor %}"""

QWEN = """
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools' }}
    {%- for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- elif messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last_query=messages | length - 1, is_open=true) %}
{%- for m in messages[::-1] %}
    {%- set at = (messages | length - 1) - loop.index0 %}
    {%- if ns.is_open and m.role == 'user' and not m.content.startswith('<tool_response>') %}
        {%- set ns.is_open = false %}{% set ns.last_query = at %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- set content = m.content if m.content is string else '' %}
    {%- set thought = '' %}
    {%- if '</think>' in content %}
        {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if thought and loop.index0 > ns.last_query %}
        {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}
{%- endif %}"""

CHATML = """{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}
{%- generation %}{% set text = m.content %}{{ text + '<|im_end|>' }}{% endgeneration %}{{ text }}
{% else %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{% endif %}
{%- if loop.index == 6 %}{% break %}{% endif %}{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

FILTERS = """{% set rest = messages | rejectattr('role', 'equalto', 'assistant') | list %}
{%- for m in rest %}{{ '%-9s|%s' | format(m.role, m.content | length) }}
{{ m.role | center(20) }}{{ m.content | wordwrap(8) | indent(2) }}{{ m | dictsort }}
{{ [m.role, m.content] | map('upper') | join(' / ') }}{{ m | tojson(indent=2) }}
{{ m.content | default('?') | replace('e', 'E') | title }}{{ m.keys() | list | pprint }}
{{ '{:>12}|{:<4}'.format(m.role, loop.index) }}{{ m.content.split() | batch(2, '-') | list }}
{%- endfor %}{{ rest | groupby('role') | map('first') | list }}{{ dict(a=1) | items | list }}
{{ messages | selectattr('role', 'equalto', 'user') | list | count }}{{ 7 // 2 ** 2 }}"""

TEMPLATES = {
    **{"llama2": LLAMA2, "llama3": LLAMA3, "llama31": LLAMA31, "llama32": LLAMA32},
    **{"mistral": MISTRAL, "qwen": QWEN, "chatml": CHATML, "filters": FILTERS},
}
DIALOGS: dict[str, Dialog] = {
    "one": [{"role": "user", "content": "  What is a shard?\n"}],
    "three": [
        {"role": "user", "content": "who are you? 你好 🙂"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n a model "},
        {"role": "user", "content": 'and "then"?\n\n  def f(x):\n\treturn x'},
    ],
    "system": [
        {"role": "system", "content": "Answer in one sentence. "},
        {"role": "user", "content": "why is a & b < 'c' > &amp;"},
        {"role": "assistant", "content": "because"},
        {"role": "user", "content": ""},
    ],
    "bad": [{"role": "assistant", "content": "I begin"}],
}


@pytest.fixture(scope="module")
def judge(plain_tokenizer: Tokenizer) -> Any:
    """What renders as transformers does."""
    import tokenizers

    content = tokenizer_json(read_sentencepiece_model(plain_tokenizer.path))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(content)),
        **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    )


def outcome(render: Callable[[], str]) -> str:
    """What comes out, or that the template refuses the dialog."""
    try:
        return render()
    except (RenderingError, TemplateError) as error:
        return f"{getattr(error, 'kind', 'raised')}: {error}"


@pytest.mark.parametrize("answer", [True, False], ids=["asking", "complete"])
@pytest.mark.parametrize("dialog", DIALOGS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_renders_as_with_transformers(
    name: str, dialog: str, answer: bool, renderer: Renderer, judge: Any
):
    messages = DIALOGS[dialog]
    request = {
        "template": TEMPLATES[name],
        "names": {"bos_token": "<s>", "eos_token": "</s>"},
        "messages": messages,
        "tools": None,
        "special": [],
        "answer": answer,
        "now": datetime.now().isoformat(),
    }

    ours = outcome(lambda: "".join(renderer.render(request)))

    theirs = outcome(
        lambda: judge.apply_chat_template(
            messages,
            chat_template=TEMPLATES[name],
            add_generation_prompt=answer,
            tokenize=False,
        )
    )
    assert ours == theirs
