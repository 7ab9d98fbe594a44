"""``llamakit-logit-lens``, installed, from the shell."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from plugin_packages import generated, good


def test_a_picture_is_drawn_of_each_answer(run, tmp_path):
    words = ("--observer", "logit-lens:top=2", "--observations", "lens", "--temperature", "0")

    answer = generated(run, *words, "Once upon a time")

    found = json.loads((tmp_path / "lens" / "0.logit-lens.json").read_text("utf-8"))
    assert answer["observed"] == {"logit-lens": found}
    said = [it["cells"][-1][0]["token"] for it in found["positions"]]
    assert said[-answer["new_tokens"] :] == answer["tokens"]
    picture = ElementTree.parse(tmp_path / "lens" / "0.logit-lens.svg").getroot()
    cells = [it for it in picture.iter() if it.tag.endswith("}rect")]
    assert len(cells) == len(found["positions"]) * len(found["layers"])


def test_plugins_check_runs_it(run):
    plugins = json.loads(good(run("plugins", "--check", "--json")))

    (lens,) = (plugin for plugin in plugins if plugin["name"] == "logit-lens")
    assert (lens["status"], lens["reason"]) == ("ok", "")
