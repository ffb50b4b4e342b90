// The panel of a step: its formula, the numbers of all units, and the numbers of one unit in the formula.
"use strict";

const wing = (row) => `[${row}]`;
const times = (pairs) => pairs.map(([a, b]) => `${term(a)} × ${term(b)}`).join(" + ");
const line = (html) => `<p class="line">${html}</p>`;
const formula = (text) => `<p class="formula">${math(text)}</p>`;
const units = () => [...Array(data.units).keys()];
const unitRows = (...columns) => units().map((j) => [j + 1, ...columns.map((values) => number(values[j]))]);

function statePanel(view, {t}, {unit: j, gate: g}) {
  const {weights, pass} = view;
  const n = t + 1;
  const before = pass.states[0][t];
  const [A, product] = [`${ARGUMENTS[g]}_{${n}}`, pass.v[t][g][j]];
  const input = WORD ? `W_{xh}[${letter(data.x[t])}, ${j + 1}]` : `x_{${n}} W_{xh}[1, ${j + 1}]`;
  const sum = times(units().map((i) => [before[i], weights.hh[i][g][j]]));
  const held = data.held?.[g][j] ? ` + ${term(data.held[g][j])}` : "";
  const first = WORD ? number(pass.inputs[t][g][j]) : `${number(data.x[t])} × ${term(weights.xh[0][g][j])}`;
  const candidate = data.cell === "gru" && g === 2;
  const inner = candidate ? `${math(`r_{${n}}`)} × (…) = ${term(pass.gates[t][0][j])} × (${sum}${held})` : `(${sum})`;
  let html = STATE_FORMULAS.map((each) => formula(each.replaceAll("{t}", `{${n}}`).replaceAll("{t-1}", `{${n - 1}}`))).join("");
  html += `<h3>${say("one_unit", {unit: j + 1})}</h3>`;
  html += line(`${math(`${A}[${j + 1}]`)} = ${math(input)} + ${candidate ? math("r ⊙ ") : ""}${math(`Σ_{i} H_{${n - 1}}[i] W_{hh}[i, ${j + 1}]`)} + ${math(`b[${j + 1}]`)}`);
  html += line(`= ${first} + ${inner} + ${term(weights.b[g][j])} = <strong>${number(pass.a[t][g][j])}</strong>`);
  html += line(`${math(`${OUTCOMES[g]}_{${n}}[${j + 1}] = ${FUNCTIONS[g]}`)}(${number(pass.a[t][g][j])}) = <strong>${number(pass.gates[t][g][j])}</strong>`);
  html += OUTCOME_LINES[data.cell](pass, t, j);
  const columns = data.gates.flatMap((_, k) => [pass.a[t][k], pass.gates[t][k]]);
  const heads = data.gates.flatMap((_, k) => [math(`${ARGUMENTS[k]}_{${n}}`), math(`${OUTCOMES[k]}_{${n}}`)]);
  if (LSTM) {
    columns.push(pass.states[1][t + 1], pass.tanh_c[t]);
    heads.push(math(`C_{${n}}`), math(`tanh C_{${n}}`));
  }
  if (GATED) {
    columns.push(pass.states[0][t + 1]);
    heads.push(math(`H_{${n}}`));
  }
  return html + table(say("all_units"), [words.unit, ...heads], unitRows(...columns), j) + `<p class="quiet">${say("product_here", {value: number(product), unit: j + 1, t: n})}</p>`;
}

const STATE_FORMULAS = {
  elman: [`H_{t} = ${data.phi ?? "tanh"}(A_{t})`, "A_{t} = X_{t} W_{xh} + H_{t-1} W_{hh} + b_{h}"],
  gru: ["r_{t} = σ(A^{r}_{t})", "z_{t} = σ(A^{z}_{t})", "n_{t} = tanh(X_{t} W_{xn} + b_{n} + r_{t} ⊙ (H_{t-1} W_{hn}))", "H_{t} = (1 − z_{t}) ⊙ n_{t} + z_{t} ⊙ H_{t-1}"],
  lstm: ["i_{t}, f_{t}, o_{t} = σ(A^{i}_{t}), σ(A^{f}_{t}), σ(A^{o}_{t})", "g_{t} = tanh(A^{g}_{t})", "C_{t} = f_{t} ⊙ C_{t-1} + i_{t} ⊙ g_{t}", "H_{t} = o_{t} ⊙ tanh(C_{t})"],
}[data.cell];

const OUTCOME_LINES = {
  elman: () => "",
  gru: (pass, t, j) => {
    const [, z, n] = pass.gates[t].map((gate) => gate[j]);
    const [before, after] = [pass.states[0][t][j], pass.states[0][t + 1][j]];
    return line(`${math(`H_{${t + 1}}[${j + 1}]`)} = (1 − ${number(z)}) × ${term(n)} + ${number(z)} × ${term(before)} = <strong>${number(after)}</strong>`);
  },
  lstm: (pass, t, j) => {
    const [i, f, g, o] = pass.gates[t].map((gate) => gate[j]);
    const [h, c] = pass.states.map((slot) => slot[t + 1][j]);
    return line(`${math(`C_{${t + 1}}[${j + 1}]`)} = ${number(f)} × ${term(pass.states[1][t][j])} + ${number(i)} × ${term(g)} = <strong>${number(c)}</strong>`) +
      line(`${math(`H_{${t + 1}}[${j + 1}]`)} = ${number(o)} × tanh(${number(c)}) = ${number(o)} × ${term(pass.tanh_c[t][j])} = <strong>${number(h)}</strong>`);
  },
};

function outputPanel(view, {t}) {
  const {weights, pass} = view;
  const n = t + 1;
  const id = WORD ? data.y[t] : 0;
  const h = pass.states[0][t + 1];
  const sum = times(units().map((i) => [h[i], weights.hq[i][id]]));
  let html = formula(`O_{${n}} = H_{${n}} W_{hq} + b_{q}`);
  html += formula(WORD ? `ŷ_{${n}} = softmax(O_{${n}}),  ℓ_{${n}} = −ln ŷ_{${n}}[${letter(id)}]` : `ŷ_{${n}} = O_{${n}},  ℓ_{${n}} = ½ (ŷ_{${n}} − y_{${n}})²`);
  html += `<h3>${WORD ? say("one_letter", {letter: letter(id)}) : say("the_output")}</h3>`;
  html += line(`${math(`O_{${n}}${WORD ? wing(letter(id)) : ""}`)} = ${sum} + ${term(weights.bq[id])} = <strong>${number(pass.o[t][id])}</strong>`);
  if (!WORD) {
    return html + line(`${math(`ℓ_{${n}}`)} = ½ × (${number(pass.o[t][0])} − ${term(data.y[t])})² = <strong>${number(pass.losses[t])}</strong>`);
  }
  html += line(`${math(`ℓ_{${n}}`)} = −ln ${number(pass.p[t][id])} = <strong>${number(pass.losses[t])}</strong>`);
  const rows = data.tokens.map((_, k) => [escaped(letter(k)), number(pass.o[t][k]), number(pass.p[t][k]), k === id ? "1" : "0"]);
  return html + table(say("all_letters"), [words.letter, math(`O_{${n}}`), math(`ŷ_{${n}}`), words.wanted], rows, id);
}

function arrivePanel(view, stage, {unit: j}) {
  const {t, error} = stage;
  const [back, n] = [view.backAt(stage), t + 1];
  const first = t === (error ?? data.T - 1);
  const own = error === null || first;
  const carrier = data.cell === "gru" ? "dV" : GATED ? "dA" : "δ";
  const parts = [];
  if (own) parts.push(`r_{${n}} W_{hq}^{⊤}`);
  if (!first) parts.push(`${carrier}_{${n + 1}} W_{hh}^{⊤}`);
  if (!first && data.cell === "gru") parts.push(`dH_{${n + 1}} ⊙ z_{${n + 1}}`);
  let html = formula(`dH_{${n}} = ${parts.join(" + ")}`);
  if (LSTM && !first) html += formula(`dC_{${n}} ← dC_{${n + 1}} ⊙ f_{${n + 1}}`);
  html += `<h3>${say("one_unit", {unit: j + 1})}</h3>`;
  const terms = [];
  if (own) {
    const r = data.r[t];
    html += line(`${math(`ε_{${n}}[${j + 1}]`)} = ${times(r.map((value, id) => [value, view.weights.hq[j][id]]))} = <strong>${number(back.own[j])}</strong>`);
    terms.push(back.own[j]);
  }
  if (!first) {
    const after = view.backAt({t: t + 1, error});
    const sum = times(after.dv.flatMap((values, g) => values.map((value, i) => [value, view.weights.hh[j][g][i]])));
    html += line(`${math(`(${carrier}_{${n + 1}} W_{hh}^{⊤})[${j + 1}]`)} = ${sum} = <strong>${number(back.product[j])}</strong>`);
    terms.push(back.product[j]);
    if (data.cell === "gru") {
      html += line(`${math(`dH_{${n + 1}} ⊙ z_{${n + 1}}`)} = ${term(after.ds[0][j])} × ${number(view.pass.gates[t + 1][1][j])} = <strong>${number(back.direct[0][j])}</strong>`);
      terms.push(back.direct[0][j]);
    }
  }
  if (terms.length > 1) html += line(`${math(`dH_{${n}}[${j + 1}]`)} = ${terms.map((value, k) => (k ? term(value) : number(value))).join(" + ")} = <strong>${number(back.ds[0][j])}</strong>`);
  if (LSTM && !first) {
    const after = view.backAt({t: t + 1, error});
    html += line(`${math(`dC_{${n + 1}} ⊙ f_{${n + 1}}`)} = ${term(after.dc[j])} × ${number(view.pass.gates[t + 1][1][j])} = <strong>${number(back.ds[1][j])}</strong>`);
  }
  const columns = [[math(`ε_{${n}}`), back.own], [math(`${carrier} W_{hh}^{⊤}`), back.product]];
  if (data.cell === "gru") columns.push([math("dH ⊙ z"), back.direct[0]]);
  columns.push([math(`dH_{${n}}`), back.ds[0]]);
  if (LSTM) columns.push([math("dC ⊙ f"), back.ds[1]]);
  return html + table(say("all_units"), [words.unit, ...columns.map(([head]) => head)], unitRows(...columns.map(([, values]) => values)), j);
}

function slopePanel(view, stage, {unit: j}) {
  const [back, n] = [view.backAt(stage), stage.t + 1];
  const {pass} = view;
  const result = (name, factors, value) => line(`${math(name)} = ${factors.map((factor) => (typeof factor === "number" ? term(factor) : factor)).join(" × ")} = <strong>${number(value)}</strong>`);
  const [h, before] = [pass.states[0][n][j], pass.states[0][n - 1][j]];
  const du = back.du.map((values) => values[j]);
  const dh = back.ds[0][j];
  const gates = pass.gates[stage.t].map((values) => values[j]);
  let [html, heads, columns] = ["", [], []];
  if (!GATED) {
    const slope = pass.slope[stage.t][j];
    const worked = {tanh: `(1 − ${term(h)}²)`, sigmoid: `${number(h)} × (1 − ${number(h)})`}[data.phi] ?? number(slope);
    html += formula(`δ_{${n}} = dH_{${n}} ⊙ φ′(A_{${n}})`) + formula(`φ′(A) = ${{tanh: "1 − H²", sigmoid: "H ⊙ (1 − H)", identity: "1"}[data.phi] ?? "1, 0"}`);
    html += `<h3>${say("one_unit", {unit: j + 1})}</h3>` + result(`δ_{${n}}[${j + 1}]`, [dh, worked], back.du[0][j]);
    html += line(`= ${number(dh)} × ${number(slope)}`);
    [heads, columns] = [[math(`dH_{${n}}`), math(`φ′(A_{${n}})`), math(`δ_{${n}}`)], [back.ds[0], pass.slope[stage.t], back.du[0]]];
  } else if (LSTM) {
    const [i, f, g, o] = gates;
    const tanh = pass.tanh_c[stage.t][j];
    html += ["dC = dC′ + dH ⊙ o ⊙ (1 − tanh²C)", "dA^{i} = dC ⊙ g ⊙ i ⊙ (1 − i)", `dA^{f} = dC ⊙ C_{${n - 1}} ⊙ f ⊙ (1 − f)`, "dA^{g} = dC ⊙ i ⊙ (1 − g²)", "dA^{o} = dH ⊙ tanh C ⊙ o ⊙ (1 − o)"].map(formula).join("");
    html += `<h3>${say("one_unit", {unit: j + 1})}</h3>`;
    const dc = back.dc[j];
    html += line(`${math("dC")} = ${number(back.ds[1][j])} + ${term(dh)} × ${number(o)} × (1 − ${term(tanh)}²) = <strong>${number(dc)}</strong>`);
    html += result("dA^{i}", [dc, g, i, `(1 − ${number(i)})`], du[0]) + result("dA^{f}", [dc, pass.states[1][n - 1][j], f, `(1 − ${number(f)})`], du[1]);
    html += result("dA^{g}", [dc, i, `(1 − ${term(g)}²)`], du[2]) + result("dA^{o}", [dh, tanh, o, `(1 − ${number(o)})`], du[3]);
    [heads, columns] = [[math("dH"), math("dC"), ...data.gates.map((gate) => math(`dA^{${gate}}`))], [back.ds[0], back.dc, ...back.du]];
  } else {
    const [r, z, candidate] = gates;
    html += [`dA^{z} = dH ⊙ (H_{${n - 1}} − n) ⊙ z ⊙ (1 − z)`, "dA^{n} = dH ⊙ (1 − z) ⊙ (1 − n²)", "dA^{r} = dA^{n} ⊙ V^{n} ⊙ r ⊙ (1 − r)", "dV = (dA^{r}, dA^{z}, dA^{n} ⊙ r)"].map(formula).join("");
    html += `<h3>${say("one_unit", {unit: j + 1})}</h3>`;
    html += result("dA^{z}", [dh, `(${number(before)} − ${term(candidate)})`, z, `(1 − ${number(z)})`], du[1]) + result("dA^{n}", [dh, `(1 − ${number(z)})`, `(1 − ${term(candidate)}²)`], du[2]);
    html += result("dA^{r}", [du[2], pass.v[stage.t][2][j], r, `(1 − ${number(r)})`], du[0]) + result("dV^{n}", [du[2], r], back.dv[2][j]);
    [heads, columns] = [[math("dH"), ...data.gates.map((gate) => math(`dA^{${gate}}`)), math("dV^{n}")], [back.ds[0], ...back.du, back.dv[2]]];
  }
  return html + table(say("all_units"), [words.unit, ...heads], unitRows(...columns), j);
}

/** A matrix [from][to] with what made it at its edges. */
function matrix(caption, corner, rows, columns, values, [i, j] = [-1, -1]) {
  const head = columns.map((name, k) => `<th scope="col"${k === j ? ' class="here"' : ""}>${name}</th>`).join("");
  const body = values.map((row, k) => `<tr><th scope="row">${rows[k]}</th>${row.map((value, l) => `<td${k === i && l === j ? ' class="here"' : ""}>${number(value)}</td>`).join("")}</tr>`).join("");
  return `<div class="scroll"><table class="matrix"><caption>${caption}</caption><thead><tr><th scope="col">${corner}</th>${head}</tr></thead><tbody>${body}</tbody></table></div>`;
}

function sharePanel(view, stage, {unit: j, from: i, gate: g}) {
  const {t, error} = stage;
  const [back, n] = [view.backAt(stage), t + 1];
  const before = view.pass.states[0][t];
  const upper = GATED ? `^{${data.gates[g]}}` : "";
  const [carrier, behind] = [GATED ? `dA${upper}_{${n}}` : `δ_{${n}}`, GATED ? `${data.cell === "gru" ? "dV" : "dA"}${upper}_{${n}}` : `δ_{${n}}`];
  const readout = error === null || error === t;
  let html = formula(`dW_{hh} ← dW_{hh} + H_{${n - 1}}^{⊤} ${behind}`) + formula(`dW_{xh} ← dW_{xh} + X_{${n}}^{⊤} ${carrier},  db_{h} ← db_{h} + ${carrier}`);
  if (readout) html += formula(`dW_{hq} ← dW_{hq} + H_{${n}}^{⊤} r_{${n}},  db_{q} ← db_{q} + r_{${n}}`);
  const so = view.passed(stage).map((each) => `${number(view.backAt(each).to_h[i][g][j])} <span class="quiet">(${view.called(each)})</span>`);
  html += `<h3>${say("one_weight", {from: i + 1, to: j + 1})}</h3>`;
  html += line(`${say("share_here")}: ${number(before[i])} × ${term(back.dv[g][j])} = <strong>${number(back.to_h[i][g][j])}</strong>`);
  html += line(`${say("so_far")}: ${so.join(" + ")}`);
  const all = view.passed(null).length;
  html += line(say(so.length < all ? "shares_of" : "shares_all", {done: so.length, all, total: number(view.descent.grads.hh[i][g][j])}));
  const edges = (values, name) => values.map((value, k) => `${name(k)}<br>${number(value)}`);
  const unitNames = (symbol) => (k) => math(`${symbol}[${k + 1}]`);
  html += matrix(math(`H_{${n - 1}}^{⊤} ${behind}`), "", edges(before, unitNames(`H_{${n - 1}}`)), edges(back.dv[g], unitNames(behind)), back.to_h.map((row) => row[g]), [i, j]);
  html += matrix(math(`X_{${n}}^{⊤} ${carrier}`), "", [WORD ? `${words.row} ${escaped(letter(data.x[t]))}` : number(data.x[t])], edges(back.du[g], unitNames(carrier)), [back.to_x[g]], [0, j]);
  if (readout) {
    const names = WORD ? data.tokens.map((_, k) => escaped(letter(k))) : [math("ŷ")];
    html += matrix(math(`H_{${n}}^{⊤} r_{${n}}`), "", edges(view.pass.states[0][n], unitNames(`H_{${n}}`)), data.r[t].map((value, k) => `${names[k]}<br>${number(value)}`), data.to_o[t]);
  }
  return html;
}

/** All matrices of weights or of gradients. */
function matrices(weights, mark, prefix = "") {
  const names = units().map((j) => j + 1);
  const inputs = WORD ? data.tokens.map((_, k) => escaped(letter(k))) : [math("x")];
  const outputs = WORD ? inputs : [math("ŷ")];
  const each = (key, name, rows) => data.gates.map((gate, g) =>
    matrix(math(`${prefix}${name}${GATED ? `^{${gate}}` : ""}`), "", rows, names, key === "b" ? [weights.b[g]] : weights[key].map((row) => row[g]), key === "hh" && mark && mark.gate === g ? [mark.from, mark.unit] : undefined)).join("");
  return `<div class="matrices">${each("xh", "W_{xh}", inputs)}${each("hh", "W_{hh}", names)}${each("b", "b_{h}", [""])}` +
    matrix(math(`${prefix}W_{hq}`), "", names, outputs, weights.hq) + matrix(math(`${prefix}b_{q}`), "", [""], outputs, [weights.bq]) + "</div>";
}

function gradientPanel(view, stage, picked) {
  const {unit: j, from: i, gate: g} = picked;
  const terms = view.passed(null).map((each) => `${term(view.backAt(each).to_h[i][g][j])} <span class="quiet">(${view.called(each)})</span>`);
  const off = view.h < data.T ? `<p>${say("off", {h: view.h, share: number(view.descent.off * 100, 1)})}</p>` : "";
  return formula("dW = Σ_{t} dW_{t}") + off + `<h3>${say("one_weight", {from: i + 1, to: j + 1})}</h3>` +
    line(`${terms.join(" + ")} = <strong>${number(view.descent.grads.hh[i][g][j])}</strong>`) + matrices(view.descent.grads, picked, "d");
}

function updatedPanel(view, stage, picked) {
  const {unit: j, from: i, gate: g} = picked;
  const now = view.weights.hh[i][g][j];
  const old = data.first.weights.hh[i][g][j];
  let html = formula("W ← W − η dW");
  html += `<h3>${say("one_weight", {from: i + 1, to: j + 1})}</h3>`;
  html += view.updates === 1
    ? line(`${number(old)} − ${number(data.rate)} × ${term(view.descent.grads.hh[i][g][j])} = <strong>${number(now)}</strong>`)
    : line(`${number(old)} → <strong>${number(now)}</strong>`);
  return html + matrices(view.weights, picked);
}

const PANELS = {
  start: () => [...STATE_FORMULAS, `O_{t} = H_{t} W_{hq} + b_{q}${WORD ? ",  ŷ_{t} = softmax(O_{t})" : ",  ŷ_{t} = O_{t}"}`].map(formula).join("") + `<ol><li>${say("plan_forward")}</li><li>${say("plan_backward")}</li><li>${say("plan_update")}</li></ol>`,
  state: statePanel, output: outputPanel, arrive: arrivePanel, slope: slopePanel, share: sharePanel, gradient: gradientPanel, updated: updatedPanel,
};
