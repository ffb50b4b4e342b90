"""The pages in a real browser: no complaint, no request, every step by mouse and by key, and the library's numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from browser import WIDTHS, Browser, colours, marks, opened_window
from explained import CELLS, explained

from throughtime.explain import LANGUAGES, Explanation, render, write_page
from throughtime.explain.page import DIGITS
from throughtime.explain.updates import MOMENTS

pytestmark = marks

__all__ = ["opened_window"]

BROKEN = re.compile(r"undefined|NaN|\{\w*\}|`")
"""What a page shows where a blank was not filled in."""


@pytest.fixture(name="show")
def show_page(window: Browser, tmp_path: Path):
    """Opens the page of a cell in a window of 1280 pixels, and looks at the end that nothing went wrong on it."""
    opened: list[Path] = []

    def show(cell: str, kind: str = "repeated", language: str = "en") -> Explanation:
        opened.append(
            write_page(tmp_path / "page.html", render(explained(cell, kind), language, "throughtime explain"))
        )
        window.size(1280, 900)
        window.prefer(prefers_reduced_motion="reduce", prefers_color_scheme="light")
        window.open(opened[-1])
        return explained(cell, kind)

    yield show
    assert window.complaints() == []
    assert window.requests() == [opened[-1].as_uri()]


def read(text: str) -> float:
    """A number of the page."""
    return float(text.replace("−", "-").replace(",", "."))


def table(window: Browser, selector: str) -> list[list[str]]:
    """The cells of the first table in an element, headings included."""
    script = """return [...document.querySelector(arguments[0]).querySelector("table").rows].map(
        (row) => [...row.cells].map((cell) => cell.innerText))"""
    return window.run(script, selector)


def close(shown: Sequence[str], wanted: torch.Tensor, digits: int = 3) -> None:
    """The numbers as shown are the library's, rounded."""
    assert len(shown) == wanted.numel()
    for text, value in zip(shown, wanted.flatten().tolist(), strict=True):
        assert abs(read(text) - value) <= 0.5 * 10**-digits + 10.0 ** (1 - DIGITS) * abs(value), (text, value)
        assert (read(text) == 0) == (float(f"{value:.6g}") == 0), (text, value)


def choose(window: Browser, id: str, value: int) -> None:
    """Set a slider or a list, as a hand on it would."""
    script = """const control = document.getElementById(arguments[0]);
        control.value = arguments[1];
        for (const kind of ["input", "change"]) control.dispatchEvent(new Event(kind));"""
    window.run(script, id, value)


def place(window: Browser) -> tuple[int, int]:
    return tuple(int(part) for part in re.findall(r"\d+", window.text("#count")))


def columns(window: Browser) -> dict[str, list[str]]:
    """The columns of the table of all units in the panel, by heading."""
    head, *rows = table(window, "#panel")
    return {name: [row[k] for row in rows] for k, name in enumerate(head)}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("cell", CELLS)
def test_opens_and_walks_through_in_silence(window: Browser, show, cell: str, language: str) -> None:
    """Every step of three h, forward and back, and every update; the fixture looks at the console and the network."""
    page = show(cell, language=language)
    T = page.problem.chunk.steps
    assert window.run("return document.documentElement.lang") == language
    look = "return ['count', 'step-heading', 'step'].map((id) => document.getElementById(id).innerText)"
    for h in (T, 2, 1):
        choose(window, "h", h)
        window.press("Home")
        steps = 2 + 2 * T + 3 * sum(1 if h == T else min(h, t) for t in range(1, T + 1))
        seen = set()
        for step in range(1, steps + 1):
            count, heading, text = window.run(look)
            assert [int(number) for number in re.findall(r"\d+", count)] == [step, steps]
            assert not BROKEN.search(text)
            seen.add(heading)
            if step < steps:
                window.press("Right")
        assert len(seen) == steps  # no two have the same heading
    for moment in MOMENTS[1:]:
        window.press("Right")
        _, heading, text = window.run(look)
        assert str(moment) in heading
        assert not BROKEN.search(text)
    assert not BROKEN.search(window.text("body"))


@pytest.mark.parametrize("kind", ["repeated", "values"])
@pytest.mark.parametrize("cell", CELLS)
def test_forward_numbers(window: Browser, show, cell: str, kind: str) -> None:
    page = show(cell, kind)
    there = page.there
    for t in range(page.problem.chunk.steps):
        window.press("Right")
        assert f"t = {t + 1}: the state" in window.text("#step-heading")
        shown = list(columns(window).values())[1:]
        for g in range(page.net.layers.cell.gates):
            close(shown[2 * g], there.a[t, g])
            close(shown[2 * g + 1], there.gates[t, g])
        close(shown[-1], there.states[0][t + 1])
        if cell == "lstm":
            close(shown[-3], there.states[1][t + 1])
            close(shown[-2], there.states[1][t + 1].tanh())
        live = window.text("#said").rsplit(": ", 1)[1].rstrip(".").split(", ")
        close(live, there.states[0][t + 1])
        window.press("Right")
        results = window.run("return [...document.querySelectorAll('#panel strong')].map((each) => each.innerText)")
        target = page.problem.chunk.x.new_zeros(1) if kind == "values" else page.problem.chunk.y[t]
        close(results, torch.stack((there.o[t, int(target)], there.losses[t])))
        if kind == "repeated":
            shown = list(columns(window).values())
            close(shown[1], there.o[t])
            close(shown[2], there.p[t])


@pytest.mark.parametrize("h", [2, 5])
@pytest.mark.parametrize("cell", CELLS)
def test_backward_numbers(window: Browser, show, cell: str, h: int) -> None:
    """What arrives, what passes the cell, and the shares in W_hh, of every backward step, are the sweep's."""
    page = show(cell)
    T = page.problem.chunk.steps
    backs = page.together[::-1] if h == T else [back for steps in page.alone[::-1] for back in steps[:h]]
    choose(window, "h", h)
    window.click("#to-backward")
    for back in backs:
        assert f"Backward, t = {back.t + 1}: what arrives" in window.text("#step-heading")
        shown = list(columns(window).values())[1:]
        close(shown[0], back.own)
        close(shown[1], back.product)
        direct = [back.direct[0]] if cell == "gru" else []
        for column, values in zip(shown[2:], [*direct, *back.ds], strict=True):
            close(column, values)
        window.press("Right")
        shown = list(columns(window).values())[1:]
        close(shown[0], back.ds[0])
        if cell == "elman":
            close(shown[1], 1 - page.there.states[0][back.t + 1] ** 2)
            close(shown[2], back.du[0])
        else:
            first = 2 if cell == "lstm" else 1
            for g, column in enumerate(shown[first : first + len(back.du)]):
                close(column, back.du[g])
        window.press("Right")
        rows = table(window, "#panel")[1:]
        close([value for row in rows for value in row[1:]], back.to_h[:, 0])
        window.press("Right")
    assert window.text("#step-heading") == "The gradient"
    weights = page.descents[h - 1].grads["layers.weight_ih_l0"].T[:, : page.net.layers.units]
    close([value for row in table(window, "#panel")[1:] for value in row[1:]], weights)


def test_the_numbers_of_one_weight_add_up(window: Browser, show) -> None:
    """The terms that are shown of one entry of W_hh, for another unit than the first, are those of the shares."""
    page = show("elman")
    choose(window, "unit", 2)
    choose(window, "from", 1)
    window.press("End")
    line = window.text("#panel .line")
    terms, total = line.split(" = ")[0] + " = " + line.split(" = ", 1)[1], line.rsplit(" = ", 1)[1]
    shown = re.findall(r"(−?[\d.]+(?:e−\d+)?)\)? \(t = \d+\)", terms)
    close(shown, torch.stack([back.to_h[1, 0, 2] for back in page.together[::-1]]))
    close([total], page.descents[-1].grads["layers.weight_hh_l0"][2, 1])


def test_the_drawing_shows_the_states(window: Browser, show) -> None:
    """A column of numbers for every state known so far, in the picture itself."""
    page = show("elman")
    T, units = page.problem.chunk.steps, page.net.layers.units

    def drawn() -> list[str]:
        script = """return [...document.querySelectorAll('#network rect.fore + text, #network rect.back + text')]
            .filter((text) => text.previousElementSibling.getAttribute("height") === "18")
            .map((text) => text.textContent)"""
        return window.run(script)

    assert set(drawn()[units:]) == {"·"}
    window.press("Right", "Right", "Right")
    shown = [drawn()[units + 2 * units * t :][:units] for t in range(T)]
    for t in range(T):
        if t < 2:
            close(shown[t], page.there.states[0][t + 1], 2)
        else:
            assert set(shown[t]) == {"·"}
    window.press("End")
    for t in range(T):
        close(drawn()[units + 2 * units * t + units :][:units], page.together[t].du[0], 2)


def arrows(window: Browser) -> int:
    """Arrows back from one state to the one before that are drawn, whether taken yet or not."""
    script = """return [...document.querySelectorAll('#network .arrow.back:not(.direct) path')].filter((path) => {
        const [, y1, , y2] = path.getAttribute("d").match(/[-\\d.]+/g).map(Number);
        return Math.abs(y1 - y2) < 1;
    }).length"""
    return window.run(script)


def test_moving_h_makes_arrows_vanish(window: Browser, show) -> None:
    page = show("gru")
    T = page.problem.chunk.steps
    assert arrows(window) == T - 1
    window.run("document.getElementById('h').focus()")
    for h in range(T - 1, 0, -1):
        window.press("Left")
        assert window.text("#h-said") == f"BPTT({h})"
        assert window.run("return document.getElementById('h').getAttribute('aria-valuetext')") == f"BPTT({h})"
        assert arrows(window) == h - 1
        assert window.run("return document.querySelectorAll('#map td.off').length") == (T - h) * (T - h + 1) // 2
        off = window.run("return document.getElementById('map-said').innerText.match(/([\\d.]+) %/)[1]")
        exact, found = (torch.cat([grad.flatten() for grad in page.descents[k - 1].grads.values()]) for k in (T, h))
        close([off], 100 * (found - exact).norm() / exact.norm(), 1)
    window.press("End")
    assert window.text("#h-said") == f"h = {T}: all the way"


def test_the_map_holds_the_norms_and_leads_to_the_step(window: Browser, show) -> None:
    page = show("lstm")
    T = page.problem.chunk.steps
    rows = table(window, "#map")[1:]
    for t in range(T):
        close(rows[t][1 : t + 2], torch.stack([back.ds[0].norm() for back in page.alone[t]][::-1]), 2)
        assert not any(rows[t][t + 2 :])
    choose(window, "h", 3)
    window.click('#map button[data-error="3"][data-t="2"]')
    assert window.text("#step-heading") == "Backward, t = 3: what arrives (error of step 4)"
    focus = window.run("const {error, t} = document.activeElement.dataset; return [error, t]")
    assert focus == ["3", "2"]


@pytest.mark.parametrize("h", [1, 5])
def test_updates_lower_the_loss(window: Browser, show, h: int) -> None:
    page = show("elman")
    choose(window, "h", h)
    descent = page.descents[h - 1]
    for index, updates in enumerate(MOMENTS[1:], 1):
        window.click("#update")
        numbers = re.findall(r"[\d.]+\d", window.text("#said").split(".", 1)[1])
        close(numbers, torch.tensor([descent.losses[0], descent.losses[updates]]), 2)
        weights = descent.weights[index]["layers.weight_ih_l0"].T
        close([value for row in table(window, "#panel")[1:] for value in row[1:]], weights)
        assert (
            page.problem.tokens[int(descent.passes[index].o[0].argmax())] == window.text("#loss-said").split("“")[-1][0]
        )
    assert window.run("return document.getElementById('update').getAttribute('aria-disabled')") == "true"
    for _ in MOMENTS[1:]:
        window.press("Left")
    assert window.text("#step-heading") == "The gradient"


def test_tables_hold_what_the_picture_shows(window: Browser, show) -> None:
    page = show("gru")
    T = page.problem.chunk.steps
    window.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    rows = table(window, "#table-forward")[1:]
    for t in range(T):
        close(rows[t][2].split(", "), page.there.states[0][t + 1])
        close(rows[t][3].split(", "), page.there.p[t])
        close([rows[t][5]], page.there.losses[t])
    for row, back in zip(table(window, "#table-backward")[1:], page.together[::-1], strict=True):
        close(row[2].split(", "), back.ds[0])
        for g, text in enumerate(row[3:]):
            close(text.split(", "), back.du[g])
    for row, moment in zip(table(window, "#table-losses")[1:], MOMENTS, strict=True):
        close(row[1:], torch.tensor([descent.losses[moment] for descent in page.descents]))


def test_buttons_and_keys_do_the_same(window: Browser, show) -> None:
    show("elman")
    window.click("#next")
    by_click = window.text("#step")
    window.press("Left")
    assert window.text("#step-heading") == "Before the first step"
    window.press("Right")
    assert window.text("#step") == by_click
    window.click("#previous")
    assert place(window)[0] == 1
    window.press("Left")  # there is nothing before
    assert place(window)[0] == 1
    window.run("document.getElementById('next').focus()")
    window.press("Enter", "Space")
    assert place(window)[0] == 3
    assert window.run("return document.activeElement.id") == "next"
    window.run("document.getElementById('unit').focus()")
    window.press("Right")  # belongs to the list, which it moves
    assert place(window)[0] == 3


def test_the_order_of_focus_and_what_is_read_out(window: Browser, show) -> None:
    show("lstm")
    order = []
    for _ in range(12):
        window.press("Tab")
        order.append(window.run("return document.activeElement.id || document.activeElement.localName"))
    assert order == [
        *("a", "to-forward", "to-backward", "update", "previous", "next", "h", "network"),
        *("summary", "unit", "from", "gate"),
    ]
    tree = window.devtools("Accessibility.getFullAXTree")["nodes"]
    names = {
        (node["role"]["value"], node.get("name", {}).get("value", "").strip()) for node in tree if not node["ignored"]
    }
    for role in ("button", "slider", "combobox", "image", "heading"):
        assert all(name for found, name in names if found == role), role
    assert ("slider", "Back h steps") in names
    assert ("combobox", "weight from unit") in names
    window.run("document.activeElement.blur()")  # the list of gates would take the key
    window.press("Right")
    live = window.text("[aria-live=polite]")
    assert live.startswith("Forward, t = 1: the state")
    assert "makes the first state: " in live


@pytest.mark.parametrize("cell", ["elman", "lstm"])
@pytest.mark.parametrize("width", WIDTHS)
def test_fits_every_screen(window: Browser, show, cell: str, width: int) -> None:
    """Nothing is wider than the window but what scrolls in its own box; controls stay in sight, letters keep a size."""
    show(cell, language="pt")
    window.size(width, 700)
    for keys in ((), ("Right",), ("End",)):
        window.press(*keys)
        assert window.run("return document.documentElement.scrollWidth") <= width
        boxes = window.run("""return ["to-forward", "update", "previous", "next", "h", "h-said"].map((id) => {
            const {left, right, top, bottom} = document.getElementById(id).getBoundingClientRect();
            return [left, right, top, bottom];
        })""")
        assert all(0 <= left < right <= width for left, right, _, _ in boxes)
    least = window.run("""return Math.min(...[...document.querySelectorAll("#network rect + text")].map(
        (text) => text.getBoundingClientRect().height))""")
    assert least > (11 if width > 800 else 12)
    window.run("window.scrollTo(0, 600)")
    top = window.run("return document.getElementById('next').getBoundingClientRect().top")
    assert 0 <= top < 700


def test_dark_screens_and_still_ones(window: Browser, show) -> None:
    show("elman")
    window.press("Right", "Right", "Right")
    moving = "return getComputedStyle(document.querySelector('#network .arrow.now path')).animationName"
    assert window.run(moving) == "none"
    window.prefer(prefers_reduced_motion="no-preference", prefers_color_scheme="dark")
    assert window.run(moving) == "arrive"
    ink, paper = colours(window)
    assert ink > 200 > 50 > paper
