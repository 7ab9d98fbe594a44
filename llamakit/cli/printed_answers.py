"""Answers as ``generate`` prints them: in the order of their prompts, as text or as JSON."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from llamakit.cli.terminal import answers_bar
from llamakit.llama.openai_batch_output import response_line
from llamakit.llama.prompt_batch import Answer

if TYPE_CHECKING:
    from llamakit.cli.generate_options import GenerateOptions
    from llamakit.llama.prompts import Prompt
    from llamakit.protocols import AnswerPiece

Printed = Generator[str | dict[str, Any], None, list[Answer]]


def printed(
    pieces: Iterable[AnswerPiece],
    prompts: Sequence[Prompt],
    indexes: Sequence[int],
    options: GenerateOptions,
    model: str,
    *,
    as_json: bool,
) -> Printed:
    """Yield what is printed: a single answer as it is generated, of several each as it ends.

    Args:
        indexes: of the prompts that are answered, in the order of the output.
        model: its name.
    Returns:
        The answers, in that order.
    """
    if len(indexes) == 1 and not as_json:
        return (yield from _streamed(pieces, prompts))
    ended: dict[int, Answer] = {}
    count = 0
    with answers_bar(len(indexes)) as counter:
        for piece in pieces:
            counter.add(piece.tokens, piece.answer is not None)
            if piece.answer is not None:
                ended[piece.index] = Answer(prompts[piece.index], **piece.answer)
            while count < len(indexes) and indexes[count] in ended:
                answer = ended[indexes[count]]
                line = answer_line(answer, indexes[count], options.logprobs, model)
                yield line if as_json else answer.text + "\n"
                count += 1
    return [ended[index] for index in indexes]


def answer_line(answer: Answer, index: int, logprobs: bool, model: str) -> dict[str, Any]:
    """Return an answer as ``--json`` prints it: to a line of OpenAI's batches, as OpenAI has it."""
    own = answer.prompt.own
    return answer.as_dict(index, logprobs) if own is None else response_line(answer, model)


def _streamed(pieces: Iterable[AnswerPiece], prompts: Sequence[Prompt]) -> Printed:
    answers = []
    for piece in pieces:
        if piece.text:
            yield piece.text
        if piece.answer is not None:
            answers.append(Answer(prompts[piece.index], **piece.answer))
    yield "\n"
    return answers
