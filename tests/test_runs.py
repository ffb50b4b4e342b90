"""A run's folder: old files or new ones, never halves; damage and strangers are named; Python gets it all back."""

from __future__ import annotations

import errno
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import throughtime as tt
from throughtime import runs
from throughtime.data import Text
from throughtime.runs import FORMAT, Run, load
from throughtime.training import train

FILES = ["config.toml", "metrics.jsonl", "resume.safetensors", "vocabulary.json", "weights.safetensors"]


def text(**options) -> Text:
    return Text.of("the cat saw the dog; the dog ran. " * 5, **{"split": (0.8, 0.1, 0.1), **options})


def network(size: int, cell: str = "gru", **options) -> tt.Network:
    torch.manual_seed(1)
    return tt.Network(cell, **{"inputs": size, "units": 5, "outputs": size, **options})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run after six updates."""
    corpus = text()
    list(train(network(corpus.size), corpus.chunks(2, 7), updates=6, run=tmp_path / "run"))
    return load(tmp_path / "run")


# What is in it


def test_the_folder(run):
    assert sorted(path.name for path in run.path.iterdir()) == FILES
    assert run.config["format"] == FORMAT
    assert run.config["throughtime"] == tt.__version__
    assert run.config["network"]["cell"] == "gru"
    assert run.config["text"]["unit"] == "char"
    training = run.config["training"]
    assert (training["credit"], training["updates"], training["streams"], training["steps"]) == (
        "bptt:h=7,every=7",
        6,
        2,
        7,
    )
    assert training["optimizer"]["name"] == "AdamW"
    assert run.vocabulary == text().vocabulary
    fields = {"update", "epoch", "targets", "loss", "norm", "clipped", "rate", "seconds", "validation", "best", "note"}
    fields |= {"clip_share", "memory"}
    assert all(set(record) == fields for record in run.records())


def test_python_gets_it_back(run, tmp_path):
    assert not run.net.training
    corpus = text()
    net = network(corpus.size)
    list(train(net, corpus.chunks(2, 7), updates=6))
    for given, wanted in zip(run.net.parameters(), net.parameters(), strict=True):
        assert torch.equal(given, wanted)
    said = run.sample("the ", 30, seed=4)
    assert said == load(run.path).sample("the ", 30, seed=4)
    assert len(said) == 30
    assert "\ufffd" not in run.sample("☃", 200, temperature=5, seed=0)
    assert len(run.sample(length=3)) == 3
    (tmp_path / "other.txt").write_text("the cat ran ☃")
    score = run.evaluate(tmp_path / "other.txt")
    ids = torch.from_numpy(run.vocabulary.encode("the cat ran ☃"))
    wanted = tt.inference.surprise(run.net, ids)
    assert (score.count, score.mean) == (12, pytest.approx(wanted.mean().item(), rel=1e-5))
    with pytest.raises(ValueError, match="vocabulary of the run"):
        run.evaluate(Text.of("another text", split=None))


def test_weights_keep_tied_ones_once(tmp_path):
    corpus = text()
    net = network(corpus.size, embedding=5, tie=True)
    list(train(net, corpus.chunks(2, 7), updates=2, run=tmp_path / "run"))
    assert sorted(load_file(tmp_path / "run/weights.safetensors")).count("embed.weight") == 1
    back = load(tmp_path / "run").net
    assert back.readout.weight is back.embed.weight
    assert torch.equal(back.readout.weight, net.readout.weight)


def test_a_module_of_the_users_own(tmp_path):
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = torch.nn.GRU(2, 3)
            self.register_buffer("scale", torch.tensor(2.0))

        def forward(self, x, hx=None):
            y, hx = self.gru(x, hx)
            return y * self.scale, hx

    net = tt.Adapted(Own())
    chunk = tt.Chunk(torch.randn(4, 2, 2), torch.randn(4, 2, 3), end=True)
    list(train(net, [chunk], loss="squared", run=tmp_path / "run", epochs=3))
    run = load(tmp_path / "run")
    with pytest.raises(ValueError, match="network of your own"):
        _ = run.net
    with pytest.raises(FileNotFoundError, match="not trained on text"):
        _ = run.vocabulary
    other = tt.Adapted(Own())
    run.load_weights(other)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), net.parameters(), strict=True))
    list(train(other, [chunk], loss="squared", run=run.path, resume=True, epochs=5))
    assert len(run.records()) == 5
    with pytest.raises(ValueError, match="does not fit the network"):
        run.load_weights(torch.nn.Linear(2, 3))


def test_numbers_that_json_has_no_word_for(run):
    run.log({"update": 7, "loss": math.nan, "norm": -math.inf, "note": "x"})
    assert run.records()[-1] == {"update": 7, "loss": None, "norm": None, "note": "x"}


# Never half-written


@pytest.mark.parametrize("name", ["config.toml", "weights.safetensors", "resume.safetensors", "metrics.jsonl"])
def test_a_failure_in_the_middle_of_a_file_leaves_the_old_one(run, monkeypatch, name):
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    plain_bytes, plain_text = Path.write_bytes, Path.write_text

    def cut(path, content, *arguments, **options):
        write = plain_bytes if isinstance(content, bytes) else plain_text
        write(path, content[: len(content) // 2], *arguments, **options)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", cut)
    monkeypatch.setattr(Path, "write_text", cut)
    with pytest.raises(OSError, match="No space left"):
        {
            "config.toml": lambda: run.amend({"training": {}}),
            "weights.safetensors": lambda: run.save_weights(run.net),
            "resume.safetensors": lambda: run.save_resume({"weights": torch.zeros(3)}),
            "metrics.jsonl": lambda: run.rewind(2),
        }[name]()
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_failure_while_it_is_made_leaves_no_folder(tmp_path, monkeypatch):
    corpus = text()
    for step in ("save_weights", "save_resume"):
        with monkeypatch.context() as patch:
            patch.setattr(Run, step, lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
            with pytest.raises(OSError, match="full"):
                train(network(corpus.size), corpus.chunks(2, 7), run=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for name in ("full", "file"):
        with pytest.raises(FileExistsError, match=f"{name} exists"):
            Run.create(tmp_path / name, {})
    assert Run.create(tmp_path / "deep/er/run", {"a": {"b": None, "c": Path("x")}}).config["a"] == {"c": "x"}
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", {}).path == tmp_path / "empty"


def test_amend_replaces_sections(run):
    run.amend({"training": {"updates": 9, "seconds": None}})
    assert load(run.path).config["training"] == {"updates": 9}
    assert load(run.path).config["network"]["cell"] == "gru"


# After a crash


def test_a_line_that_was_cut_is_left_out(run):
    file = run.path / "metrics.jsonl"
    whole = run.records()
    file.write_text(file.read_text()[:-9])
    assert run.records() == whole[:-1]
    run.rewind(4)
    assert [record["update"] for record in run.records()] == [1, 2, 3, 4]
    assert file.read_text().endswith("}\n")
    file.unlink()
    assert run.records() == []


def test_a_log_that_is_ahead_of_the_save_is_made_again(tmp_path):
    corpus = text()
    chunks = corpus.chunks(2, 7)
    records = train(network(corpus.size), chunks, updates=9, run=tmp_path / "run")
    for _ in range(3):
        next(records)
    records.close()
    saved = tmp_path / "saved"
    shutil.copytree(tmp_path / "run", saved)
    with (saved / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"update": 4, "loss": 9.0}) + '\n{"update": 5, "lo')
    list(train(network(corpus.size), chunks, updates=9, run=saved, resume=True))
    list(train(network(corpus.size), chunks, updates=9, run=tmp_path / "run", resume=True))
    plain = [[{**record, "seconds": 0} for record in load(folder).records()] for folder in (saved, tmp_path / "run")]
    assert plain[0] == plain[1]
    assert [record["update"] for record in plain[0]] == list(range(1, 10))


# Damage and strangers


def test_what_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="is not a run: it has no config"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.toml", b"network = [", "config.toml is damaged"),
        ("config.toml", b"\xff\xfe", "config.toml is damaged"),
        ("config.toml", b"", "names no format"),
        ("config.toml", b"format = 1\n[network]\nnetwork = 'deep'", "cannot be built"),
        ("config.toml", b"format = 1\n[network]\nnetwork = 'recurrent'\ncell = 'gru'\nlayer = 3", "cannot be built"),
        ("weights.safetensors", b"", "weights.safetensors is damaged"),
        ("weights.safetensors", None, "weights.safetensors is missing"),
        ("vocabulary.json", b"{}", "vocabulary.json is damaged"),
        ("vocabulary.json", b"[", "vocabulary.json is damaged"),
        ("vocabulary.json", None, "not trained on text"),
    ],
)
def test_damage_is_named(run, name, content, said):
    file = run.path / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        load(run.path).sample("the", 3)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("name", ["weights.safetensors", "resume.safetensors"])
def test_files_that_were_cut(run, name, share):
    file = run.path / name
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    corpus = text()
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        _ = (
            run.net
            if name == "weights.safetensors"
            else train(network(corpus.size), corpus.chunks(2, 7), updates=9, run=run.path, resume=True)
        )


def test_weights_of_another_network(run):
    save_file({"embed.weight": torch.zeros(3, 2)}, run.path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"does not fit the network: embed\.weight is"):
        _ = run.net
    corpus = text()
    with pytest.raises(ValueError, match="does not fit the network"):
        train(network(corpus.size, units=6), corpus.chunks(2, 7), updates=9, run=run.path, resume=True)


def test_a_resume_file_that_lost_its_header(run):
    save_file({"a": torch.zeros(1)}, run.path / "resume.safetensors")
    corpus = text()
    with pytest.raises(ValueError, match="it has no header"):
        train(network(corpus.size), corpus.chunks(2, 7), updates=9, run=run.path, resume=True)
    save_file({"a": torch.zeros(1)}, run.path / "resume.safetensors", {"skeleton": '{"Strange": []}'})
    with pytest.raises(ValueError, match="does not fit"):
        train(network(corpus.size), corpus.chunks(2, 7), updates=9, run=run.path, resume=True)


def test_a_newer_format(run):
    file = run.path / "config.toml"
    file.write_text(file.read_text().replace(f"format = {FORMAT}", f"format = {FORMAT + 1}"))
    with pytest.raises(ValueError, match=r"of a newer throughtime .*Update throughtime"):
        load(run.path)


def test_nothing_is_pickled(run):
    for name in ("weights.safetensors", "resume.safetensors"):
        assert load_file(run.path / name)
    assert runs.__doc__
    assert "pickle" not in Path(runs.__file__).read_text()
