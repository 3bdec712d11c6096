"""The sets that come with the package."""

from __future__ import annotations

import json
import re
from importlib import resources

import pytest

from tamperlens import prompts
from tamperlens.base.errors import InputError

ENGLISH = ("english-harmful", "english-harmless", "english-lookalike")


def normal(text: str) -> str:
    """Letters and digits alone, so that a comma or a capital does not hide a copy."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def test_english_sets():
    seen: dict[str, str] = {}
    for name in ENGLISH:
        data = prompts.packaged(name)
        assert len(data) >= 120
        assert (data.name, data.licence, data.responses) == (name, "MIT", None)
        assert data.categories is not None
        assert len(set(data.categories)) >= 10
        for one in data:
            assert normal(one.prompt) not in seen, f"{one.prompt} is in {name} and {seen[normal(one.prompt)]}"
            seen[normal(one.prompt)] = name
            assert one.prompt == one.prompt.strip()
            assert one.prompt[-1] in ".?", one.prompt
            assert not re.search(r"[.?!] [A-Z]", one.prompt), f"two sentences: {one.prompt}"
            assert len(one.prompt.split()) <= 25
    assert set(ENGLISH) <= set(prompts.packaged_names())


def test_english_sets_copy_no_published_set(shared_data):
    files = [*shared_data.glob("prompts/*"), shared_data / "xstest" / "xstest_prompts.csv"]
    published = {normal(prompt) for file in files for prompt in prompts.read(file, skip_empty=True).prompts}
    assert len(published) > 6000
    ours = {normal(prompt) for name in ENGLISH for prompt in prompts.packaged(name).prompts}
    assert not ours & published


def test_every_packaged_file_is_readable_and_says_where_it_is_from():
    folder = resources.files("tamperlens.prompts").joinpath("data")
    for name in prompts.packaged_names():
        data = prompts.packaged(name)
        assert len(data) > 0
        assert data.licence != "unknown", f"{name} has no $set header with a licence"
        header = json.loads(folder.joinpath(f"{name}.jsonl").read_text(encoding="utf-8").split("\n")[0])
        assert header["$set"]["name"] == name
        parts = [prompts.packaged(name, split) for split in prompts.packaged_splits(name)]
        if parts:
            assert sum(len(part) for part in parts) == len(data)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(InputError, match=r"no packaged prompt set named 'nope'; there are .*english-harmful"):
        prompts.packaged("nope")
    with pytest.raises(InputError, match="no packaged prompt set"):
        prompts.packaged("../data/english-harmful")
    with pytest.raises(InputError, match="no split 'test'; it has no splits"):
        prompts.packaged("english-harmful", "test")
