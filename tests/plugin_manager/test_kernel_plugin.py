"""A third-party kernel: the one of the how-to page, and one that does what it should not."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from pathlib import Path

import pytest
import torch

from llamakit import hookimpl
from llamakit.errors import PluginError, UsageError
from llamakit.plugin_manager.contracts.kernels import spec_fault
from llamakit.plugin_manager.entry_points import EntryPoint, find_entry_points
from llamakit.plugin_manager.toolkit import load_toolkit
from llamakit.protocols import KernelSpec
from llamakit.runtime.kernels import calibration
from llamakit.runtime.kernels.choice import Packer
from llamakit.testing import check_kernel
from llamakit.testing.trial import try_all

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "kernels.md"
CPU, FLOAT = torch.device("cpu"), torch.float32
SPEC = KernelSpec("llamakit_odd:pack", bits=8, exactness="rounded-weights")

FAULTS = ("call", "batch", "shape", "dtype", "value", "pack", "packed", "outlier")


class Odd:
    """Multiplies, or does what it was told to do wrong."""

    nbytes = 5

    def __init__(self, weight, fault):
        self.weight, self.fault = weight, fault

    def __call__(self, x):
        if self.fault == "call":
            raise ZeroDivisionError("it fails")
        out = (x.float() @ self.weight.multiplied_out().T).to(x.dtype)
        if self.fault == "batch":
            return out * x.abs().amax()
        if self.fault == "strange":
            return types.SimpleNamespace(shape=out.shape)
        if self.fault == "outlier":  # rounded in groups of 32, as a plain 8-bit kernel does
            groups = x.float().unflatten(-1, (-1, 32))
            steps = groups.abs().amax(-1, keepdim=True) / 127 + 1e-30
            rounded = ((groups / steps).round() * steps).flatten(-2)
            return (rounded @ self.weight.multiplied_out().T).to(x.dtype)
        return {"shape": out[:, :1], "dtype": out.double(), "value": out * 2}.get(self.fault, out)


class Gated(Odd):
    """Multiplies the halves of a feed-forward itself, or does that wrong."""

    def gated(self, x):
        if self.fault == "fails":
            raise ZeroDivisionError("it fails")
        if self.fault == "none" or self.weight.shape[0] % 32:
            return None
        gate, others = self(x).chunk(2, -1)
        out = torch.nn.functional.silu(gate) * others
        return {"whole": self(x), "swapped": torch.nn.functional.silu(others) * gate}.get(
            self.fault, out
        )


def toolkit_of(monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, name, module)
    point = EntryPoint("odd", name, "", "llamakit-odd", "1.0")
    builtins = [it for it in find_entry_points("llamakit") if it.name == "kernels"]
    return load_toolkit([*builtins, point], disabled="")


def odd(monkeypatch, fault="", spec=SPEC, packed=Odd):
    module = types.ModuleType("llamakit_odd")

    def pack(weight, dtype):
        if fault == "pack":
            raise ZeroDivisionError("it fails")
        return 7 if fault == "packed" else packed(weight, fault)

    @hookimpl
    def register_kernels(kernels):
        kernels.register("odd", spec, help="multiplies")

    module.pack, module.register_kernels = pack, register_kernels
    return toolkit_of(monkeypatch, module, "llamakit_odd")


def product(toolkit):
    packer = Packer(CPU, FLOAT, "int8", fastest={8: "odd"}, kernels=toolkit.kernels)
    return packer.pack(torch.ones(32, 64))(torch.ones(1, 3, 64))


def test_the_kernel_of_the_page_keeps_the_contract_and_is_taken(monkeypatch):
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[0]
    module = types.ModuleType("llamakit_widened")
    exec(compile(code, str(PAGE), "exec"), vars(module))
    toolkit = toolkit_of(monkeypatch, module, "llamakit_widened")
    packer = Packer(CPU, FLOAT, "int8", fastest={8: "widened"}, kernels=toolkit.kernels)

    kernel = packer.pack(torch.eye(64))

    check_kernel(toolkit.kernels.get("widened"))
    assert kernel.name == "widened"
    assert torch.allclose(kernel(torch.ones(2, 5, 64)), torch.ones(2, 5, 64))


def test_one_that_was_not_measured_waits_behind_the_built_in_ones(monkeypatch):
    toolkit = odd(monkeypatch)

    kernel = Packer(CPU, FLOAT, "int8", kernels=toolkit.kernels).pack(torch.ones(32, 64))

    assert kernel.name != "odd"


@pytest.mark.parametrize("fault", ["pack", "call", "packed", "shape", "dtype", "strange"])
def test_what_goes_wrong_names_the_plugin(monkeypatch, fault):
    toolkit = odd(monkeypatch, fault)

    with pytest.raises(PluginError, match=r"kernel odd of the plugin 'odd' \(llamakit-odd 1.0\)"):
        product(toolkit)


@pytest.mark.parametrize(("packed", "fault"), [(Odd, ""), (Gated, ""), (Gated, "none")])
def test_the_halves_of_a_feed_forward_are_the_kernels_or_llamakits(monkeypatch, packed, fault):
    toolkit = odd(monkeypatch, fault, packed=packed)
    packer = Packer(CPU, FLOAT, "int8", fastest={8: "odd"}, kernels=toolkit.kernels)
    kernel, x = packer.pack(torch.randn(64, 32)), torch.randn(2, 3, 32)

    gate, others = kernel(x).chunk(2, -1)

    assert torch.allclose(kernel.gated(x), torch.nn.functional.silu(gate) * others)


@pytest.mark.parametrize("fault", ["fails", "whole"])
def test_what_goes_wrong_in_halves_names_the_plugin(monkeypatch, fault):
    toolkit = odd(monkeypatch, fault, packed=Gated)
    packer = Packer(CPU, FLOAT, "int8", fastest={8: "odd"}, kernels=toolkit.kernels)

    with pytest.raises(PluginError, match=r"kernel odd of the plugin 'odd' \(llamakit-odd 1.0\)"):
        packer.pack(torch.ones(32, 64)).gated(torch.ones(1, 64))


@pytest.mark.parametrize("fault", ["fails", "whole", "swapped"])
def test_the_check_for_authors_tries_the_halves(monkeypatch, fault):
    with pytest.raises(AssertionError, match="gated"):
        check_kernel(odd(monkeypatch, fault, packed=Gated).kernels.get("odd"))

    check_kernel(odd(monkeypatch, packed=Gated).kernels.get("odd"))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_for_authors_finds_it(monkeypatch, fault):
    toolkit = odd(monkeypatch, fault)

    with pytest.raises(AssertionError, match="kernel"):
        check_kernel(toolkit.kernels.get("odd"))


@pytest.mark.parametrize("fault", FAULTS)
def test_plugins_check_finds_it(monkeypatch, fault):
    toolkit = odd(monkeypatch, fault)

    try_all(toolkit)

    (record,) = (it for it in toolkit.plugins if not it.source.builtin)
    assert record.status == "broken"
    assert record.reason.startswith("kernel odd: ")


@pytest.mark.parametrize(("fault", "missing"), [("", ""), ("call", "llamakit_odd:missing")])
def test_plugins_check_passes_what_is_right_and_what_this_machine_lacks(
    monkeypatch, fault, missing
):
    toolkit = odd(monkeypatch, fault, dataclasses.replace(SPEC, missing=missing))
    sys.modules["llamakit_odd"].missing = lambda: "it needs a quantum computer"

    try_all(toolkit)

    assert {it.status for it in toolkit.plugins} == {"ok"}


def test_one_that_loses_what_is_beside_outliers_is_not_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    toolkit = odd(monkeypatch, "outlier")
    monkeypatch.setattr(calibration, "default_toolkit", lambda: toolkit)
    monkeypatch.setattr(calibration, "candidates", lambda: [toolkit.kernels.entry("odd")])
    said: list[str] = []

    timings = calibration.calibrate(said.append)

    assert timings == []
    assert calibration.remembered() == {"one sequence": {}, "several": {}}
    assert "left out: the kernel odd of the plugin 'odd'" in said[1]
    assert "allows 0.02, where two channels are outliers" in said[1]


def test_the_check_for_authors_passes_what_is_right(monkeypatch):
    check_kernel(odd(monkeypatch).kernels.get("odd"))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"pack": "nowhere"}, "expected 'module:function'"),
        ({"missing": 5}, "expected 'module:function'"),
        ({"bits": 3}, "expected 16, 8 or 4"),
        ({"exactness": "exact"}, "8 bits and is exact"),
        ({"exactness": "nearly"}, "the exactness 'nearly'"),
        ({"devices": "cpu"}, "as devices"),
        ({"dtypes": ("int8",)}, "as dtypes"),
        ({"rows": (0, 3)}, "as rows"),
        ({"rows": (4, 3)}, "as rows"),
    ],
)
def test_a_spec_that_is_wrong_is_refused_when_it_is_registered(monkeypatch, capsys, changes, fault):
    spec = KernelSpec(**{"pack": "a:b", "bits": 8, "exactness": "rounded-weights"} | changes)

    toolkit = odd(monkeypatch, spec=spec)

    assert fault in spec_fault(spec)
    assert "odd" not in toolkit.kernels
    assert fault in capsys.readouterr().err


def test_a_name_of_a_built_in_kernel_stays_with_it(monkeypatch):
    module = types.ModuleType("llamakit_odd")
    module.register_kernels = hookimpl(lambda kernels: kernels.register("int8", SPEC))

    toolkit = toolkit_of(monkeypatch, module, "llamakit_odd")

    assert toolkit.kernels.entry("int8").source.builtin


def test_without_any_kernel_a_model_is_refused_in_one_sentence():
    with pytest.raises(UsageError, match="no kernel multiplies"):
        Packer(CPU, FLOAT, kernels=()).pack(torch.ones(32, 64))
