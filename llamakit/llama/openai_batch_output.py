"""Answers as lines of OpenAI's batch output files.

Source: https://platform.openai.com/docs/guides/batch (the output file).
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from llamakit.llama.openai_batch import CHAT
from llamakit.llama.prompt_batch import Answer


def response_line(answer: Answer, model: str) -> dict[str, Any]:
    """Return an answer as a line of OpenAI's output file.

    Args:
        model: its name.
    """
    prompt, own = answer.prompt, answer.prompt.own
    assert own is not None
    is_chat = own.url == CHAT
    usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": len(answer.tokens)}
    body = {
        "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{secrets.token_hex(12)}",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [_chat_choice(answer) if is_chat else _text_choice(answer)],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }
    response = {"status_code": 200, "request_id": secrets.token_hex(16), "body": body}
    return {
        "id": f"batch_req_{secrets.token_hex(12)}",
        "custom_id": prompt.id,
        "response": response,
        "error": None,
        **({"llamakit": {"observed": answer.observed}} if answer.observed else {}),
        **prompt.more,
    }


def _text_choice(answer: Answer) -> dict[str, Any]:
    return {"index": 0, "text": answer.text, "logprobs": None, "finish_reason": answer.finish}


def _chat_choice(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    finish = answer.finish
    if answer.tool_calls:
        message["content"] = answer.content or None
        message["tool_calls"] = answer.tool_calls
        finish = "tool_calls" if finish == "stop" else finish
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
