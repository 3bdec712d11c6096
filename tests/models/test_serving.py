"""Answers of a server are the module's, and only where they must be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from completions_server import serving

import tamperlens
from tamperlens import hooks, models, prompts, rates
from tamperlens.base.errors import InputError, ModelLoadError


@pytest.fixture(scope="module")
def plain():
    return tamperlens.load("organism:tiny", device="cpu")


@pytest.mark.parametrize("takes_ids", [True, False])
def test_the_same_answers_and_rates(plain, takes_ids):
    asked = prompts.packaged("harmful", split="test").head(12)
    with serving(plain, takes_ids=takes_ids) as (url, posted):
        served = models.with_server(plain, url)
        for settings in ({}, {"system": "Be kind."}, {"prefill": "Sure, "}):
            own, theirs = (
                rates.evaluate(one, asked, max_new_tokens=12, **settings) for one in (plain, served)
            )
            assert own.completions.responses == theirs.completions.responses
            assert own.refusal_rate == theirs.refusal_rate
    assert isinstance(posted[-1]["prompt"], list) is takes_ids
    assert posted[-1]["model"] == "it"
    assert "server" in served.notes[-1]


def test_edits_changed_weights_thoughts_and_tuned_models_stay_with_the_module(plain):
    with serving(plain) as (url, posted):
        served = tamperlens.load("organism:tiny", device="cpu", generation=url)
        before = len(posted)
        with hooks.ablate_heads(served.module, served.anatomy, [(0, 0)]):
            edited = served.generate(["Name a tree."], max_new_tokens=4)
        with hooks.ablate_heads(plain.module, plain.anatomy, [(0, 0)]):
            assert edited == plain.generate(["Name a tree."], max_new_tokens=4)
        assert served.with_module(served.module).generate(["Name a tree."], max_new_tokens=4)
        assert len(posted) == before
        served.generate(["Name a tree."], max_new_tokens=4)
        assert len(posted) == before + 1
        with torch.no_grad():
            next(served.module.parameters()).mul_(1.5)
        served.generate(["Name a tree."], max_new_tokens=4)
        assert len(posted) == before + 1


OPENAI = frozenset(("model", "prompt", "max_tokens", "temperature", "seed", "top_p", "frequency_penalty"))


@pytest.mark.parametrize("takes", [None, OPENAI], ids=["knows more", "OpenAI's alone"])
def test_a_penalty_of_the_server_is_off(plain, takes):
    """Of a checkpoint whose generation_config.json asks for one, which vLLM applies to greedy answers too."""
    asked = prompts.packaged("harmless", split="test").head(12)
    with serving(plain, penalty=1.1, takes=takes) as (url, posted):
        served = models.with_server(plain, url)
        assert served.generate(asked, max_new_tokens=12) == plain.generate(asked, max_new_tokens=12)
    assert ("repetition_penalty" in posted[-1]) is (takes is None)
    assert isinstance(posted[-1]["prompt"], list)


@pytest.mark.parametrize("url", ["http://localhost:80a0", "http://local host:1", "http://[::1"])
def test_an_address_that_is_none_is_one_line(plain, url):
    with pytest.raises(ModelLoadError, match="no OpenAI-compatible server answers"):
        models.with_server(plain, url)


def test_replies_of_another_kind_are_one_line(plain):
    server = models.Server("http://localhost:1", model="it")
    for reply in (
        {},
        {"usage": [1]},
        {"choices": [{"text": None}]},
        {"choices": []},
        {"choices": [{"message": {"content": "Oak."}}]},
    ):
        with pytest.raises(ModelLoadError, match="answers otherwise than an OpenAI-compatible server"):
            server._text(reply, 1)


def test_samples_of_one_seed_are_the_same(plain):
    with serving(plain) as (url, _):
        served = models.with_server(plain, url)
        one, two, other = (
            served.generate(["Name a tree."] * 3, max_new_tokens=8, temperature=2.0, seed=seed)
            for seed in (0, 0, 1)
        )
    assert one == two != other
    assert len(set(one)) > 1  # the same prompt at another index is another sample


def test_what_cannot_be_used_is_one_line(plain):
    with pytest.raises(InputError, match="vllm serve"):
        models.with_server(plain, "vllm")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(ModelLoadError, match="no OpenAI-compatible server answers"):
        models.with_server(plain, f"http://127.0.0.1:{port}")
    with serving(plain, names=("a", "b")) as (url, _):
        with pytest.raises(ModelLoadError, match=r"offers 2 models \(a, b\)"):
            models.with_server(plain, url)
        assert models.with_server(plain, models.Server(url, model="b")).notes
    with serving(plain, more=(1,)) as (url, _), pytest.raises(ModelLoadError, match="adds tokens"):
        models.with_server(plain, url)
    other = tamperlens.load("organism:tiny", device="cpu")
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter.mul_(torch.randn_like(parameter))
    with serving(other) as (url, _), pytest.raises(ModelLoadError, match="another model"):
        models.with_server(plain, url)


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a model and the URL of `transformers serve` on it, in fp32 on the CPU."""
    python = os.environ.get("TAMPERLENS_SERVE_PYTHON", sys.executable)
    ready = "from transformers.utils.import_utils import is_serve_available as a; raise SystemExit(not a())"
    if subprocess.run([python, "-c", ready], capture_output=True).returncode:
        pytest.skip('transformers serve is not installed here: pip install "transformers[serving]"')
    real = Path(os.environ.get("TAMPERLENS_REAL", "")) / "smollm2"
    folder = real if os.environ.get("TAMPERLENS_REAL") and real.is_dir() else models.ORGANISM / "aligned"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [python, "-m", "transformers.cli.transformers", "serve", str(folder), "--device", "cpu",
               "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).read()
                break
            except OSError:
                if process.poll() is not None:
                    pytest.fail(f"transformers serve ended: {log.read_text()[-2000:]}")
                time.sleep(0.5)
        else:
            pytest.skip("transformers serve did not start within two minutes")
        yield folder, url
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow  # starts a server of its own
def test_transformers_serve_gives_the_same_verdicts(transformers_serve):
    folder, url = transformers_serve
    plain = tamperlens.load(folder, device="cpu", dtype="float32")
    served = models.with_server(plain, models.Server(url, model=str(folder), workers=4))
    names = ("harmful", "harmless")
    names = names if plain.language == "organism" else tuple(f"english-{name}" for name in names)
    same = total = texts = 0
    for name in names:
        data = prompts.packaged(name, split="test").head(60)
        own, theirs = (rates.evaluate(one, data, max_new_tokens=24).completions for one in (plain, served))
        pairs = list(zip(own.verdicts, theirs.verdicts, strict=True))
        same += sum(a.label == b.label for a, b in pairs)
        texts += sum(a == b for a, b in zip(own.responses, theirs.responses, strict=True))
        total += len(pairs)
    print(f"{plain.name}: verdicts equal {same} of {total}, answers equal {texts}")
    assert same >= 0.99 * total
    assert served.language == plain.language
