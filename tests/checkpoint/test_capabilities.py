"""What a checkpoint of a third-party format may offer: used where it is there, and checked."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import llamakit
from llamakit.checkpoint import capabilities
from llamakit.checkpoint.layout import ROPE_FREQS
from llamakit.checkpoint.meta_checkpoint import MetaCheckpoint, open_meta
from llamakit.errors import PluginError
from llamakit.protocols import Finding, RawRegion
from llamakit.testing import check_checkpoint_form


@pytest.fixture
def striped(install, monkeypatch):
    """The third-party package, as pip has installed it."""
    monkeypatch.syspath_prepend(install("striped_format"))
    yield importlib.import_module("llamakit_striped")
    del sys.modules["llamakit_striped"]


@pytest.fixture
def whole(striped, tmp_path, mha_mp8):
    """A whole checkpoint of the format."""
    return striped.write_striped(llamakit.open_checkpoint(mha_mp8), tmp_path / "striped")


def values(checkpoint):
    return {name: checkpoint.read(name).tobytes() for name in checkpoint.parameters}


def test_the_package_keeps_the_contract(striped, whole):
    check_checkpoint_form(striped.open_checkpoint, whole)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_reshard_copies_the_regions_and_never_reads(striped, whole, tmp_path, mha_mp8, size):
    source = striped.open_checkpoint(whole)

    llamakit.reshard(source, tmp_path / "out", size)

    out = open_meta(tmp_path / "out")
    assert source.nbytes_read == 0
    assert values(out) == values(open_meta(mha_mp8))
    assert out.stored_names() == source.stored_names() != list(source.parameters)


def test_every_conversion_reads_nothing_and_carries_the_files_along(striped, whole, tmp_path):
    source = striped.open_checkpoint(whole)

    llamakit.reshard(source, tmp_path / "resharded", 2)
    llamakit.import_checkpoint(source, tmp_path / "imported", 1)
    llamakit.export(source, tmp_path / "hf", "hf")
    llamakit.export(source, tmp_path / "safetensors", "safetensors")

    for name in ("resharded", "imported", "hf", "safetensors"):
        assert (tmp_path / name / "NOTES.md").read_text() == "Made of stripes.\n"
    assert source.nbytes_read == 0
    exported = values(llamakit.open_checkpoint(tmp_path / "hf"))
    assert {**exported, ROPE_FREQS: source.read(ROPE_FREQS).tobytes()} == values(source)
    assert (tmp_path / "safetensors" / "consolidated.01.safetensors").is_file()
    assert "NOTES.md" in (tmp_path / "resharded" / "checklist.chk").read_text()
    record = json.loads((tmp_path / "resharded" / "llamakit.json").read_text())
    recorded = [file["name"] for file in record["steps"][0]["sources"][0]["files"]]
    assert recorded == [*striped.FILES, "NOTES.md"]


def test_commands_use_all_that_the_format_offers(whole, tmp_path, plugins, run_llamakit):
    env = plugins("striped_format")

    inspected = run_llamakit("inspect", whole, "--json", env=env)
    resharded = run_llamakit("reshard", whole, tmp_path / "out", "-n", "2", env=env)
    good = run_llamakit("verify", "--deep", whole, env=env)
    data = bytearray((whole / "stripe.1.bin").read_bytes())
    data[-1] ^= 1
    (whole / "stripe.1.bin").write_bytes(data)
    damaged = run_llamakit("verify", "--deep", whole, env=env)

    assert json.loads(inspected.stdout)["shards"] == 2
    assert "the weights are in stripes" in json.loads(inspected.stdout)["oddities"]
    assert (resharded.returncode, good.returncode) == (0, 0), resharded.stderr + good.stdout
    assert (tmp_path / "out" / "NOTES.md").is_file()
    assert "parameters was computed" in good.stdout
    assert "its plugin's to know" not in good.stdout
    assert damaged.returncode == 1
    assert "stripe.1.bin: tok_embeddings.weight has another CRC-32" in damaged.stdout


class Plain:
    """A checkpoint that a plugin written for 0.1 would open: no more than the protocol."""

    form = "plain"

    def __init__(self, inner):
        self.inner = inner
        self.path, self.params, self.parameters = inner.path, inner.params, inner.parameters
        self.nbytes_read = 0

    def read(self, name, **bounds):
        array = self.inner.read(name, **bounds)
        self.nbytes_read += array.nbytes
        return array


class Delegating(Plain):
    """As a wrapper does it that changes values: all but ``read`` comes from another checkpoint."""

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Derived(MetaCheckpoint):
    """A format that is Meta's but for what its ``read`` returns."""

    def read(self, name, **bounds):
        return super().read(name, **bounds) * np.float16(2)


@pytest.mark.parametrize("make", [Plain, Delegating, "derived"])
def test_a_checkpoint_without_the_methods_is_read(make, mha_mp8, tmp_path):
    inner = open_meta(mha_mp8)
    checkpoint = (
        make(inner)
        if callable(make)
        else Derived(inner.path, inner.params, inner.shards, inner.embedding_axis)
    )

    llamakit.reshard(checkpoint, tmp_path / "out", 2)

    assert checkpoint.nbytes_read > 0
    assert values(open_meta(tmp_path / "out")) == values(checkpoint)
    assert capabilities.stored_names(checkpoint) == list(checkpoint.parameters)
    assert capabilities.model_parallel_size(checkpoint) == 1
    assert not capabilities.weight_files(checkpoint)
    assert not capabilities.companion_files(checkpoint, "meta")
    assert not [*capabilities.deep_checks(checkpoint), *capabilities.oddities(checkpoint)]


def first(regions, **changes):
    return [replace(regions[0], **changes), *regions[1:]]


LIES = {
    "another shape": (lambda it: first(it, shape=(it[0].shape[0], 1)), "its index says"),
    "one too few": (lambda it: it[:1], "its index says"),
    "one too many": (lambda it: [*it, it[0]], "its index says"),
    "beyond the file": (lambda it: first(it, offset=1 << 40), "ends at byte"),
    "before the file": (lambda it: first(it, offset=-1), "are no counts"),
    "two orders": (lambda it: first(it, order="huggingface"), "in the order"),
    "half a head": (lambda it: first(it, shape=(it[0].shape[0] - 1, *it[0].shape[1:])), "a head"),
    "no file": (lambda it: first(it, path=it[0].path / "none"), "ends at byte"),
    "no path": (lambda it: first(it, path="stripe.0.bin"), "failed to say where"),
    "no regions": (lambda _: [1, 2], "no RawRegion"),
    "no sequence": (lambda _: 7, "int, no sequence"),
    "nonsense": (lambda _: 1 // 0, "ZeroDivisionError"),
}


@pytest.mark.parametrize("lie", LIES)
def test_regions_that_contradict_the_index_are_refused(striped, whole, tmp_path, lie):
    change, sentence = LIES[lie]

    class Lying(striped.StripedCheckpoint):
        __module__ = "llamakit_striped"

        def raw_regions(self, name):
            honest = super().raw_regions(name)
            return change(honest) if name == "layers.0.attention.wq.weight" else honest

        read = striped.StripedCheckpoint.read

    checkpoint = Lying(whole, json.loads((whole / "striped.json").read_text()))

    with pytest.raises(
        PluginError, match=rf"'striped' \(opened by llamakit.striped\).*({sentence})"
    ):
        llamakit.reshard(checkpoint, tmp_path / "out", 2)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "answer", "sentence"),
    [
        ("companion_files", ["NOTES.md"], "no Path"),
        ("companion_files", lambda it: [it.path / "absent"], "absent, which is no file"),
        ("companion_files", lambda it: [it.path / "NOTES.md"] * 2, "several files of one name"),
        ("companion_files", lambda it: [it.path / "checklist.chk"], "a checklist.chk of its own"),
        ("stored_names", ["norm.weight"], "other names than its index"),
        ("weight_files", 3, "int, no sequence"),
    ],
)
def test_other_answers_are_checked_too(striped, whole, tmp_path, method, answer, sentence):
    (whole / "checklist.chk").write_text("")

    def lie(self, *args):
        return answer(self) if callable(answer) else answer

    kind = type(
        "Lying", (striped.StripedCheckpoint,), {method: lie, "__module__": "llamakit_striped"}
    )
    kind.read = striped.StripedCheckpoint.read
    checkpoint = kind(whole, json.loads((whole / "striped.json").read_text()))

    with pytest.raises(PluginError, match=rf"\(opened by llamakit.striped\).*{sentence}"):
        llamakit.reshard(checkpoint, tmp_path / "out", 2)


def test_a_quantized_weight_of_another_type_is_refused(striped, whole):
    class Lying(striped.StripedCheckpoint):
        __module__ = "llamakit_striped"
        read = striped.StripedCheckpoint.read

        def quantization_of(self, name):
            return "int8" if name in self.parameters else None

        def read_quantized(self, name, *, axis=0, start=0, stop=None):
            return self.read(name, axis=axis, start=start, stop=stop)

    checkpoint = Lying(whole, json.loads((whole / "striped.json").read_text()))
    parameter = checkpoint.parameters["layers.0.attention.wo.weight"]

    with pytest.raises(PluginError, match=r"llamakit.striped.*ndarray, no QuantizedWeight"):
        capabilities.read_quantized(checkpoint, parameter)


def test_a_deep_check_that_fails_is_a_fault(striped, whole):
    class Failing(striped.StripedCheckpoint):
        __module__ = "llamakit_striped"
        read = striped.StripedCheckpoint.read

        def deep_checks(self):
            yield Finding("so far so good", "checked")
            raise ZeroDivisionError

    checkpoint = Failing(whole, json.loads((whole / "striped.json").read_text()))

    good, fault = capabilities.deep_checks(checkpoint)

    assert (good.kind, fault.kind) == ("checked", "fault")
    assert "(opened by llamakit-striped) failed to answer deep_checks" in fault.sentence


def test_the_kit_compares_regions_with_what_is_read(striped, whole):
    class Swapped(striped.StripedCheckpoint):
        read = striped.StripedCheckpoint.read

        def raw_regions(self, name):
            one, other = super().raw_regions(name)
            return [one, other] if sys._getframe(1).f_code.co_name == "read" else [other, one]

    def open_checkpoint(path):
        """Open a striped checkpoint."""
        opened = striped.open_checkpoint(path)
        return opened and Swapped(path, json.loads((path / "striped.json").read_text()))

    with pytest.raises(AssertionError, match="are other bytes than read returns"):
        check_checkpoint_form(open_checkpoint, whole)


def test_a_region_is_a_plain_value(tmp_path):
    assert RawRegion(tmp_path, 0, (1,)) == RawRegion(tmp_path, 0, (1,), "meta")
