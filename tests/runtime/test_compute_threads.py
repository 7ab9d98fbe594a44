"""How many threads a pass is computed with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from engine_kit import answers, counting, random_tokens, request
from torch import nn

from llamakit import demo
from llamakit.api import Llama
from llamakit.runtime.compute_threads import ComputeThreads
from llamakit.runtime.kernels.kernel import Plain


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    usual = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(usual)


def layers(nbytes: int) -> nn.Module:
    return nn.ModuleList([Plain(torch.zeros(nbytes // 4, 1))])


def threads(nbytes: int, positions: int, *, is_shared: bool) -> int:
    with ComputeThreads(layers(nbytes), is_shared=is_shared).limited(positions):
        return torch.get_num_threads()


def test_small_products_are_computed_on_one_thread_and_large_ones_on_all() -> None:
    assert threads(1000, 1, is_shared=False) == 1
    assert threads(10_000_000, 1, is_shared=False) == 2


def test_a_server_needs_larger_products_for_two_threads() -> None:
    assert threads(2_000_000, 1, is_shared=False) == 2
    assert threads(2_000_000, 1, is_shared=True) == 1


def test_many_positions_make_a_product_large() -> None:
    assert threads(500_000, 256, is_shared=True) == 2


def test_the_number_of_threads_is_the_users_own_again_after_a_pass_that_fails() -> None:
    with (
        pytest.raises(OverflowError),
        ComputeThreads(layers(1000), is_shared=False).limited(1),
    ):
        raise OverflowError

    assert torch.get_num_threads() == 2


def test_a_number_in_the_environment_holds_for_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    assert threads(1000, 1, is_shared=True) == 2


def test_answers_do_not_depend_on_the_number_of_threads() -> None:
    asked = [request(random_tokens(5 + n, n), 8, temperature=0.8, seed=n) for n in range(8)]
    with Llama.build(str(demo.path()), max_seq_len=64, dtype="float32") as llama:
        two = answers(counting(llama), asked, slots=8)
        torch.set_num_threads(1)
        one = answers(counting(llama), asked, slots=8)

    assert one == two
