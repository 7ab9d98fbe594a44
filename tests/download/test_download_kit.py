"""The link and the model of the download tests are like Meta's."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime, timezone

from download_kit import SIGNATURE, make_model, signed_query


def test_a_query_says_what_it_covers_and_when_it_ends():
    ends = datetime(2030, 5, 6, tzinfo=timezone.utc)

    fields = dict(field.split("=", 1) for field in signed_query(ends=ends).split("&"))

    letters = fields["Policy"].translate(str.maketrans("-_~", "+=/"))
    statement = json.loads(base64.b64decode(letters))["Statement"][0]
    assert statement["Resource"] == "https://download.llamameta.net/*"
    assert statement["Condition"]["DateLessThan"]["AWS:EpochTime"] == int(ends.timestamp())
    assert (fields["Signature"], len(SIGNATURE)) == (SIGNATURE, 344)
    assert not set("+=/") & set(fields["Policy"])
    assert set("-_~") <= set(fields["Policy"])


def test_a_model_is_whole_and_the_same_each_time(tmp_path):
    first = make_model(tmp_path / "a", "llama-2-13b", shards=2, nbytes=1_500_000)
    second = make_model(tmp_path / "b", "llama-2-13b", shards=2, nbytes=1_500_000)

    for folder, list_name in [(first, "checklist.chk"), (first.parent, "tokenizer_checklist.chk")]:
        for line in (folder / list_name).read_text().splitlines():
            md5, name = line.split()
            assert hashlib.md5((folder / name).read_bytes()).hexdigest() == md5
    shards = [sorted(folder.glob("*.pth")) for folder in (first, second)]
    assert [it.read_bytes() for it in shards[0]] == [it.read_bytes() for it in shards[1]]
    assert shards[0][0].read_bytes()[:99] != shards[0][1].read_bytes()[:99]
