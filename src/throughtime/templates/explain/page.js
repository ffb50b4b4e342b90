// Where the reader stands, the steps from first to last, and what is shown of them.
"use strict";

const state = {h: data.T, moment: 0, stage: 0};
const picked = {unit: 0, from: 0, gate: 0};
const element = (id) => document.getElementById(id);

/** The steps of the page. error: whose error goes back; null when those of all steps go together. */
function stagesOf(h, moment) {
  const steps = [...Array(data.T).keys()];
  const stages = [{kind: "start"}, ...steps.flatMap((t) => [{kind: "state", t}, {kind: "output", t}])];
  if (moment > 0) return [...stages, {kind: "updated"}];
  for (const {t, error} of visits(h)) {
    for (const kind of ["arrive", "slope", "share"]) stages.push({kind, t, error});
  }
  return [...stages, {kind: "gradient"}];
}

/** The backward steps under BPTT(h), in the order in which the page takes them. */
function visits(h) {
  const backwards = [...Array(data.T).keys()].reverse();
  if (h === data.T) return backwards.map((t) => ({t, error: null}));
  return backwards.flatMap((error) => backwards.filter((t) => t <= error && error - t < h).map((t) => ({t, error})));
}

/** What the drawing and the panel ask about the present step. */
function viewOf() {
  const {h, moment} = state;
  const stages = stagesOf(h, moment);
  const place = Math.min(state.stage, stages.length - 1);
  const stage = stages[place];
  const now = moment ? data.descents[h - 1].later[moment - 1] : data.first;
  const forward = {start: 0, state: 1, output: 1}[stage.kind];
  const going = ["arrive", "slope", "share"].includes(stage.kind);
  const order = visits(h);
  const done = going ? order.findIndex((each) => each.t === stage.t && each.error === stage.error) : stage.kind === "gradient" ? order.length : -1;
  const backAt = ({t, error}) => (error === null ? data.together[t] : data.alone[error][error - t]);
  const error = going ? stage.error : h === data.T ? null : data.T - 1;
  const reached = (t) => (error === null ? true : t <= error && error - t < h);
  const gone = (t) => going && order.slice(0, done).some((each) => each.t === t && each.error === error);
  const active = {
    state: (what, t) => ({h: t === stage.t, x: t === stage.t, xh: t === stage.t, hh: t === stage.t})[what],
    output: (what, t) => ({o: t === stage.t, ho: t === stage.t})[what],
    arrive: (what, t) => what === "h" && t === stage.t,
    slope: (what, t) => what === "h" && t === stage.t,
    share: (what, t) => ["h", "x"].includes(what) && t === stage.t,
  }[stage.kind];
  return {
    h, stage, stages, place, backAt, error,
    updates: data.moments[moment], weights: now.weights, pass: now.pass, descent: data.descents[h - 1],
    described: described(stage),
    active: (what, t) => Boolean(active?.(what, t)),
    stateKnown: (t) => forward === undefined || (forward === 1 && t <= stage.t),
    outputKnown: (t) => forward === undefined || (forward === 1 && (t < stage.t || (t === stage.t && stage.kind === "output"))),
    errorShown: (t) => moment === 0 && (stage.kind === "gradient" || (going && (error === null ? t >= stage.t : t === error))),
    back: (t) => {
      if (stage.kind === "gradient" && error === null) return {name: "δ", values: backValues(data.together[t])};
      if (going && t === stage.t) return stage.kind === "arrive" || GATED ? {name: "dH", values: backAt(stage).ds[0]} : {name: "δ", values: backValues(backAt(stage))};
      return gone(t) ? {name: GATED ? "dH" : "δ", values: backValues(backAt({t, error}))} : null;
    },
    downArrow: (t) => (moment || (error !== null && t !== error) ? null : going && t === stage.t && stage.kind === "arrive" ? "now" : gone(t) || (going && t === stage.t) || stage.kind === "gradient" ? "done" : "ghost"),
    pastArrow: (t) => (moment || !reached(t) || !reached(t - 1) ? null : going && stage.t === t - 1 && stage.kind === "arrive" ? "now" : gone(t - 1) || (going && t - 1 === stage.t) || (stage.kind === "gradient" && error === null) ? "done" : "ghost"),
    cutBefore: (t) => !moment && error !== null && error - t === h - 1,
    sharing: (t) => (stage.kind === "share" && t === stage.t ? {output: stage.error === null || stage.error === t} : null),
    passed: (until) => (until ? order.slice(0, done + 1) : order),
    called: (each) => (each.error === null ? `t = ${each.t + 1}` : `${words.error_of} ${each.error + 1}, t = ${each.t + 1}`),
  };
}

function backValues(back) {
  return GATED ? back.ds[0] : back.du[0];
}

/** The sentence of a step: what the live region reads out. */
function sentence(view) {
  const {stage, pass, h} = view;
  const n = stage.t + 1;
  const wanted = () => item(stage.t + 1);
  switch (stage.kind) {
    case "start": return say("said_start", {T: data.T});
    case "state": return say(stage.t ? "said_state" : "said_first", {t: n, before: stage.t, input: item(stage.t), values: list(pass.states[0][n])});
    case "output": return WORD
      ? say("said_output", {t: n, wanted: wanted(), p: number(pass.p[stage.t][data.y[stage.t]], 2), loss: number(pass.losses[stage.t], 2)})
      : say("said_value", {t: n, wanted: wanted(), y: number(pass.o[stage.t][0]), loss: number(pass.losses[stage.t])});
    case "arrive": {
      const key = stage.error === null ? (n === data.T ? "said_arrive_last" : "said_arrive") : stage.error === stage.t ? "said_arrive_own" : "said_arrive_alone";
      return say(key, {t: n, after: n + 1, error: stage.error + 1, lag: stage.error - stage.t, values: list(view.backAt(stage).ds[0])});
    }
    case "slope": return say(GATED ? "said_slope_gated" : data.phi === "tanh" ? "said_slope" : "said_slope_other", {t: n, values: list(view.backAt(stage).du[0])});
    case "share": {
      const cut = stage.error !== null && stage.error - stage.t === h - 1 && stage.t > 0 ? ` ${say("said_cut", {h, error: stage.error + 1})}` : "";
      return say("said_share", {t: n, before: stage.t, after: n}) + cut;
    }
    case "gradient": return say("said_gradient", {steps: visits(h).length, h, loss: number(view.descent.losses[0], 2)});
    default: return say("said_updated", {updates: view.updates, from: number(view.descent.losses[0], 2), to: number(view.descent.losses[view.updates], 2)});
  }
}

function described(stage) {
  return words.drawn.replace("{step}", heading(stage));
}

function heading(stage) {
  const text = words[`heading_${stage.kind}`].replace("{t}", stage.t + 1).replace("{updates}", data.moments[state.moment]);
  return stage.error === null || stage.error === undefined ? text : `${text} (${words.error_of} ${stage.error + 1})`;
}

function show(follow = true) {
  const view = viewOf();
  state.stage = view.place;
  element("network").innerHTML = drawNetwork(view);
  element("step-heading").textContent = heading(view.stage);
  element("said").innerHTML = sentence(view);
  element("panel").innerHTML = PANELS[view.stage.kind](view, view.stage, picked);
  element("count").textContent = words.count.replace("{step}", view.place + 1).replace("{all}", view.stages.length);
  const ended = state.moment === data.moments.length - 1;
  allow("previous", view.place > 0 || state.moment > 0);
  allow("next", !ended || view.place < view.stages.length - 1);
  allow("update", !ended);
  allow("to-backward", state.moment === 0);
  const gap = !ended ? data.moments[state.moment + 1] - data.moments[state.moment] : 0;
  element("update").textContent = gap > 1 ? words.update_more.replace("{n}", gap) : words.update;
  const reached = words[state.h === data.T ? "reach_all" : "reach_h"].replace("{h}", state.h);
  element("h").value = state.h;
  element("h").setAttribute("aria-valuetext", reached);
  element("h-said").textContent = reached;
  element("key").innerHTML = say(state.moment ? "key_after" : GATED ? "key_gated" : "key", {updates: view.updates});
  showMap(view);
  showLoss(view);
  showTables(view);
  if (follow) followTo(view.stage.t);
}

/** A button that does nothing now says so, and keeps the focus. */
function allow(id, allowed) {
  element(id).setAttribute("aria-disabled", String(!allowed));
}

/** Who hears of whose error: the norm of the gradient of each error by each state. */
function showMap(view) {
  const steps = [...Array(data.T).keys()];
  const most = Math.max(...data.norms.flat());
  const head = steps.map((t) => `<th scope="col">${math(`H_{${t + 1}}`)}</th>`).join("");
  const rows = steps.map((error) => `<tr><th scope="row">${math(`ℓ_{${error + 1}}`)}</th>${steps.map((t) => {
    if (t > error) return "<td></td>";
    if (error - t >= state.h) return `<td class="off"><span aria-label="${escaped(words.cut_off)}">✕</span></td>`;
    const value = data.norms[error][error - t];
    const here = view.stage.t === t && view.stage.kind !== "state" && view.stage.kind !== "output" && (view.stage.error === error || view.stage.error === null);
    const shade = most ? Math.round(12 + 68 * (value / most)) : 0;
    return `<td class="${here ? "here" : ""}"><button type="button" data-error="${error}" data-t="${t}" style="--shade:${shade}%" aria-label="${escaped(words.map_cell.replace("{error}", error + 1).replace("{t}", t + 1).replace("{value}", number(value)))}">${number(value, 2)}</button></td>`;
  }).join("")}</tr>`).join("");
  const focused = document.activeElement.closest("#map button")?.dataset;
  element("map").innerHTML = `<table class="map"><caption>${say("map_caption")}</caption><thead><tr><th scope="col"><span class="unseen">${escaped(words.error_of)}</span></th>${head}</tr></thead><tbody>${rows}</tbody></table>`;
  if (focused) element("map").querySelector(`[data-error="${focused.error}"][data-t="${focused.t}"]`)?.focus();
  const steps_back = visits(state.h).length;
  element("map-said").innerHTML = say(state.h === data.T ? "map_all" : state.h === 1 ? "map_one" : "map_h", {h: state.h, steps: steps_back, share: number(view.descent.off * 100, 1)});
}

function showLoss(view) {
  const {losses} = view.descent;
  const best = view.pass.best;
  const blanks = {updates: view.updates, loss: number(losses[view.updates], 2), first: number(losses[0], 2), h: state.h};
  const key = view.updates === 0 ? "loss_first" : view.updates === 1 ? "loss_one" : "loss_more";
  const writes = best ? ` ${say("writes", {input: data.items.slice(0, -1).join(""), best: best.map(letter).join("")})}` : "";
  element("loss-said").innerHTML = say(key, blanks) + writes;
  element("loss").innerHTML = drawLoss(state.h, view.updates, element("loss-said").textContent) + `<p class="quiet">${say(state.h < data.T ? "loss_axes_both" : "loss_axes", {h: state.h, rate: number(data.rate, 2)})}</p>`;
}

function showTables(view) {
  const {pass} = view;
  const steps = [...Array(data.T).keys()];
  const wanted = (t) => (WORD ? escaped(letter(data.y[t])) : number(data.y[t]));
  const states = steps.map((t) => [t + 1, escaped(item(t)), ...(LSTM ? [list(pass.states[1][t + 1])] : []), list(pass.states[0][t + 1]), list((pass.p ?? pass.o)[t]), wanted(t), number(pass.losses[t])]);
  element("table-forward").innerHTML = table(say("tables_forward"), ["t", words.reads, ...(LSTM ? [math("C_{t}")] : []), math("H_{t}"), math("ŷ_{t}"), words.wanted, math("ℓ_{t}")], states);
  const back = visits(state.h).map((each) => {
    const found = view.backAt(each);
    return [each.error === null ? words.all_errors : `${words.error_of} ${each.error + 1}`, each.t + 1, list(found.ds[0]), ...found.du.map((values) => list(values))];
  });
  element("table-backward").innerHTML = table(say("tables_backward"), [words.error_of, "t", math("dH_{t}"), ...ARGUMENTS.map((name) => math(GATED ? `d${name}_{t}` : "δ_{t}"))], back);
  element("table-weights").innerHTML = matrices(view.weights) + `<h3>${say("gradient_of", {h: state.h})}</h3>` + matrices(view.descent.grads, undefined, "d");
  element("table-losses").innerHTML = table(say("tables_losses"), [words.updates, ...steps.map((t) => `h = ${t + 1}`)], data.moments.map((moment) => [moment, ...data.descents.map((descent) => number(descent.losses[moment]))]));
}

function showNotation() {
  const heads = ["", words.here, "U, V, W", "Haykin", "throughtime"];
  const rows = [
    ["input", "X_{t}", "x_{t}", "u(n−1)", "chunk.x[t]"], ["hidden", "H_{t}", "s_{t}", "y(n)", "states[0][t]"],
    ["argument", "A_{t}", "U x_{t} + W s_{t−1}", "v(n)", "u + v"], ["w_input", "W_{xh}", "U^{⊤}", "w_{ji}", "weight_ih_l0.T"],
    ["w_hidden", "W_{hh}", "W^{⊤}", "w_{ji}", "weight_hh_l0.T"], ["w_output", "W_{hq}", "V^{⊤}", "", "readout.weight.T"],
    ["scores", "O_{t}", "V s_{t}", "y(n)", "prediction[t]"], ["wish", "y_{t}", "y_{t}", "d(n)", "chunk.y[t]"],
    ["delta", "δ_{t} = ∂L/∂A_{t}", "δ_{t}", "−δ(n)", "du[t], dv[t]"], ["rate", "η", "η", "η", "lr"],
  ].map(([key, ...cells]) => [words[`notation_${key}`], ...cells.slice(0, 3).map(math), `<code>${cells[3]}</code>`]);
  element("notation").innerHTML = table("", heads, rows);
}

/** Bring a step into the middle of the drawing, where that is wider than the screen. */
function followTo(t) {
  const box = element("network");
  const wide = box.firstElementChild.getBoundingClientRect().width / place.total;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const left = t === undefined ? (state.stage ? box.scrollWidth : 0) : (place.left(t) + place.width / 2) * wide - box.clientWidth / 2;
  box.scrollTo({left, behavior: still ? "auto" : "smooth"});
}

function next() {
  if (state.stage < stagesOf(state.h, state.moment).length - 1) state.stage += 1;
  else if (!update()) return;
  show();
}

function update() {
  if (state.moment === data.moments.length - 1) return false;
  state.moment += 1;
  state.stage = Infinity;
  return true;
}

function previous() {
  const last = stagesOf(state.h, state.moment).length - 1;
  if (state.stage === last && state.moment > 0) {
    state.moment -= 1;
    state.stage = Infinity;
  } else state.stage = Math.max(0, state.stage - 1);
  show();
}

/** Another h: the reader stays at the same step where it still exists, else at the end of the forward pass. */
function reach(h) {
  const {stage} = viewOf();
  state.h = h;
  const stages = stagesOf(h, state.moment);
  const same = stages.findIndex((each) => each.kind === stage.kind && each.t === stage.t && (each.error === stage.error || each.error === null || (each.error === each.t && stage.error === null)));
  state.stage = same < 0 ? stages.findIndex((each) => each.kind === "arrive") : same;
  show(false);
}

function jump(test) {
  state.stage = Math.max(0, stagesOf(state.h, state.moment).findIndex(test));
  show();
}

function onMap(event) {
  const button = event.target.closest("button");
  if (!button) return;
  const [error, t] = [Number(button.dataset.error), Number(button.dataset.t)];
  state.moment = 0;
  jump((each) => each.kind === "arrive" && each.t === t && (each.error === error || each.error === null));
}

function onKey(event) {
  if (event.target.matches("select, input") || event.altKey || event.ctrlKey || event.metaKey) return;
  const box = event.target.closest(".scroll:not(#network)");
  if (box && box.scrollWidth > box.clientWidth && event.key.startsWith("Arrow")) return;
  const act = {ArrowRight: next, ArrowLeft: previous, Home: () => jump(() => true), End: () => { state.stage = Infinity; show(); }}[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function choose(id, names, key) {
  element(id).innerHTML = names.map((name, place) => `<option value="${place}">${name}</option>`).join("");
  element(id).addEventListener("change", (event) => {
    picked[key] = Number(event.target.value);
    show(false);
  });
}

function begin() {
  const origin = words[data.trained ? "origin_trained" : "origin_random"];
  element("lead").innerHTML = WORD
    ? say("lead_word", {input: data.items.slice(0, -1).join(""), wanted: data.items.slice(1).join(""), units: data.units, cell: words[`cell_${data.cell}`], origin})
    : say("lead_values", {values: data.items.map((value) => String(value).replace(".", words.mark)).join(words.separator), units: data.units, cell: words[`cell_${data.cell}`], scale: String(data.scale).replace(".", words.mark), origin});
  choose("unit", units().map((j) => j + 1), "unit");
  choose("from", units().map((j) => j + 1), "from");
  choose("gate", data.gates, "gate");
  element("gate-label").hidden = !GATED;
  element("previous").addEventListener("click", previous);
  element("next").addEventListener("click", next);
  element("to-forward").addEventListener("click", () => jump((each) => each.kind === "state"));
  element("to-backward").addEventListener("click", () => state.moment === 0 && jump((each) => each.kind === "arrive"));
  element("update").addEventListener("click", () => { update(); show(); });
  element("h").addEventListener("input", (event) => reach(Number(event.target.value)));
  element("map").addEventListener("click", onMap);
  document.addEventListener("keydown", onKey);
  element("key").parentElement.open = innerWidth > 576;
  showNotation();
  show(false);
}

begin();
