"""What the runner does before it needs Ray."""

from __future__ import annotations

import pytest
from llamakit_ray.cluster import connect
from llamakit_ray.prompt_files import plain, read_prompts, shown
from llamakit_ray.room import Room, find_room
from llamakit_ray.run import block_size

from llamakit.errors import FileFormatError, UsageError
from llamakit.testing import check_plugin


def test_the_plugin_imports_ray_only_when_it_is_used():
    check_plugin("llamakit_ray")


@pytest.mark.parametrize(
    ("nodes", "replicas", "ranks", "expected"),
    [
        ([{"CPU": 8}, {"CPU": 16}, {}], None, 1, Room(3, 8, 0)),
        ([{"CPU": 2}], 2, 1, Room(2, 1, 0)),
        ([{"CPU": 8}, {"CPU": 4}], 3, 2, Room(3, 4, 0)),
        ([{"CPU": 3}], 1, 4, Room(1, 3, 0)),
    ],
)
def test_replicas_on_cpus_share_the_cores(nodes, replicas, ranks, expected):
    assert find_room(nodes, replicas, ranks, on_gpus=False) == expected


def test_replicas_on_gpus_have_one_for_each_rank_on_one_machine():
    nodes = [{"CPU": 8, "GPU": 3}, {"CPU": 8, "GPU": 8}]

    assert find_room(nodes, None, 2, on_gpus=True) == Room(5, 0, 2)
    assert find_room(nodes, 1, 8, on_gpus=True) == Room(1, 0, 8)


@pytest.mark.parametrize(
    ("nodes", "replicas", "on_gpus", "said"),
    [
        ([{"CPU": 2}, {"CPU": 1}], 4, False, "room for 3 replicas, one of the 3 CPUs each"),
        ([{}], None, False, "room for 0 replicas"),
        ([{"GPU": 1}, {"GPU": 1}], None, True, "room for 0 replicas, 2 of the 2 GPUs each"),
    ],
)
def test_more_replicas_than_there_is_room_for_are_refused(nodes, replicas, on_gpus, said):
    with pytest.raises(UsageError, match=said):
        find_room(nodes, replicas, 2, on_gpus=on_gpus)


@pytest.mark.parametrize(
    ("requests", "replicas", "slots", "size"),
    [(10_000, 4, 8, 32), (100, 4, 8, 8), (1, 4, 1, 1), (64, 1, 8, 16)],
)
def test_blocks_fill_the_slots_and_end_together(requests, replicas, slots, size):
    assert block_size(requests, replicas, slots) == size


@pytest.mark.parametrize("address", ["ray://host:1", "host", "host:port", ":6379", "http://a:1"])
def test_an_address_of_another_kind_is_refused(address):
    with pytest.raises(UsageError, match="expected the HOST:PORT of the cluster's head"):
        connect(address)


def test_a_file_that_is_not_there_is_refused_before_a_cluster_is_started(tmp_path):
    with pytest.raises(FileFormatError, match="there is no such file of prompts"):
        list(read_prompts(str(tmp_path / "absent.parquet"), ""))


def test_messages_show_no_link():
    assert shown("s3://key:word@bucket/a/b.parquet?sig=1") == "s3://…/b.parquet"
    assert shown("a/b?c.jsonl") == "a/b?c.jsonl"


def test_values_of_a_table_become_those_of_json():
    row = {"messages": [{"role": "user", "name": None}], "prompt": None, "n": 3, "at": b"x"}

    assert plain(row) == {"messages": [{"role": "user"}], "n": 3, "at": "b'x'"}
