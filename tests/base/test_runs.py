"""Run folders: what they refuse, what they keep, and what the manifest says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tamperlens.base.errors import RunFolderError
from tamperlens.base.runs import RunFolder

CONFIG = {"model": "m", "seed": 0, "steps": None, "nested": {"a": [1, 2]}}


def begin(path: Path, **changes) -> RunFolder:
    options = {"kind": "audit", "config": CONFIG, "artefacts": ("measures.csv", "figures"), **changes}
    return RunFolder.open(path, **options)


def test_manifest_holds_provenance(tmp_path):
    with begin(tmp_path / "new" / "run", command="tamperlens audit", seeds={"seed": 3}) as run:
        with run.stage("before"):
            junk = bytearray(64 * 2**20)
            junk[::4096] = b"x" * len(junk[::4096])
            del junk
        run.pin(model="abc")
        run.note_training(tokens=10, flops=2.5e12, formula="6 N D")
        run.finish()
    manifest = json.loads((tmp_path / "new" / "run" / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["config"] == CONFIG
    assert manifest["seeds"] == {"seed": 3}
    assert manifest["hashes"] == {"model": "abc"}
    assert manifest["command"] == "tamperlens audit"
    assert {"python", "tamperlens", "torch", "transformers", "peft"} <= set(manifest["versions"])
    assert manifest["tokens"] == {"training": 10}
    assert manifest["training_flops_ratio_to_1e25"] == pytest.approx(2.5e-13)
    stage = manifest["stages"]["before"]
    assert stage["done"]
    assert stage["wall_seconds"] >= 0
    assert stage["peak_rss_bytes"] > 64 * 2**20
    assert manifest["peak_rss_bytes"] == stage["peak_rss_bytes"]


def test_peak_memory_belongs_to_the_stage(tmp_path):
    with begin(tmp_path / "run") as run:
        with run.stage("large"):
            junk = b"x" * (300 * 2**20)
            del junk
        with run.stage("small"):
            pass
    stages = run.manifest["stages"]
    if stages["small"]["peak_rss_scope"] != "stage":
        pytest.skip("this system cannot reset the high-water mark")
    assert stages["large"]["peak_rss_bytes"] - stages["small"]["peak_rss_bytes"] > 200 * 2**20


def test_a_stage_that_raises_stays_undone_and_resumes(tmp_path):
    run = begin(tmp_path / "run")
    with run, run.stage("one"):
        pass
    with begin(tmp_path / "run", resume=True) as run:
        assert run.done("one")
        with pytest.raises(KeyboardInterrupt), run.stage("two"):
            raise KeyboardInterrupt
    assert json.loads((tmp_path / "run/manifest.json").read_text())["status"] == "interrupted"
    with begin(tmp_path / "run", resume=True) as run:
        assert run.done("one")
        assert not run.done("two")
        assert run.manifest["status"] == "running"
        assert len(run.manifest["resumed"]) == 2


def test_resume_of_nothing_starts(tmp_path):
    with begin(tmp_path / "run", resume=True) as run:
        assert not run.finished
        assert "resumed" not in run.manifest


def finished(path: Path, **changes) -> None:
    with begin(path, **changes) as run:
        with run.stage("one"):
            pass
        run.finish()


def test_refuses_a_finished_run_without_resume(tmp_path):
    finished(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(RunFolderError, match=r"finished run; add resume=True .* or choose another folder"):
        begin(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before
    with begin(tmp_path, resume=True) as run:
        assert run.finished


def test_refuses_an_unfinished_run_without_resume(tmp_path):
    with begin(tmp_path) as run, run.stage("one"):
        pass
    with pytest.raises(RunFolderError, match="an unfinished run"):
        begin(tmp_path)


@pytest.mark.parametrize("resume", [False, True])
def test_refuses_another_run_and_names_the_key(tmp_path, resume):
    finished(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"another run: seed is 0 there and 1 here \(and 1 more\)"):
        begin(tmp_path, config={**CONFIG, "seed": 1, "steps": 5}, resume=resume)
    with pytest.raises(RunFolderError, match="another run: an audit, not a trajectory"):
        begin(tmp_path, kind="trajectory", resume=resume)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_without_finished_stages_may_be_started_over(tmp_path):
    with begin(tmp_path) as run, pytest.raises(ValueError, match="bad input"), run.stage("one"):
        raise ValueError("bad input")
    with begin(tmp_path, config={**CONFIG, "seed": 9}) as run:
        assert run.manifest["config"]["seed"] == 9


def test_refuses_foreign_files_with_the_same_names(tmp_path):
    (tmp_path / "measures.csv").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds measures\.csv and no manifest\.json"):
        begin(tmp_path)
    assert (tmp_path / "measures.csv").read_text() == "mine"


def test_other_files_beside_are_left_alone(tmp_path):
    (tmp_path / "prompts.csv").write_text("prompt\nhi\n")
    finished(tmp_path)
    assert (tmp_path / "prompts.csv").read_text() == "prompt\nhi\n"


def test_refuses_what_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/nowhere/run")):
        with pytest.raises(RunFolderError, match=r"cannot write .* choose another folder"):
            begin(path)


@pytest.mark.parametrize("content", ["{", '{"name": "another program"}', '{"tamperlens_run": 99}', "[]"])
def test_refuses_a_manifest_it_does_not_understand(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunFolderError, match="choose another folder"):
        begin(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == content


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("stages", []),
        ("stages", {"before": {"done": "yes"}}),
        ("stages", {"before": {"done": True, "wall_seconds": "long"}}),
        ("stages", {"before": None}),
        ("config", "none"),
        ("status", "on holiday"),
        ("hashes", {"model": 1}),
        ("seeds", {"seed": "a"}),
        ("kind", 3),
        ("versions", None),
    ],
)
def test_a_manifest_of_another_shape_is_one_error_with_file_and_field(tmp_path, entry, value):
    finished(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, entry: value}))
    for look in (lambda: RunFolder.read(tmp_path), lambda: begin(tmp_path, resume=True)):
        with pytest.raises(RunFolderError, match=rf"manifest.json has another shape: {entry}.*delete it"):
            look()
    del manifest[entry]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunFolderError, match=f"{entry}: field required"):
        RunFolder.read(tmp_path)


def test_the_lock_is_not_opened_through_a_link(tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "diary.txt")
    with pytest.raises(RunFolderError, match="cannot write"):
        begin(tmp_path / "run")
    assert (tmp_path / "diary.txt").read_text() == "dear diary"


def test_pin_refuses_a_changed_input(tmp_path):
    with begin(tmp_path) as run:
        run.pin(prompts="a" * 64)
        with run.stage("one"):
            pass
    with begin(tmp_path, resume=True) as run:
        run.pin(prompts="a" * 64)
        with pytest.raises(RunFolderError, match=r"prompts is aaaaaaaaaaaa there and bbbbbbbbbbbb here"):
            run.pin(prompts="b" * 64)


def wrote(path: Path, name: str, stage: str, text: str) -> None:
    with begin(path, artefacts=("measures.csv", "data"), resume=True) as run, run.stage(stage):
        run.file("data", name).write_text(text)


def test_artefacts_are_held_to_what_stages_left(tmp_path):
    for stage in ("one", "two", "three"):
        wrote(tmp_path, f"{stage}.txt", stage, stage)
    assert RunFolder.read(tmp_path).altered() == {}
    (tmp_path / "data" / "two.txt").unlink()
    with begin(tmp_path, resume=True) as run:
        assert [run.done(stage) for stage in ("one", "two", "three")] == [True, False, False]
    for stage in ("two", "three"):
        wrote(tmp_path, f"{stage}.txt", stage, stage)
    (tmp_path / "data" / "one.txt").write_text("0ne")
    assert RunFolder.read(tmp_path).altered() == {"data/one.txt": "changed"}
    with pytest.raises(
        RunFolderError, match=r"one\.txt is not as the run wrote it; put it back, or delete it"
    ):
        begin(tmp_path, resume=True)
    (tmp_path / "data" / "one.txt").unlink()
    with begin(tmp_path, resume=True) as run:
        assert not any(run.done(stage) for stage in ("one", "two", "three"))


def test_one_process_at_a_time_and_the_lock_dies_with_its_holder(tmp_path):
    code = (
        "import sys, time; from tamperlens.base.runs import RunFolder\n"
        f"run = RunFolder.open({str(tmp_path)!r}, kind='audit', config={CONFIG!r})\n"
        "print('open', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(RunFolderError, match="in use by another process"):
            begin(tmp_path)
    finally:
        holder.kill()
        holder.wait()
    begin(tmp_path).close()


def test_read_wants_a_run(tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        RunFolder.read(tmp_path)
    finished(tmp_path)
    assert RunFolder.read(tmp_path).finished


def test_an_interruption_while_a_run_is_opened(tmp_path):
    class Told(RunFolder):
        def _write(self):
            super()._write()
            if self.manifest["status"] == "running":
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Told.open(tmp_path / "run", kind="audit", config={})
    assert RunFolder.read(tmp_path / "run").manifest["status"] == "interrupted"
    with RunFolder.open(tmp_path / "run", kind="audit", config={}, resume=True):
        pass
