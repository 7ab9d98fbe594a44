"""What a link covers and when it ends is known before any request."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone

import pytest
from download_kit import signed_query

from llamakit.download.link_policy import read_policy
from llamakit.errors import LinkError, LinkExpiredError

ENDS = datetime(2030, 5, 6, 7, 8, tzinfo=timezone.utc)


def query_of(document):
    text = document if isinstance(document, str) else json.dumps(document)
    letters = base64.b64encode(text.encode()).decode().translate(str.maketrans("+=/", "-_~"))
    return f"Policy={letters}&Signature=a&Key-Pair-Id=K"


def test_a_policy_says_what_it_covers_and_when_it_ends():
    policy = read_policy(signed_query("https://download.llamameta.net/*", ENDS))

    assert policy.resource == "https://download.llamameta.net/*"
    assert policy.expires == ENDS


def test_a_canned_policy_says_when_it_ends():
    policy = read_policy(f"Expires={int(ENDS.timestamp())}&Signature=a&Key-Pair-Id=K")

    assert policy.expires == ENDS
    assert policy.covers("https://anywhere/at/all")


def test_a_query_without_a_signature_has_no_policy():
    assert read_policy("token=abc&Expires=5") is None
    assert read_policy("") is None


@pytest.mark.parametrize(
    ("resource", "address", "covered"),
    [
        ("https://a.net/*", "https://a.net/llama-2-7b/params.json", True),
        ("https://a.net/*", "https://b.net/llama-2-7b/params.json", False),
        ("https://a.net/llama-2-7b/*", "https://a.net/llama-2-7b/params.json", True),
        ("https://a.net/llama-2-7b/*", "https://a.net/llama-2-70b/params.json", False),
        ("https://a.net/llama-2-?b/*", "https://a.net/llama-2-7b/params.json", True),
        ("http*://a.net/*", "https://a.net/x", True),
        ("*", "https://a.net/x", True),
        ("https://a.net/[ab]", "https://a.net/a", False),
        ("https://a.net/[ab]", "https://a.net/[ab]", True),
    ],
)
def test_a_policy_covers_what_its_wildcards_match(resource, address, covered):
    assert read_policy(signed_query(resource)).covers(address) is covered


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (timedelta(seconds=0), "less than a minute ago"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=5, minutes=59), "5 hours ago"),
        (timedelta(days=3), "3 days ago"),
    ],
)
def test_a_policy_that_has_ended_says_so(ago, said):
    policy = read_policy(signed_query(ends=ENDS))

    with pytest.raises(
        LinkExpiredError, match=rf"expired {said}, at 2030-05-06 07:08 UTC\. Request"
    ):
        policy.check_time(ENDS + ago)


def test_a_policy_holds_to_its_last_second():
    read_policy(signed_query(ends=ENDS)).check_time(ENDS - timedelta(seconds=1))


@pytest.mark.parametrize(
    "query",
    [
        "Policy=&Signature=a",
        "Policy=%%%&Signature=a",
        "Policy=eyJTdGF0&Signature=a",
        "Policy=aGVsbG8_&Signature=a",
        "Policy=" + "a" * 1001,
        query_of("[" * 100_000),
        query_of([]),
        query_of({}),
        query_of({"Statement": []}),
        query_of({"Statement": [{"Resource": "*"}]}),
        query_of({"Statement": [{"Condition": {"DateLessThan": {"AWS:EpochTime": 5}}}]}),
        query_of({"Statement": [{"Resource": "*", "Condition": {"DateLessThan": {}}}]}),
        "Expires=soon&Signature=a&Key-Pair-Id=K",
        f"Expires={'9' * 5000}&Signature=a&Key-Pair-Id=K",
        "Expires=99999999999999999999&Signature=a&Key-Pair-Id=K",
    ],
)
def test_a_damaged_policy_is_a_sentence(query):
    with pytest.raises(LinkError, match="Copy the whole link again"):
        read_policy(query)
