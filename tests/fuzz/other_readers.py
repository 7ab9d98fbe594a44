"""Readers of tokenizers, prompts, requests, replies and llamakit's own files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace

from fuzz_kit import Reader

from llamakit.cli.answer_file import AnswerFile
from llamakit.cli.chat import session_file
from llamakit.convert.hf_tokenizer import tokenizer_json
from llamakit.convert.sentencepiece_model import read_sentencepiece_model
from llamakit.download import responses
from llamakit.download.link import read_link
from llamakit.download.part_file import Identity, PartFile
from llamakit.download.responses import ChangedError, TransientError
from llamakit.download.verified_files import NAME, VerifiedFiles
from llamakit.files.tokenizer_kind import tokenizer_kind
from llamakit.llama.prompts import read_prompts
from llamakit.plugins.prompt_formats.jinja import template_file
from llamakit.plugins.prompt_formats.llama3.tools import read_tools
from llamakit.runtime.kernels import calibration
from llamakit.runtime.rank_messages import decode, encode
from llamakit.serve.api_errors import ApiError
from llamakit.serve.body_check import BODIES, BodyLimits, checked_body
from llamakit.tokenizer import tokenizer_json as tokenizer_json_reader
from llamakit.tokenizer.rank_file import read_ranks
from llamakit.tokenizer.sentencepiece import load
from llamakit.tokenizer.special_tokens import LLAMA_3_1_HF

TOKENIZER = Path(__file__).parents[1] / "data" / "reference-cases" / "tokenizer.model"
DEEP = (b"[" * 100_000, b'{"a":' * 100_000, rb'{"\ud800": "\udc00"}', b'"' + b"9" * 2_000_000)


def read_tokenizer(_: bytes, path: Path) -> None:
    tokenizer = load(path)
    tokenizer.decode(tokenizer.encode("Once upon a time", bos=True, eos=True))
    tokenizer.decode(range(min(tokenizer.vocab_size, 1000)))
    tokenizer.token_bytes()
    tokenizer.special_ids()


def read_template(_: bytes, path: Path) -> None:
    template_file.find(
        SimpleNamespace(path=path.with_name("tokenizer.model")), str(path), "default"
    )


def read_request(data: bytes, _: Path) -> None:
    limits = BodyLimits(1 << 20, 16, 4096)
    refused = []
    for path in BODIES:
        try:
            checked_body(data, "gzip" if data.startswith(b"\x1f") else "", path, limits)
        except ApiError as error:
            refused.append(error)
    if len(refused) == len(BODIES):
        raise refused[0]


def read_replies(data: bytes, _: Path) -> None:
    """Read headers, one a line, as httpx would give them."""
    lines = data.decode("latin-1").split("\n")
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    responses.retry_after(headers)
    responses.validator(headers)
    responses.is_page(headers)
    responses.check_range(headers, 0, Identity("a", 10, "x"))


def read_state(_: bytes, path: Path) -> None:
    final = path.with_name("a")
    final.with_name("a.part").write_bytes(bytes(10))
    PartFile(final, Identity("a", 10, "x")).close()


MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
CHAT = {
    "format": session_file.FORMAT,
    "messages": [*MESSAGES, {"role": "assistant", "content": ""}],
}
REQUEST = {"messages": MESSAGES, "model": "llama", "temperature": 0.5, "max_tokens": 2.0, "n": 1}
ANSWER = {"index": 0, "id": "0-a", "prompt": "a", "text": "b", "logprobs": [-0.5]}
STATE = {
    "format": 1,
    "block_nbytes": 262144,
    "path": "a",
    "nbytes": 10,
    "validator": "x",
    "boot": "",
}
HEADERS = b"Content-Range: bytes 0-9/10\nRetry-After: 10\nETag: W/x\nContent-Type: text/plain"
LINK = b"https://download.llamameta.net/*?Policy=eyJTdGF0ZW1lbnQiOlt7IlJlc291cmNlIjoiYSJ9XX0_&"
LINK += b"Signature=abc&Key-Pair-Id=K"
FASTEST = {"one sequence": {"16": "gemv"}, "several": {"16": "onednn", "8": "onednn-int8"}}
CALIBRATION = {"machine": {}, "fastest": FASTEST, "timings": [{"kernel": "gemv"}]}

RANKS = b"".join(b"%s %d\n" % (base64.b64encode(bytes([byte])), byte) for byte in range(256))
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
TOKENS = {"model": {"type": "BPE", "vocab": {"!": 0}, "merges": []}, "added_tokens": []}
TOKENS |= {"pre_tokenizer": {"pretokenizers": [{"pattern": {"Regex": LLAMA_3_1_HF.pattern}}]}}

READERS = (
    Reader(
        "ranks",
        lambda _, path: read_ranks(path) if tokenizer_kind(path) == "ranks" else None,
        [RANKS],
        [b"QQ== 0\n" * 1_000_000, b"QQ== 99999999\n", b"Q" * 2_000_000 + b" 0\n"],
        file="tokenizer.model",
        cases=300,
    ),
    Reader(
        "tokenizer.json",
        lambda _, path: tokenizer_json_reader.load(path),
        [json.dumps(TOKENS).encode()],
        DEEP,
        file="tokenizer.json",
    ),
    Reader("tools", lambda _, path: read_tools(path), [json.dumps(TOOLS).encode()], DEEP),
    Reader(
        "tokenizer", read_tokenizer, [TOKENIZER.read_bytes()], file="tokenizer.model", cases=250
    ),
    Reader(
        "tokenizer for export",
        lambda _, path: tokenizer_json(read_sentencepiece_model(path)),
        [TOKENIZER.read_bytes()],
        file="tokenizer.model",
        cases=100,
    ),
    Reader(
        "added tokens",
        lambda _, path: load_beside(path),
        [b'{"added_tokens_decoder": {"32000": {"content": "<|im_start|>"}}}'],
        [*DEEP, b'{"added_tokens_decoder": {"%s": {"content": "a"}}}' % (b"9" * 5000)],
        file="tokenizer_config.json",
    ),
    Reader(
        "prompts",
        lambda _, path: read_prompts((), path),
        [
            b'{"prompt": "a", "id": 1, "seed": 2}\n"b"\n',
            json.dumps({"messages": MESSAGES}).encode(),
        ],
        [*DEEP, b'{"\x1b[2J": "\x1b"}', b'{"prompt": "a", "%s": 1}' % (b"a" * 2_000_000)],
        file="prompts.jsonl",
    ),
    Reader(
        "saved chat",
        lambda _, path: session_file.load(path),
        [json.dumps(CHAT).encode()],
        DEEP,
        file="chat.json",
    ),
    Reader(
        "answers",
        lambda _, path: AnswerFile(path).__exit__(None),
        [json.dumps(ANSWER).encode() + b"\n", json.dumps(ANSWER).encode()],
        DEEP,
        file="answers.jsonl",
    ),
    Reader(
        "template",
        read_template,
        [
            b'{"chat_template": "{{ x }}", "bos_token": "a", "eos_token": {"content": "b"}}',
            b'{"chat_template": [{"name": "default", "template": "{{ x }}"}]}',
        ],
        [
            *DEEP,
            b'{"chat_template": [{"name": "\x1b%s"}]}' % (b"a" * 2_000_000),
            b'{"chat_template": [{"name": "\\u001b%s", "template": ""}]}' % (b"a" * 2_000_000),
        ],
        file="tokenizer_config.json",
    ),
    Reader(
        "request",
        read_request,
        [json.dumps(REQUEST).encode(), b'{"prompt": ["a", "b"]}'],
        [*DEEP, b'{"\\u001b%s": 1}' % (b"a" * 2_000_000), b'{"prompt": "a", "n": "\\u001b[2J"}'],
    ),
    Reader(
        "replies",
        read_replies,
        [HEADERS],
        [
            b"Content-Range: bytes 0-9/" + b"9" * 5000,
            b"Content-Range: bytes " + b"9" * 5000 + b"-1/*",
            b"Content-Range: bytes 0-9/10\nRetry-After: " + b"9" * 5000,
            b"Content-Range: bytes 0-9/10\nRetry-After: Mon, 01 Jan 0001 00:00:00 +9999",
            b"Content-Range: bytes 0-9/10\nRetry-After: Mon, 31 Dec 9999 23:59:59 -9999",
            b"Content-Range: bytes 0-9/10\nRetry-After: \xb2",
        ],
        may_raise=(TransientError, ChangedError),
    ),
    Reader(
        "link",
        lambda data, _: read_link(data.decode("utf-8", "replace")),
        [LINK],
        [LINK.replace(b"eyJ", b"W1tb" * 1000)],
        cases=40,
    ),
    Reader(
        "download state",
        read_state,
        [json.dumps(STATE).encode() + b"\n\1"],
        DEEP,
        file="a.part.state",
        cases=200,
        opens=("/proc/sys/kernel/random/boot_id",),
    ),
    Reader(
        "verified files",
        lambda _, path: VerifiedFiles(path.parent).contains("a", "0" * 32),
        [json.dumps({"a": ["0" * 32, 1, 2, 3]}).encode()],
        DEEP,
        file=NAME,
    ),
    Reader(
        "calibration",
        lambda _, path: (
            calibration.remembered(path.parent),
            calibration.remembered_timings(path.parent),
        ),
        [json.dumps(CALIBRATION | {"machine": calibration.machine()}).encode()],
        DEEP,
        file="kernels.json",
        opens=("/proc/cpuinfo",),
    ),
    Reader(
        "rank messages",
        lambda data, _: decode(data),
        [encode(("bye", None)), encode((0, "copy", (1, 2.5, {"a": [1]})))],
        DEEP[:3],
    ),
)


def load_beside(path: Path) -> None:
    tokenizer = path.with_name("tokenizer.model")
    if not tokenizer.exists():
        tokenizer.write_bytes(TOKENIZER.read_bytes())
    load(tokenizer).special_ids()
