"""`throughtime audit`: a function of the user's file, its report, the exit code, and what is refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from terminal import Run, run_command, shell

__all__ = ["run_command"]

ROOT = Path(__file__).parents[1]

LOOP = """
    import torch
    from torch import nn

    import throughtime as tt
    from sizes import K


    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.fc = nn.GRU(3, 4), nn.Linear(4, 1)

        def forward(self, x, state):
            h, state = self.rnn(x, state)
            return self.fc(h), state


    def train(model, x, y, cut=True):
        optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
        for part, wanted in zip(x.split(K), y.split(K)):
            prediction, state = model(part, state)
            loss = (prediction - wanted).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print("trained on", len(part))
            state = state.detach() if cut else state


    def wrong(model, x, y):
        train(model, x, y, cut=False)


    def audit(loop=train):
        return tt.audit(loop, Model(), torch.randn(10, 2, 3), torch.randn(10, 2, 1))


    def audit_wrong():
        return audit(wrong)


    def audit_batch_first():
        return tt.audit(train, Model(), torch.randn(10, 2, 3), torch.randn(7, 2, 1))


    def fails():
        return audit(lambda model, x, y: model(x, None)[0] + undefined)


    def forgets():
        audit()


    def leaves():
        raise SystemExit("torch must be there")
"""


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    (tmp_path / "sizes.py").write_text("K = 4\n")
    (tmp_path / "loop.py").write_text(dedent(LOOP).lstrip())
    return tmp_path / "loop.py"


def test_a_right_loop_and_a_wrong_one(run: Run, loop: Path) -> None:
    right = run("audit", "loop.py")
    assert right.code == 0
    assert right.out.startswith("This loop computes BPTT(4; 4).\nNothing is wrong with it.\n\nerror at  use of")
    assert "       5  ....##\n" in right.out
    assert "trained on 4" in right.err
    wrong = run("audit", f"{loop}:audit_wrong")
    assert wrong.code == 1
    assert "  ! The state is not detached before the next window begins" in wrong.out
    both = run("audit", "loop.py", "loop.py:audit_wrong")
    assert both.code == 1
    assert both.out == f"loop.py\n{right.out}\nloop.py:audit_wrong\n{wrong.out}"


def test_the_picture(run: Run, loop: Path, tmp_path: Path) -> None:
    assert run("audit", "loop.py", "--picture", "it.png").code == 0
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "FILE.py must be given: a Python file with a function audit()"),
        (["none.py"], "none.py cannot be used: No such file or directory."),
        (["loop.txt"], "FILE.py must be a Python file, FILE.py:FUNCTION or FILE.py; got loop.txt."),
        (["loop.py:other"], "loop.py must define a function other() that returns tt.audit(loop, module, x, y)"),
        (["loop.py:K"], "loop.py must define a function K() that"),
        (["loop.py:train"], "train of loop.py must take no arguments and return tt.audit(...); it needs model."),
        (
            ["loop.py:forgets"],
            "forgets of loop.py must return the report, as in return tt.audit(loop, module, x, y); got",
        ),
        (["loop.py:fails"], "loop.py, line 47: NameError: name 'undefined' is not defined"),
        (["loop.py:leaves"], "loop.py must not exit; it did: torch must be there"),
        (["loop.py:audit_batch_first"], "y must begin with the axes of x, (10, 2); got (7, 2, 1)."),
        (["broken.py"], "broken.py, line 2: SyntaxError:"),
        (["loop.py", "--picture", "it.gif"], "--picture must end in .png, .svg or .pdf"),
        (["loop.py", "--picture", "none/it.png"], "--picture must be in a folder that exists; none does not."),
        (["loop.py", "--picture", "folder.png"], "--picture must be a file that can be written; folder.png cannot."),
        (["loop.py", "loop.py", "--picture", "it.png"], "--picture must go with one FILE.py; got 2."),
    ],
)
def test_what_is_refused(run: Run, loop: Path, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "loop.txt").write_text("")
    (tmp_path / "broken.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "folder.png").mkdir()
    answer = run("audit", *words)
    assert answer.code == 2
    assert answer.out == ""
    assert said in answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err
    assert not list(tmp_path.glob("it.*"))


@pytest.mark.parametrize("function", ["", ":audit_recipe"])
def test_the_docs_show_what_the_example_prints(run: Run, function: str) -> None:
    answer = run("audit", f"{ROOT}/examples/audit_pytorch.py{function}")
    assert answer.code == 1
    assert f"```\n{answer.out}```" in (ROOT / "docs/audit.md").read_text()


def test_the_command_as_a_program(loop: Path) -> None:
    """From any folder, as the file may import what lies beside it; what it prints fits 80 columns."""
    process = shell("-m", "throughtime", "audit", str(loop), cwd="/")
    out, _ = process.communicate()
    assert process.returncode == 0
    assert max(map(len, out.splitlines())) < 80
