// @ts-check
// The numbers of a run over training: curves of one unit on one axis, with their error and their value at the step.

import { d3 } from "./vendor/d3.js";
import { toggled } from "./paper.js";
import { pressable } from "./tip.js";
import { short } from "./time.js";

/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./data.js").Curve} Curve */
/** @typedef {import("./state.js").Store} Store */
/** @typedef {import("./time.js").TimeAxis} TimeAxis */

const CURVE = 60;
const FAMILIES = 8;
/** How the state calls the curves that are folded away, among the lanes that are unfolded. */
export const MORE = "more curves";
/** Lines that differ in grey and dashes: colours are for roles. */
export const LINES = [["var(--ink)", ""], ["var(--muted)", "7 3"], ["var(--ink)", "1.5 3"], ["var(--faint)", ""], ["var(--ink)", "9 3 2 3"], ["var(--muted)", "2 2"], ["var(--faint)", "9 4"]];

/**
 * Curves that share an axis, in the order of the data; the trainer's own numbers and what exceeds eight axes are folded.
 * @param {Run} run
 * @param {boolean} all
 */
export function families(run, all) {
  const names = [...new Set(run.curves.map((curve) => curve.family))];
  const found = names.map((name) => run.curves.filter((curve) => curve.family === name));
  const first = found.filter((family) => !family.every((curve) => curve.own)).slice(0, FAMILIES);
  const folded = found.filter((family) => !first.includes(family));
  return { shown: all ? [...first, ...folded] : first, folded };
}

/** A switch for the curves that are folded away. @param {any} svg @param {Curve[][]} folded @param {number} top @param {Store} store */
export function drawMore(svg, folded, top, store) {
  const open = store.state.open.split("|").includes(MORE);
  const names = folded.map((family) => family[0].unit.split(" (")[0]);
  const said = names.length > 3 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
  const button = svg.append("text").attr("class", "more").attr("x", 0).attr("y", top + 8).attr("tabindex", 0);
  button.text(open ? `Hide ${said}` : `Show ${said}`).attr("aria-expanded", String(open));
  pressable(button, () => store.set({ open: toggled(store.state.open, MORE) }));
  return top + 20;
}

/**
 * @param {any} svg
 * @param {Curve[]} curves
 * @param {TimeAxis} axis
 * @param {number} top
 * @param {number} width
 */
export function drawFamily(svg, curves, axis, top, width) {
  const group = svg.append("g").attr("transform", `translate(0,${top})`);
  const unit = curves[0].unit;
  const major = curves.filter((curve) => !curve.minor);
  const named = major.length ? major : curves;
  const legend = drawLegend(group, axis.right < 520 ? unit.split(" (")[0] : unit, named, curves, width);
  const [first, last] = [legend.bottom + 10, legend.bottom + 10 + CURVE];
  const y = d3.scaleLinear().domain(rangeOf(curves)).range([last, first]);
  for (const tick of y.ticks(3).length > 4 ? y.ticks(2) : y.ticks(3)) {
    group.append("line").attr("class", "level").attr("x1", axis.left).attr("x2", axis.right).attr("y1", y(tick)).attr("y2", y(tick));
    group.append("text").attr("class", "tick").attr("x", axis.left - 8).attr("y", y(tick) + 3.5).attr("text-anchor", "end").text(short(tick));
  }
  const drawing = group.append("g").attr("class", "nohit").attr("clip-path", axis.clip);
  const readouts = curves.map((curve) => {
    const [colour, dashes] = lineOf(curve, named);
    const points = curve.places.map((place, i) => ({ x: axis.x(place), y: curve.values[i], e: 2 * (curve.errors[i] ?? 0) }));
    const there = (/** @type {any} */ p) => p.y !== null;
    const across = (/** @type {any} */ p) => p.x;
    const area = d3.area().defined(there).x(across).y0((/** @type {any} */ p) => y(p.y - p.e)).y1((/** @type {any} */ p) => y(p.y + p.e));
    drawing.append("path").attr("class", "errors").attr("d", area(points)).attr("fill", colour).attr("opacity", curve.minor ? 0.1 : 0.18);
    const line = d3.line().defined(there).x(across).y((/** @type {any} */ p) => y(p.y));
    drawing.append("path").attr("d", line(points)).attr("class", `line${curve.minor ? " minor" : ""}`).attr("stroke", colour).attr("stroke-dasharray", dashes || null);
    const dot = drawing.append("circle").attr("r", curve.minor ? 2 : 3).attr("fill", colour);
    return (/** @type {number} */ place) => {
      const value = valueAt(curve, place);
      legend.say(curve, value);
      dot.attr("visibility", value === null || axis.x(place) < axis.left - 1 || axis.x(place) > axis.right + 1 ? "hidden" : "visible").attr("cx", axis.x(place)).attr("cy", value === null ? 0 : y(value));
    };
  });
  return { bottom: top + last, move: (/** @type {number} */ place) => readouts.forEach((readout) => readout(place)) };
}

/** @param {Curve} curve @param {number} place */
const valueAt = (curve, place) => {
  const i = curve.places.indexOf(place);
  return i < 0 ? null : curve.values[i];
};

/** A minor curve has the line of the curve of the same task, but thinner; others their own. @param {Curve} curve @param {Curve[]} named */
export function lineOf(curve, named) {
  const task = curve.name.slice(0, curve.name.lastIndexOf("/"));
  const at = named.findIndex((one) => one === curve || (curve.minor && one.name.startsWith(`${task}/`)));
  return LINES[Math.max(0, at) % LINES.length];
}

/** From the lowest to the highest value with their errors; a band far wider than the values is cut. @param {Curve[]} curves @returns {[number, number]} */
function rangeOf(curves) {
  const known = curves.flatMap((curve) => curve.values.filter((value) => value !== null)).map(Number);
  if (!known.length) return [0, 1];
  const ends = curves.flatMap((curve) => curve.values.flatMap((value, i) => (value === null ? [] : [-1, 1].map((side) => value + side * 2 * (curve.errors[i] ?? 0)))));
  let [low, high] = ends.reduce(([a, b], end) => [Math.min(a, end), Math.max(b, end)], [Infinity, -Infinity]);
  if (["faithfulness", "n_edges"].includes(curves[0].family)) [low, high] = [Math.min(0, low), Math.max(high, curves[0].family === "faithfulness" ? 1 : 0)];
  return low === high ? [low - (low > 0 && low < 1 ? low : 1), high + (low > 0 && low < 1 ? low : 1)] : [low, high];
}

/** What the lines are and where they stand, in as many lines as it takes. */
function drawLegend(/** @type {any} */ group, /** @type {string} */ unit, /** @type {Curve[]} */ named, /** @type {Curve[]} */ curves, /** @type {number} */ width) {
  const title = group.append("text").attr("class", "legend family").attr("x", 0).attr("y", 10).text(unit);
  let x = (title.node().getComputedTextLength?.() || unit.length * 7) + 10;
  let y = 10;
  /** @type {Map<Curve, any>} */
  const values = new Map();
  for (const curve of named) {
    const text = group.append("text").attr("class", "legend");
    const [colour, dashes] = lineOf(curve, named);
    const sample = named.length > 1 ? 26 : 0;
    text.text(named.length === 1 && curve.label.length + unit.length > 60 ? "" : `${curve.label} 0.000`);
    const wide = (text.node().getComputedTextLength?.() || 90) + 14 + sample;
    if (x + wide > width && x > 0) [x, y] = [0, y + 15];
    text.attr("x", x + sample).attr("y", y);
    if (sample) group.append("line").attr("class", "line").attr("x1", x).attr("x2", x + 20).attr("y1", y - 4).attr("y2", y - 4).attr("stroke", colour).attr("stroke-dasharray", dashes || null);
    values.set(curve, text);
    x += wide;
  }
  if (curves.length > named.length) {
    const note = "thin: corrupted";
    if (x + 110 > width) [x, y] = [0, y + 15];
    group.append("text").attr("class", "tick").attr("x", x).attr("y", y).text(note);
  }
  const say = (/** @type {Curve} */ curve, /** @type {number|null} */ value) => values.get(curve)?.text(`${curve.label} ${short(value)}`);
  return { bottom: y, say };
}
