"""The page as a file, and the command that writes it: JSON of the library's numbers, offline, in two languages."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pytest
import torch
from explained import CASES, PROBLEMS, explained
from terminal import run_command

from throughtime.explain import Explanation, network, of_word, render
from throughtime.explain.page import DIGITS, plain, words

__all__ = ["run_command"]


class Page(HTMLParser):
    """What a browser would fetch and run."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.links, self.ids, self.named, self.scripts = text, [], [], [], []
        self._in: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.named += [attributes[name] for name in ("for", "aria-labelledby") if name in attributes]
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag):
        self._in = None


@pytest.mark.parametrize(("cell", "name"), CASES)
def test_the_json_holds_the_numbers(cell: str, name: str) -> None:
    page = explained(cell, name)
    held = json.loads(Page(render(page)).scripts[0])
    wanted = page.to_dict()
    assert {key: value for key, value in held.items() if key in wanted} == json.loads(json.dumps(wanted))
    first = held["first"]
    weights = dict(page.net.named_parameters())
    G, H = page.net.layers.cell.gates, page.net.layers.units
    near = {"rtol": 10.0 ** (1 - DIGITS), "atol": 0}
    for t, g, i, j in product(range(held["T"]), range(G), range(H), range(H)):
        back, shown = page.alone[t][-1], held["alone"][t][-1]
        torch.testing.assert_close(shown["to_h"][i][g][j], back.to_h[i, g, j].item(), **near)
        torch.testing.assert_close(
            first["weights"]["hh"][i][g][j], weights["layers.weight_hh_l0"][g * H + j, i].item(), **near
        )
    torch.testing.assert_close(
        torch.tensor(first["pass"]["states"][0]), page.there.states[0], check_dtype=False, **near
    )
    for h, descent in enumerate(page.descents):
        assert held["descents"][h]["losses"] == plain(list(descent.losses))
    exact = torch.cat([grad.flatten() for grad in page.descents[-1].grads.values()])
    short = torch.cat([grad.flatten() for grad in page.descents[0].grads.values()])
    assert held["descents"][0]["off"] == pytest.approx(float((short - exact).norm() / exact.norm()), rel=1e-5)
    assert held["descents"][-1]["off"] == 0


@pytest.mark.parametrize("language", ["en", "pt"])
def test_opens_offline(language: str) -> None:
    page = Page(render(explained("lstm", "word"), language, "throughtime explain <machine>"))
    assert f'<html lang="{language}">' in page.text
    assert page.links == ["#step"]
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org/)", page.text)
    assert "default-src 'none'" in page.text
    assert len(page.ids) == len(set(page.ids))
    assert set(page.named) <= set(page.ids)
    assert "throughtime explain &lt;machine&gt;" in page.text


def test_the_script_computes_nothing_of_the_model() -> None:
    """It has no exponential and no hyperbolic tangent to compute one with."""
    script = Page(render(explained("gru", "values"))).scripts[1]
    assert not re.search(r"Math\.(exp|tanh|log|sqrt|pow)", script)


def test_a_word_cannot_end_the_script() -> None:
    problem = of_word("</script>")
    page = Page(render(Explanation.of(network(problem), problem), command="throughtime explain '</script>'"))
    assert len(page.scripts) == 2
    assert "<" not in page.scripts[0]
    assert json.loads(page.scripts[0])["items"] == list("</script>")


def test_both_languages_say_the_same_things() -> None:
    en, pt = words("en"), words("pt")
    assert en.keys() == pt.keys()
    for key, text in en.items():
        blanks = sorted(re.findall(r"\{\w*\}", text))
        assert sorted(re.findall(r"\{\w*\}", pt[key])) == blanks, key
        assert text.count("`") % 2 == pt[key].count("`") % 2 == 0, key
        assert text
        assert pt[key]
    script = Page(render(explained("elman", "values"))).scripts[1]
    for key in re.findall(r'say\("(\w+)"|words\.(\w+)', script):
        assert (key[0] or key[1]) in en


# The command


def test_the_command_writes_the_page(run, tmp_path: Path) -> None:
    answer = run("explain", "--units", 3)
    assert (answer.code, answer.out, answer.err) == (0, "Open explain.html in a browser.\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["explain.html"]
    held = json.loads(Page((tmp_path / "explain.html").read_text(encoding="utf-8")).scripts[0])
    assert "".join(held["items"]) == "machine"
    wanted = Explanation.of(network(PROBLEMS["word"], units=3), PROBLEMS["word"]).to_dict()
    assert held["first"] == json.loads(json.dumps(wanted["first"]))
    again = run(
        "explain", "--values=-1,2,0.5", "--cell", "gru", "--language", "pt", "--seed", 2, "--out", "a page.html"
    )
    assert again.out == "Open a page.html in a browser.\n"
    text = (tmp_path / "a page.html").read_text(encoding="utf-8")
    assert "throughtime explain --values=-1,2,0.5 --cell=gru --seed=2 --language=pt" in text
    assert "throughtime explain papaya --cell lstm --language=pt\nthroughtime explain --values 0,1,0,1" in text
    assert '<html lang="pt">' in text


def test_the_network_of_a_run(run, tmp_path: Path) -> None:
    small = ["--units", 4, "--embedding", 0, "--cell", "gru", "--updates", 40, "--run", "r"]
    assert run("train", "--text", "papaya", "--split", "none", *small).code == 0
    assert run("explain", "papaya", "--run", "r").code == 0
    held = json.loads(Page((tmp_path / "explain.html").read_text(encoding="utf-8")).scripts[0])
    assert held["tokens"] == ["<unk>", "a", "p", "y"]
    assert held["held"] is not None
    assert held["trained"]
    refused = run("explain", "machine", "--run", "r")
    assert refused.code == 2
    assert "letters that the network has learned; got 'm'" in refused.sentence
    for words_, said in (
        (["papaya", "--run", "r", "--units", 5], "--units must be left out with --run"),
        (["--values", "1,2", "--run", "r"], "--values must be left out with --run"),
        (["papaya", "--run", "nothing"], "nothing does not exist"),
    ):
        answer = run("explain", *words_)
        assert answer.code == 2
        assert said in answer.sentence


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([""], "WORD must have 2 to 10 letters; got 0"),
        (["m"], "WORD must have 2 to 10 letters; got 1"),
        (["machinemachine"], "WORD must have 2 to 10 letters; got 14"),
        (["\udcff\udcfe"], "WORD must be UTF-8"),
        (["machine", "--cell", "lstn"], "Did you mean 'lstm'?"),
        (["machine", "--cell", "ctrnn"], "cell must be elman, gru or lstm; got 'ctrnn'"),
        (["machine", "--units", 2], "--units must be 3 to 8"),
        (["machine", "--units", 9], "--units must be 3 to 8"),
        (["machine", "--values", "1,2,3"], "WORD and --values must not be given together"),
        (["--values", "1,two,3"], "--values must be numbers with commas between, such as 1,2,3; got '1,two,3'"),
        (["--values", "1"], "--values must be 2 to 10 numbers; got 1"),
        (["--values", "1,nan"], "--values must be finite"),
        (["--values", "1,1e400"], "--values must be finite"),
        (["--rate", -1], "--rate must be above 0"),
        (["--rate", "nan"], "--rate must be above 0"),
        (["--language", "de"], "--language"),
        (["--out", "nowhere/x.html"], "--out must be in a folder that exists; nowhere does not"),
        (["--out", "."], "--out must be a file; . is a folder"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path: Path, given: list[object], said: str) -> None:
    answer = run("explain", *given)
    assert answer.code == 2
    assert said in answer.sentence
    assert not list(tmp_path.iterdir())


def test_a_device_or_a_pipe_is_not_replaced_by_a_page(run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    answer = run("explain", "--units", 3, "--out", "pipe")
    assert answer.code == 2
    assert answer.sentence.startswith("--out must be a file; pipe is a device or a pipe. Give a name")
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_that_cannot_be_written_is_named(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "replace", refuse)
    answer = run("explain", "--units", 3)
    assert answer.code == 2
    assert answer.sentence.startswith("explain.html cannot be used: Permission denied")
    assert not list(tmp_path.iterdir())
