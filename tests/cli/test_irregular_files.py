"""A FIFO, a folder or a device in the place of a file is refused at once, by its name."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from llamakit.cli.main import main

KINDS = ("FIFO", "device", "folder")


@pytest.fixture(autouse=True)
def at_once():
    """End a test that waits."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for the FIFO"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


@pytest.fixture(scope="module")
def models(reference_cases, tmp_path_factory):
    """A checkpoint in each format, with a tokenizer in its folder."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(reference_cases / "gqa-mp1", folder / "meta")
    shutil.copy(reference_cases / "tokenizer.model", folder / "meta")
    assert main(["export", str(folder / "meta"), str(folder / "hf")]) == 0
    return folder


@pytest.fixture
def model(models, tmp_path):
    def copy(form):
        return shutil.copytree(models / form, tmp_path / "model")

    return copy


def put(kind, path):
    """Put something irregular in the place of a file."""
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")


def refused(capsys, kind, *words):
    """Run a command in this process; return what it said."""
    status = main([*map(str, words)])
    told = capsys.readouterr()
    assert status != 0
    assert f"it is a {kind}; expected a regular file" in told.err + told.out
    return told.err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["params.json", "consolidated.00.pth", "tokenizer.model"])
def test_a_file_of_metas_format_is_refused_before_anything_is_written(
    model, tmp_path, capsys, kind, name
):
    put(kind, model("meta") / name)

    told = refused(capsys, kind, "reshard", tmp_path / "model", tmp_path / "out", "-n", "1")

    assert name in told
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_of_hugging_faces_format_is_refused(model, tmp_path, capsys, kind, name):
    put(kind, model("hf") / name)
    if name == "tokenizer.json":
        (tmp_path / "model" / "tokenizer.model").unlink()

    command = ("export",) if name == "tokenizer.json" else ("import",)
    told = refused(capsys, kind, *command, tmp_path / "model", tmp_path / "out")

    assert name in told
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_refused(model, tmp_path, capsys, kind):
    model("hf")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "model-1.safetensors")
    put(kind, tmp_path / "model" / "model.safetensors.index.json")

    assert "index.json" in refused(capsys, kind, "inspect", tmp_path / "model")


@pytest.mark.parametrize("kind", KINDS)
def test_a_checklist_is_refused(model, tmp_path, capsys, kind):
    put(kind, model("meta") / "checklist.chk")

    refused(capsys, kind, "verify", tmp_path / "model")
    words = ("reshard", tmp_path / "model", tmp_path / "out", "-n", "1", "--verify")
    assert "checklist.chk" in refused(capsys, kind, *words)


@pytest.mark.parametrize("kind", ["FIFO", "device"])  # Click itself refuses some folders
@pytest.mark.parametrize(
    "words",
    [
        ("--prompts", "{}"),
        ("hello", "--prompt-format", "jinja:file={}"),
        ("hello", "--prompt-format", "llama3:tools={}"),
        ("hello", "--processor", "json-schema:file={}"),
        ("hello", "--processor", "grammar:file={}"),
    ],
)
def test_files_of_generate_are_refused(models, tmp_path, capsys, kind, words):
    put(kind, tmp_path / "file")
    filled = [word.format(tmp_path / "file") for word in words]

    refused(capsys, kind, "generate", "-m", models / "meta", *filled)


@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_a_tokenizer_is_refused(models, tmp_path, capsys, kind):
    put(kind, tmp_path / "tokenizer.model")
    tokenizer = ("--tokenizer", tmp_path / "tokenizer.model")

    assert main(["generate", "-m", str(models / "meta"), "x", *map(str, tokenizer)]) == 1
    assert "a FIFO, a socket or a device, but a tokenizer is a file" in capsys.readouterr().err
    refused(capsys, kind, "export", models / "meta", tmp_path / "out", *tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_chat_is_refused(tmp_path, kind):
    from llamakit.cli.chat import session_file
    from llamakit.cli.chat.conversation import Conversation

    put(kind, tmp_path / "chat.json")

    with pytest.raises(OSError, match=f"it is a {kind}"):
        session_file.load(tmp_path / "chat.json")
    with pytest.raises(OSError, match=f"it is a {kind}"):
        session_file.save(Conversation(), tmp_path / "chat.json")


def test_a_config_of_the_tokenizer_is_refused(model, tmp_path, capsys):
    put("FIFO", model("meta") / "tokenizer_config.json")

    refused(capsys, "FIFO", "generate", "-m", tmp_path / "model", "x", "--prompt-format", "chatml")


def test_a_link_to_a_regular_file_is_read(model, tmp_path, capsys):
    params = model("meta") / "params.json"
    params.rename(tmp_path / "params")
    params.symlink_to("../params")

    assert main(["inspect", str(tmp_path / "model"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["params"]["dim"] > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", ["inspect", "verify", "import"])
def test_the_only_tokenizer_of_a_hugging_face_folder_is_not_waited_for(
    model, tmp_path, kind, command
):
    """Which family a model is of is asked of its tokenizer.json, before anything else reads it."""
    (model("hf") / "tokenizer.model").unlink()
    put(kind, tmp_path / "model" / "tokenizer.json")
    more = [str(tmp_path / "out")] if command == "import" else []

    assert main([command, str(tmp_path / "model"), *more]) in (0, 1)
