"""A model that answers in markup, prompts and names that are markup: no page of any kind obeys any of it.

The pages are those that the commands write, opened in a browser in which everything is clicked and searched.
"""

from __future__ import annotations

import json
from pathlib import Path

import browser as browsers
import pytest
import torch
from tiny_models import make_model, make_tokenizer
from tokenizers import AddedToken
from typer.testing import CliRunner

from tamperlens import finetune, trajectory
from tamperlens.cli import app
from tamperlens.models import load
from tamperlens.prompts import PromptSet

EVIL = (
    "<script>document.title='owned';console.log('owned')</script>",
    '<img src=http://example.invalid/x.png onerror="alert(1)">',
    "</script><svg onload=alert(1)>",
    "'\"><iframe src=javascript:alert(1)></iframe>",
    "<style>body{display:none}</style>",
    "</style></template></textarea></title><script>alert(1)</script>",
    "<link rel=stylesheet href=http://example.invalid/x.css><base href=http://example.invalid>",
    "<a href=javascript:alert(1)>press</a><form action=http://example.invalid><button>press</button></form>",
    "&lt;img src=x onerror=alert(1)&gt;&#x3c;script&#x3e;",
    "{{7*7}}{%raw%}${alert(1)}`]]><!--",
    "\u202e\u2028\x1b[2J\\u003cscript>alert(1)</script>",
    '=HYPERLINK("http://example.invalid")',
)
NAME = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose answers are made of `EVIL`, and prompts made of it."""
    root = tmp_path_factory.mktemp("hostile")
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in EVIL])
    module = make_model("llama", seed=1, vocab_size=len(tokenizer), tie_word_embeddings=False)
    with torch.no_grad():
        module.get_output_embeddings().weight[: -len(EVIL)] *= 1e-3
    (root / NAME).mkdir()
    module.save_pretrained(root / NAME)
    tokenizer.save_pretrained(root / NAME)
    for role in ("harmful", "harmless"):
        rows = ['"' + f"{text} {role} {i}".replace('"', '""') + '"' for i, text in enumerate(EVIL)]
        (root / f"{role}{NAME}.csv").write_text("\n".join(["prompt", *rows]) + "\n", newline="")
    return root


@pytest.fixture(scope="module")
def pages(folder: Path) -> list[Path]:
    """Every page that the commands write of that model."""

    def run(*arguments: object) -> None:
        result = CliRunner().invoke(app, [*map(str, arguments)])
        assert result.exit_code == 0, (arguments, result.output, result.exception)

    model, sets = folder / NAME, [folder / f"{role}{NAME}.csv" for role in ("harmful", "harmless")]
    asked = ("--harmful", sets[0], "--harmless", sets[1], "--max-new-tokens", 4, "--quiet")
    pairs = folder / f"pairs{NAME}.jsonl"
    pairs.write_text("\n".join(json.dumps({"prompt": text, "response": text}) for text in EVIL))
    run(
        "audit",
        model,
        *asked,
        "--attack",
        pairs,
        "--steps",
        1,
        "--limit",
        6,
        "--out",
        folder / f"audit{NAME}",
    )
    run("compare", model, model, *asked, "--quick", "--limit", 4, "--out", folder / f"compare{NAME}")
    sweep = folder / f"sweep{NAME}.toml"
    quoted = str(model).replace('"', '\\"')
    sweep.write_text(
        f'models = ["{quoted}"]\nranks = [2, 4]\nsteps = [1, 2]\ndata_sizes = [4]\nseeds = [0]\n'
        f'[evaluation]\nlimit = 4\nsuite_limit = 1\nsuites = ["facts"]\nmax_new_tokens = 4\n'
        f'harmful = "{sets[0]}"\n'
    )
    run("grid", "run", sweep, "--out", folder / f"grid{NAME}", "--quiet")
    run("grid", "plot", folder / f"grid{NAME}")
    ready = load(model)
    config = finetune.LoraConfig(rank=2, steps=2, batch_size=4)
    found = trajectory.record(
        ready, PromptSet.from_pairs([(text, text) for text in EVIL], name=NAME), config, seeds=1,
        harmful=[f"{text} a{i}" for i, text in enumerate(EVIL * 2)],
        harmless=[f"{text} b{i}" for i, text in enumerate(EVIL * 2)],
        limit=8, measures=["rates", "heads", "kl"], out=folder / f"steps{NAME}",
    )  # fmt: skip
    assert any(text in str(found.examples.to_dict()) for text in EVIL)
    run("monitor", folder / f"steps{NAME}", "--out", folder / "steps.html")
    runs = [folder / f"{kind}{NAME}" for kind in ("audit", "compare", "grid", "steps")]
    run("report", *runs, "--out", folder / "all.html")
    return sorted(path for path in folder.rglob("*.html"))


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif(browsers.find() is None, reason="no Chromium here")
def test_no_page_obeys(pages: list[Path]) -> None:
    names = [str(path.relative_to(pages[0].parents[1])) for path in pages]
    assert {"report.html", "steps.html", "all.html"} <= {path.name for path in pages}, names
    with browsers.browser() as tab:
        for path in pages:
            tab.requests.clear()
            tab.messages.clear()
            tab.open(path)
            tab.js(
                "document.querySelectorAll('details').forEach(d => d.open = true);"
                "document.querySelectorAll('button, summary, [role=button]').forEach(b => b.click());"
                "document.querySelectorAll('input, select').forEach(i => {"
                " if (i.type == 'search' || i.type == 'text') i.value = 'a';"
                " if (i.type == 'range') i.value = i.max;"
                " i.dispatchEvent(new Event('input', {bubbles: true}));"
                " i.dispatchEvent(new Event('change', {bubbles: true})); });"
                "new Promise(done => setTimeout(done, 300))"
            )
            assert tab.js("document.title") != "owned", path
            assert tab.js("getComputedStyle(document.body).display") != "none", path
            held = "iframe, form[action], base, img[src^=http]"
            assert tab.js(f"document.querySelectorAll('{held}').length") == 0, path
            assert tab.js("[...document.querySelectorAll('a')].every(a => a.protocol != 'javascript:')"), path
            assert tab.messages == [], path
            outside = [url for url in tab.requests if not url.startswith(("data:", "blob:", "file:"))]
            assert outside == [] and path.as_uri() in tab.requests, path
    print(f"{len(pages)} pages")
