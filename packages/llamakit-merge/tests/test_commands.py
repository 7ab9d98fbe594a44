"""The commands: what they print, write and refuse."""

import json

import pytest
import yaml
from adapters import write_adapter
from click.testing import CliRunner
from llamakit_merge.commands import merge, merge_lora
from small_models import write_model

import llamakit


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with two models and a merge of them in it."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("base", "one")):
        write_model(tmp_path / name, seed)
    one = {"model": "one", "parameters": {"weight": 0.5, "density": 0.5}}
    values = {"merge_method": "ties", "base_model": "base", "models": [one]}
    (tmp_path / "ties.yml").write_text(yaml.safe_dump(values), "utf-8")
    return tmp_path


def run(command, *words):
    return CliRunner().invoke(command, list(words))


def test_a_plan_writes_nothing_and_says_what_would_be(folder):
    plan = json.loads(run(merge, "ties.yml", "out", "-n", "2", "--plan", "--json").stdout)

    assert not (folder / "out").exists()
    stored = sum((folder / it / "model.safetensors").stat().st_size for it in ("base", "one"))
    assert plan["nbytes_read"] == pytest.approx(4 * stored, rel=0.2)  # TIES: four passes
    assert [file["name"] for file in plan["files"]][:2] == [
        "consolidated.00.pth",
        "consolidated.01.pth",
    ]
    assert (plan["merge_method"], plan["models"], plan["refusals"]) == ("ties", 2, [])


def test_a_plan_in_text_ends_with_1_where_it_would_be_refused(folder):
    (folder / "out").mkdir()
    (folder / "out" / "mine").touch()

    done = run(merge, "ties.yml", "out", "--plan")

    assert done.exit_code == 1
    assert "refused: out exists already" in done.output
    assert "merge method: ties" in done.output


@pytest.mark.usefixtures("folder")
def test_meta_and_huggingface_outputs_are_the_same_model():
    report = json.loads(run(merge, "ties.yml", "meta", "-n", "2", "--json").stdout)
    done = run(merge, "ties.yml", "hf", "--format", "hf", "--option", "max_shard_size=20KB")

    assert done.exit_code == 0, done.output
    assert report["merge_method"] == "ties"
    assert llamakit.diff("meta", "hf").same


def test_a_plan_of_another_format_lists_what_is_then_written_and_recorded(folder):
    words = (merge, "ties.yml", "hf", "--format", "hf", "--option", "max_shard_size=20KB", "--json")

    plan = json.loads(run(*words, "--plan").stdout)
    report = json.loads(run(*words).stdout)

    written = [{"name": it["name"], "nbytes": it["nbytes"]} for it in report["files"]]
    assert plan["files"] == written
    assert plan["merge_method"] == "ties"
    step = json.loads((folder / "hf" / "llamakit.json").read_text("utf-8"))["steps"][-1]
    assert (step["command"], step["made_by"].split()[0]) == ("merge", "llamakit-merge")
    assert step["options"] == {"format": "hf", "max_shard_size": "20KB", "config": "ties.yml"}
    assert [source["name"] for source in step["sources"]] == ["base", "one"]


def test_what_was_read_is_recorded(folder):
    write_adapter(folder / "adapter", "dora")
    run(merge, "ties.yml", "merged")
    run(merge_lora, "merged", "adapter", "tuned", "--weight", "0.5")

    steps = json.loads((folder / "tuned" / "llamakit.json").read_text("utf-8"))["steps"]

    assert [step["command"] for step in steps] == ["merge", "merge-lora"]
    assert [source["name"] for source in steps[0]["sources"]] == ["base", "one"]
    assert steps[1]["options"]["adapters"] == ["adapter"]
    assert steps[1]["made_by"].startswith("llamakit-merge ")


@pytest.mark.parametrize("destination", ["one", "base", "../{}/one", "."])
def test_no_model_of_a_merge_is_replaced_by_it(folder, destination):
    done = run(merge, "ties.yml", destination.format(folder.name), "--force")

    assert isinstance(done.exception, llamakit.LlamakitError)
    assert "would remove" in str(done.exception)
    assert (folder / "one" / "model.safetensors").exists()


def test_no_adapter_is_replaced_by_what_it_is_merged_into(folder):
    write_adapter(folder / "adapter", "dora")

    done = run(merge_lora, "base", "adapter", "adapter", "--force")

    assert "would remove adapter, which is read" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "2", "--format", "hf"], "-n is for Meta's format, and --format chooses another"),
        (["--option", "a=b"], "--option is for a --format"),
        (["--format", "hf", "--option", "a"], "'a' is not K=V"),
        (["-n", "0"], "0 is not in the range"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_options_that_do_not_go_together_are_refused(words, message):
    done = run(merge, "ties.yml", "out", *words)

    assert done.exit_code == 2
    assert message in done.output


@pytest.mark.usefixtures("folder")
def test_a_size_that_does_not_fit_is_refused_as_by_reshard():
    done = run(merge, "ties.yml", "out", "-n", "3")

    assert "cannot split the model into 3 equal shards" in str(done.exception)
