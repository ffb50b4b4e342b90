// The network, unrolled: a column for every step, and the curve of the loss.
"use strict";

const ROW = 18;
const GAP = 48;
const LSTM = data.cell === "lstm";
const OUTPUTS = WORD ? data.tokens.length : 1;
const HEAD = 18;

/** Where everything stands; y grows downwards, so that the input is below and the output above, as in textbooks. */
const place = (() => {
  const slots = LSTM ? 3 : 2;
  const width = Math.max(slots * 46, 108);
  const o = 46;
  const h = o + HEAD + OUTPUTS * 16 + GAP;
  const x = h + HEAD + data.units * ROW + GAP;
  const bottom = x + 34 + (WORD ? 18 : 0);
  return {
    slots, width, o, h, x, bottom,
    cell: width / slots,
    left: (t) => (t < 0 ? 8 : 8 + 46 * (slots - 1) + GAP + t * (width + GAP)),
    middle: h + HEAD + (data.units * ROW) / 2,
    total: 8 + 46 * (slots - 1) + GAP + data.T * (width + GAP) - GAP + 32,
    height: bottom + 24,
  };
})();

function text(x, y, content, kind = "", anchor = "middle") {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}"${kind && ` class="${kind}"`}>${content}</text>`;
}

/** A symbol with an index, in SVG. */
function symbol(letter, index) {
  return `<tspan class="symbol">${letter}</tspan><tspan class="index" dy="3">${index}</tspan>`;
}

/** An arrow; its kind names its colour and whether it is the present one. */
function arrow(x1, y1, x2, y2, kind) {
  const turn = Math.atan2(y2 - y1, x2 - x1);
  const [dx, dy] = [Math.cos(turn), Math.sin(turn)];
  const at = (back, side) => `${(x2 - 7 * back * dx - 4 * side * dy).toFixed(1)},${(y2 - 7 * back * dy + 4 * side * dx).toFixed(1)}`;
  return `<g class="arrow ${kind}"><path d="M${x1},${y1}L${x2 - 5 * dx},${y2 - 5 * dy}"/><polygon points="${at(0, 0)} ${at(1, 1)} ${at(1, -1)}"/></g>`;
}

/** A column of numbers, one a unit, shaded by size; null is one not yet known. */
function column(x, y, width, values, kind) {
  return values.map((value, unit) => {
    const top = y + unit * ROW;
    const shade = value === null ? 0 : Math.min(0.75, Math.abs(value) * (kind === "back" ? 1.2 : 0.75));
    const sign = value === null || value >= 0 ? "plus" : "minus";
    return `<rect class="${kind} ${sign}" x="${x}" y="${top}" width="${width}" height="${ROW}" fill-opacity="${shade.toFixed(2)}"/>` +
      text(x + width / 2, top + 13, value === null ? "·" : number(value, 2), value === null ? "faint" : "");
  }).join("");
}

function box(x, y, width, height, kind) {
  return `<rect class="box ${kind}" x="${x}" y="${y}" width="${width}" height="${height}" rx="5"/>`;
}

/** The state after step t (t from 0, -1 before the first): its slots, and what came back to it. */
function stateNode(view, t) {
  const {slots} = place;
  const [x, y] = [place.left(t), place.h];
  const shown = t < 0 ? slots - 1 : slots;
  const cell = t < 0 ? 46 : place.cell;
  const known = t < 0 || view.stateKnown(t);
  const empty = Array(data.units).fill(null);
  const states = view.pass.states.map((slot) => (known ? slot[t + 1] : empty));
  const back = t < 0 ? null : view.back(t);
  let drawn = box(x, y, shown * cell, HEAD + data.units * ROW, t >= 0 && view.active("h", t) ? "active" : "");
  (LSTM ? [["C", states[1]], ["H", states[0]]] : [["H", states[0]]]).forEach(([name, values], slot) => {
    drawn += text(x + (slot + 0.5) * cell, y + 13, symbol(name, t + 1), "head") + column(x + slot * cell, y + HEAD, cell, values, "fore");
  });
  if (t >= 0) {
    const name = !back ? "" : back.name === "δ" ? symbol("δ", t + 1) : symbol("dH", t + 1);
    drawn += text(x + (slots - 0.5) * cell, y + 13, name, "head backward");
    drawn += column(x + (slots - 1) * cell, y + HEAD, cell, back ? back.values : empty, "back");
  }
  return drawn;
}

/** The readout of step t: a row for every letter with its probability and, on the way back, its error. */
function outputNode(view, t) {
  const {width, o} = place;
  const x = place.left(t);
  const known = view.outputKnown(t);
  const values = known ? (view.pass.p ?? view.pass.o)[t] : Array(OUTPUTS).fill(null);
  const errors = view.errorShown(t) ? data.r[t] : null;
  let drawn = box(x, o, width, HEAD + OUTPUTS * 16, view.active("o", t) ? "active" : "");
  drawn += text(x + width * 0.42, o + 13, symbol("ŷ", t + 1), "head") + (errors ? text(x + width * 0.8, o + 13, symbol("r", t + 1), "head backward") : "");
  values.forEach((value, id) => {
    const top = o + HEAD + id * 16;
    const wanted = WORD ? id === data.y[t] : true;
    if (value !== null && WORD) drawn += `<rect class="fore plus" x="${x + width * 0.2}" y="${top + 1}" width="${(width * 0.42 * value).toFixed(1)}" height="14" fill-opacity="0.35"/>`;
    if (WORD) drawn += text(x + width * 0.1, top + 12, escaped(letter(id)), wanted ? "wanted" : "soft");
    drawn += text(x + width * 0.42, top + 12, value === null ? "·" : number(value, 2), value === null ? "faint" : wanted ? "wanted" : "");
    if (errors) drawn += text(x + width * 0.8, top + 12, number(errors[id], 2), "backward");
  });
  const target = WORD ? escaped(letter(data.y[t])) : number(data.y[t], 2);
  drawn += text(x + width / 2, 16, `${escaped(words.wanted)} <tspan class="wanted">${target}</tspan>`, "soft");
  drawn += text(x + width / 2, 34, known ? `ℓ = ${number(view.pass.losses[t], 2)}` : "", "");
  return drawn;
}

function inputNode(view, t) {
  const {width, x: y} = place;
  const x = place.left(t);
  const middle = x + width / 2;
  let drawn = box(x + width / 2 - (WORD ? Math.max(27, OUTPUTS * 5 + 5) : 30), y, WORD ? Math.max(54, OUTPUTS * 10 + 10) : 60, WORD ? 48 : 30, view.active("x", t) ? "active" : "");
  drawn += text(middle, y + 21, WORD ? escaped(letter(data.x[t])) : number(data.x[t], 2), WORD ? "letter" : "");
  if (WORD) {
    data.tokens.forEach((_, id) => {
      drawn += text(middle + (id - (OUTPUTS - 1) / 2) * 10, y + 40, id === data.x[t] ? "1" : "0", id === data.x[t] ? "hot" : "cold");
    });
  }
  return drawn + text(middle, place.bottom + 16, symbol("X", t + 1) + `<tspan dy="-3" class="soft"> t = ${t + 1}</tspan>`, "head");
}

/** The arrows of step t, forward and back; those back stand only where the error passes. */
function arrows(view, t) {
  const x = place.left(t);
  const middle = x + place.width / 2;
  const oBottom = place.o + HEAD + OUTPUTS * 16;
  const hBottom = place.h + HEAD + data.units * ROW;
  const y = place.middle;
  const from = t > 0 ? place.left(t - 1) + place.width : place.left(-1) + 46 * (place.slots - 1);
  let drawn = arrow(middle - 9, place.x - 2, middle - 9, hBottom + 2, `fore ${view.active("xh", t) ? "now" : ""}`);
  drawn += arrow(middle - 9, place.h - 2, middle - 9, oBottom + 2, `fore ${view.active("ho", t) ? "now" : ""}`);
  const over = y - (GATED ? 22 : 10);
  drawn += arrow(from + 3, over, x - 3, over, `fore ${view.active("hh", t) ? "now" : ""}`);
  if (GATED) drawn += arrow(from + 3, y - 7, x - 3, y - 7, `fore direct ${view.active("hh", t) ? "now" : ""}`);
  if (t === 0 || view.active("hh", t)) drawn += text((from + x) / 2, over - 7, "W<tspan class='index' dy='3'>hh</tspan>", "symbol soft");
  if (t === 0 || view.active("xh", t)) drawn += text(middle - 16, place.x - 18, "W<tspan class='index' dy='3'>xh</tspan>", "symbol soft", "end");
  if (t === 0 || view.active("ho", t)) drawn += text(middle - 16, oBottom + 28, "W<tspan class='index' dy='3'>hq</tspan>", "symbol soft", "end");
  const share = view.sharing(t);
  if (share) {
    drawn += text(middle + 18, place.x - 18, "+dW<tspan class='index' dy='3'>xh</tspan>", "symbol share", "start");
    drawn += text((from + x) / 2, hBottom + 15, "+dW<tspan class='index' dy='3'>hh</tspan>", "symbol share");
    if (share.output) drawn += text(middle + 18, oBottom + 28, "+dW<tspan class='index' dy='3'>hq</tspan>", "symbol share", "start");
  }
  const down = view.downArrow(t);
  if (down) drawn += arrow(middle + 9, oBottom + 3, middle + 9, place.h - 3, `back ${down}`);
  const past = t > 0 ? view.pastArrow(t) : null;
  if (past) {
    drawn += arrow(x - 3, y + 8, from + 3, y + 8, `back ${past}`);
    if (GATED) drawn += arrow(x - 3, y + 24, from + 3, y + 24, `back direct ${past}`);
  }
  if (t > 0 && view.cutBefore(t)) {
    const at = (from + x) / 2;
    drawn += `<line class="cut" x1="${at}" x2="${at}" y1="${place.h - 4}" y2="${hBottom + 4}"/>` + text(at, place.h - 10, `h = ${view.h}`, "cutlabel");
  }
  return drawn;
}

function drawNetwork(view) {
  let drawn = stateNode(view, -1);
  for (let t = 0; t < data.T; t += 1) drawn += arrows(view, t) + inputNode(view, t) + stateNode(view, t) + outputNode(view, t);
  return `<svg role="img" aria-label="${escaped(view.described)}" viewBox="0 0 ${place.total} ${place.height}" style="--total:${place.total}px">${drawn}</svg>`;
}

/** The loss after every update, under h and, faint, under the h that cuts nothing. */
function drawLoss(h, updates, described) {
  const [width, height, left, bottom] = [460, 190, 40, 28];
  const curves = [data.descents[data.T - 1].losses, data.descents[h - 1].losses];
  const last = curves[0].length - 1;
  const most = Math.max(...curves.flat()) * 1.05 || 1;
  const x = (update) => left + (update / last) * (width - left - 12);
  const y = (loss) => 8 + (1 - loss / most) * (height - bottom - 8);
  const path = (losses) => losses.map((loss, update) => `${update ? "L" : "M"}${x(update).toFixed(1)},${y(loss).toFixed(1)}`).join("");
  let drawn = [0, 0.5, 1].map((share) => {
    const value = (most / 1.05) * share;
    return `<line class="rule" x1="${left}" x2="${width - 12}" y1="${y(value)}" y2="${y(value)}"/>` + text(left - 6, y(value) + 4, number(value, 1), "soft", "end");
  }).join("");
  drawn += [0, 25, 50, 75, 100].map((update) => text(x(update), height - 10, update, "soft")).join("");
  if (h < data.T) drawn += `<path class="curve other" d="${path(curves[0])}"/>`;
  drawn += `<path class="curve" d="${path(curves[1])}"/>`;
  drawn += `<circle class="point" cx="${x(updates)}" cy="${y(curves[1][updates])}" r="5"/>`;
  return `<svg role="img" aria-label="${escaped(described)}" viewBox="0 0 ${width} ${height}">${drawn}</svg>`;
}
