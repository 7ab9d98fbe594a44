"""What rendering a chat template in a process of its own costs, against transformers' in-process.

Both render the same dialogs in turn. llamakit's figure has both renderings in it (plain, and with
the messages covered), and the way to the other process and back. Prints medians and their ratio.

    python benchmarks/chat_template.py [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from llamakit.plugins.prompt_formats.jinja.renderer import Renderer

TEMPLATE = """
{%- for m in messages %}
    {%- set content = m.content | trim %}
    {%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
    {{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
SENTENCE = "The quick brown fox asks what a shard is, and <b>why</b> it was cut. "
DIALOGS = {"2 messages, 140 characters": (2, 1), "40, 28,000": (40, 10), "2, 1,000,000": (2, 7143)}


def milliseconds(work: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    renderer = Renderer()
    print(f"start and first rendering {measure_start():.0f} ms (median of 5)")
    for name, (messages, sentences) in DIALOGS.items():
        pairs = [
            measure(renderer, messages, sentences)
            for _ in range(rounds if sentences < 1000 else rounds // 20)
        ]
        theirs, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"{name:28} transformers {theirs:8.3f} ms  llamakit {ours:8.3f} ms", end="  ")
        print(f"difference {ours - theirs:8.3f} ms  ratio {ours / theirs:.2f}")
    renderer.close()


def measure_start() -> float:
    """Return what the first rendering takes."""
    times = []
    for _ in range(5):
        renderer = Renderer()
        times.append(milliseconds(lambda it=renderer: it.render(request(2, 1))))
        renderer.close()
    return statistics.median(times)


def measure(renderer: Renderer, messages: int, sentences: int) -> tuple[float, float]:
    """Return what one rendering takes with transformers and with llamakit, in milliseconds."""
    asked = request(messages, sentences)
    theirs = milliseconds(
        lambda: render_jinja_template(
            [asked["messages"]], chat_template=TEMPLATE, add_generation_prompt=True, bos_token="<s>"
        )
    )
    return theirs, milliseconds(lambda: renderer.render(asked))


def request(messages: int, sentences: int) -> dict[str, Any]:
    return {
        "template": TEMPLATE,
        "names": {"bos_token": "<s>", "eos_token": "</s>"},
        "messages": [
            {"role": role, "content": SENTENCE * sentences}
            for role in ["user", "assistant"] * (messages // 2)
        ],
        "tools": None,
        "special": ["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        "answer": True,
        "now": datetime.now().isoformat(),
    }


if __name__ == "__main__":
    main()
