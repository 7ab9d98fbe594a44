"""Reading ``entry_points.txt`` ourselves finds what ``importlib.metadata`` finds."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile

import pytest

from llamakit.plugin_manager.entry_points import find_entry_points


def distribution(place, name, version, lines, *, folder=None, metadata="METADATA"):
    """Write the metadata of an installed distribution."""
    info = place / (folder or f"{name}-{version}.dist-info")
    info.mkdir(parents=True)
    (info / metadata).write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return place


def by_importlib(group, path):
    """Return what ``importlib.metadata`` finds, in our terms, sorted."""
    found = []
    seen = set()
    for each in importlib.metadata.distributions(path=path):
        if each._normalized_name in seen:
            continue
        seen.add(each._normalized_name)
        found += [
            (point.name, point.module, point.attr or "", each.name, each.version)
            for point in each.entry_points
            if point.group == group
        ]
    return sorted(found)


@pytest.mark.parametrize("group", ["llamakit", "console_scripts", "pytest11", "no.such.group"])
def test_what_is_installed_here_is_found_as_importlib_finds_it(group):
    found = find_entry_points(group)

    assert sorted(map(tuple, found)) == by_importlib(group, sys.path)


def test_dist_info_egg_info_and_eggs_are_found(tmp_path):
    site = distribution(tmp_path / "site", "One-Pack", "1.0", ["[llamakit]", "one = one_pack"])
    distribution(
        *(site, "two", "2.0", ["[llamakit]", "two = two.sub:attr.more [extra]"]),
        folder="two.egg-info",
        metadata="PKG-INFO",
    )
    egg = distribution(
        *(tmp_path / "three-3.0-py3.egg", "three", "3.0", ["[other]", "[llamakit]", "three=three"]),
        folder="EGG-INFO",
        metadata="PKG-INFO",
    )
    path = [str(site), str(egg)]

    found = find_entry_points("llamakit", path)

    assert [tuple(point) for point in found] == [
        ("one", "one_pack", "", "One-Pack", "1.0"),
        ("two", "two.sub", "attr.more", "two", "2.0"),
        ("three", "three", "", "three", "3.0"),
    ]
    assert sorted(map(tuple, found)) == by_importlib("llamakit", path)


def test_of_two_installations_the_first_on_the_path_counts(tmp_path):
    lines = ["[llamakit]", "name = module"]
    first = distribution(tmp_path / "first", "some.Pack", "2", lines)
    second = distribution(tmp_path / "second", "some_pack", "1", [*lines, "more = module"])
    path = [str(first), str(second), str(first)]

    found = find_entry_points("llamakit", path)

    assert [(point.name, point.version) for point in found] == [("name", "2")]
    assert sorted(map(tuple, found)) == by_importlib("llamakit", path)


def test_the_egg_info_of_a_source_folder_hides_the_dist_info_of_the_same(tmp_path):
    lines = ["[llamakit]", "name = module"]
    source = distribution(tmp_path / "a", "pack", "1", lines, folder="pack.egg-info")
    site = distribution(tmp_path / "b", "pack", "1", lines)

    found = find_entry_points("llamakit", [str(source), str(site)])

    assert [point.name for point in found] == ["name"]


def test_a_first_installation_without_entry_points_hides_the_second(tmp_path):
    first = tmp_path / "first" / "pack-2.dist-info"
    first.mkdir(parents=True)
    second = distribution(tmp_path / "second", "pack", "1", ["[llamakit]", "name = module"])

    found = find_entry_points("llamakit", [str(first.parent), str(second)])

    assert found == []


def test_the_empty_path_is_the_current_folder(tmp_path, monkeypatch):
    distribution(tmp_path, "here", "1", ["[llamakit]", "here = here"])
    monkeypatch.chdir(tmp_path)

    found = find_entry_points("llamakit", ["", str(tmp_path / "absent"), str(tmp_path)])

    assert [point.name for point in found] == ["here"]


def test_a_zip_is_searched_with_importlib(tmp_path):
    site = distribution(tmp_path / "site", "zipped", "1", ["[llamakit]", "zipped = zipped"])
    archive = tmp_path / "zipped.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for each in site.rglob("*"):
            file.write(each, each.relative_to(site))

    found = find_entry_points("llamakit", [str(archive)])

    assert [tuple(point) for point in found] == [("zipped", "zipped", "", "zipped", "1")]


def test_a_malformed_line_is_kept_for_the_toolkit_to_report(tmp_path):
    site = distribution(
        tmp_path, "odd", "1", ["# no section yet", "[llamakit]", "no equals sign", "", "a = b"]
    )

    found = find_entry_points("llamakit", [str(site)])

    assert [(point.name, point.module) for point in found] == [("no equals sign", ""), ("a", "b")]


def test_what_an_uninstallation_stopped_midway_leaves_is_no_plugin(tmp_path):
    lines = ["[llamakit]", "greedy = llamakit.plugins.samplers.greedy"]
    distribution(tmp_path, "llamakit", "1", lines, folder="~lamakit-1.dist-info")

    found = find_entry_points("llamakit", [str(tmp_path)])

    assert found == []


def test_a_finder_of_its_own_kind_is_asked_too(tmp_path):
    distribution(tmp_path / "far", "far-away", "1", ["[llamakit]", "far = far_away"])
    program = f"""
import importlib.metadata, sys
class Finder(importlib.metadata.DistributionFinder):
    def find_spec(self, *args): return None
    def find_distributions(self, context=None):
        context = self.Context(path=[{str(tmp_path / "far")!r}])
        return importlib.metadata.MetadataPathFinder.find_distributions(context)
sys.meta_path.append(Finder())
from llamakit.plugin_manager.entry_points import find_entry_points
print([point.name for point in find_entry_points("llamakit")])
"""

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )

    assert "'far'" in result.stdout
    assert "'greedy'" in result.stdout


def test_the_order_does_not_depend_on_the_file_system(tmp_path):
    for name in ("cc", "aa", "bb"):
        distribution(tmp_path, name, "1", ["[llamakit]", f"{name} = {name}"])

    found = find_entry_points("llamakit", [str(tmp_path)])

    assert [point.name for point in found] == ["aa", "bb", "cc"]
