// Numbers, formulas and sentences in the language of the page.
"use strict";

const data = JSON.parse(document.getElementById("numbers").textContent);
const words = data.words;
const GATED = data.cell !== "elman";
const WORD = data.tokens.length > 0;

function escaped(text) {
  return String(text).replace(/[&<>"]/g, (sign) => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})[sign]);
}

/** A number as the page writes it: with a true minus sign, one digit more where they would all be zeros, then in powers of ten. */
function number(value, digits = 3) {
  if (value === 0) return "0";
  const more = Math.abs(value) < 0.5 * 10 ** -digits ? digits + 1 : digits;
  return (Math.abs(value) < 0.5 * 10 ** -more ? value.toExponential(0) : value.toFixed(more)).replaceAll("-", "−").replace(".", words.mark);
}

/** A factor or a term after another: negative ones in brackets. */
function term(value) {
  return value < 0 ? `(${number(value)})` : number(value);
}

function list(values, digits) {
  return values.map((value) => number(value, digits)).join(words.separator);
}

/** A formula as HTML. H_{3} has an index, W^{T} an exponent; single letters are variables and stand in italics. */
function math(text) {
  const marked = escaped(text).replace(/_\{([^}]*)\}|\^\{([^}]*)\}|(d?)([A-Za-zŷℓδεφη])(?![A-Za-z;])|([A-Za-z]+)/g,
    (whole, low, high, d, letter, word) => {
      if (low !== undefined) return `<sub>${low}</sub>`;
      if (high !== undefined) return `<sup>${high}</sup>`;
      return letter ? `${d}<i>${letter}</i>` : word;
    });
  return `<span class="math">${marked}</span>`;
}

/** A sentence of the page with its blanks filled in; what stands between backquotes is a formula. */
function say(key, blanks = {}) {
  const text = words[key].replace(/\{(\w+)\}/g, (whole, name) => (name in blanks ? blanks[name] : whole));
  return text.split("`").map((part, place) => (place % 2 ? math(part) : escaped(part))).join("");
}

/** How a letter is shown: those that leave no mark have one. */
function letter(id) {
  const token = data.tokens[id];
  return {" ": "␣", "\n": "⏎", "\t": "⇥"}[token] ?? token;
}

/** Item t of what was given, t from 0: a letter in quotation marks, or a number. */
function item(t) {
  if (!WORD) return number(t < data.T ? data.x[t] : data.y[t - 1]);
  return words.quoted.replace("{}", letter(t < data.T ? data.x[t] : data.y[t - 1]));
}

/** The symbols of the gates' arguments, and of what comes out of them. */
const ARGUMENTS = GATED ? data.gates.map((gate) => `A^{${gate}}`) : ["A"];
const OUTCOMES = GATED ? [...data.gates] : ["H"];
const FUNCTIONS = GATED ? data.gates.map((gate) => ("ng".includes(gate) ? "tanh" : "σ")) : [data.phi];

/** A table with one heading a column and one a row. */
function table(caption, head, rows, marked = -1) {
  const top = head.map((cell) => `<th scope="col">${cell}</th>`).join("");
  const body = rows.map(([first, ...cells], place) =>
    `<tr${place === marked ? ' class="marked"' : ""}><th scope="row">${first}</th>` +
    cells.map((cell) => `<td>${cell}</td>`).join("") + "</tr>").join("");
  return `<div class="scroll"><table><caption>${caption}</caption><thead><tr>${top}</tr></thead><tbody>${body}</tbody></table></div>`;
}
