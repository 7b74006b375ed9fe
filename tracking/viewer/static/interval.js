// @ts-check
// When did it form? Never a point: an interval between two checkpoints, and what noise leaves open of the date.

import { tell } from "./tip.js";
import { interpolate, short } from "./time.js";

/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./data.js").Formation} Formation */
/** @typedef {import("./time.js").TimeAxis} TimeAxis */
/** @typedef {(step: number|null) => number} Place */

/**
 * A step as the axis counts it: with thousands, or as tokens.
 * @param {Run} run
 * @param {string} unit
 * @param {number|null|undefined} step
 */
export function countOf(run, unit, step) {
  if (step === null || step === undefined) return "…";
  if (unit !== "tokens" || !run.tokens) return step.toLocaleString("en", { maximumFractionDigits: step < 100 ? 1 : 0 });
  return short(interpolate(run.steps, run.tokens, step));
}

/** Why there is no date. @param {Formation} row */
export const notDated = (row) => (row.state === "never" ? "not formed by the last checkpoint" : String(row.state));

/** `(512, 1,000]`, or why there is no such interval. @param {Formation} row @param {Run} run @param {string} unit */
export function boundsOf(row, run, unit) {
  if (row.censored === "left") return "there at the first checkpoint";
  if (row.censored === "right" || row.interval_after === null) return notDated(row);
  return `(${countOf(run, unit, row.interval_before)}, ${countOf(run, unit, row.interval_after)}]`;
}

/** Whether it is dated at a bar, at two and four thirds of which there are dates too. @param {Formation} row */
export const ofBar = (row) => row.censored === "no" && row.definition === "threshold" && row.bar_kind !== "none" && row.bar_kind !== "half of plateau";

/** All that a row says, for a note. @param {Formation} row @param {Run} run @param {string} unit */
export function wordsOf(row, run, unit) {
  const count = (/** @type {number|null} */ step) => countOf(run, unit, step);
  const lines = [`${row.component || row.lifeline}, ${row.role}: ${row.clock} clock, by ${row.definition}`];
  if (row.censored === "no" && row.interval_after !== null) {
    lines.push(`after the checkpoint at ${count(row.interval_before)}, by the one at ${count(row.interval_after)}`);
    const sure = run.confidence ? `${Math.round(100 * run.confidence)}% interval` : "interval";
    if (row.midpoint !== null) lines.push(`midpoint ${count(row.midpoint)}${row.low === null || row.high === null ? "" : ` (${sure}: ${count(row.low)} to ${count(row.high)})`}`);
    if (ofBar(row)) lines.push(`at two and four thirds of its bar: ${row.at_two_thirds === null ? "before the first checkpoint" : count(row.at_two_thirds)} and ${row.at_four_thirds === null ? "never" : count(row.at_four_thirds)}`);
    if (row.onset !== null && row.plateau !== null) lines.push(`onset ${count(row.onset)}, plateau ${count(row.plateau)}`);
  }
  return [...lines, row.status].join("\n");
}

/**
 * Draw one: pale between the checkpoints, dark the interval of the date, a tick at it, dots at two and four thirds of its bar.
 * @param {any} group
 * @param {Formation|undefined} row
 * @param {{run: Run, unit: string, axis: TimeAxis, place: Place, y: number, ink: string, asked?: string, thin?: boolean, title?: string}} about
 */
export function drawInterval(group, row, { run, unit, axis, place, y, ink, asked = "", thin = false, title = "" }) {
  const mark = group.append("g").attr("class", "interval");
  const [wide, narrow, tick] = thin ? [3, 1.4, 6] : [10, 3, 13];
  const say = (/** @type {number} */ x, /** @type {string} */ anchor, /** @type {string} */ text) =>
    thin ? undefined : mark.append("text").attr("class", "tick").attr("x", x).attr("y", y + 3.5).attr("text-anchor", anchor).text(text);
  if (!row) {
    say(axis.right, "end", "not dated");
    return mark;
  }
  tell(mark, `${title ? `${title}\n` : ""}${wordsOf(row, run, unit)}`);
  if (row.censored === "right" || row.interval_after === null) {
    const end = place(run.steps[run.steps.length - 1]);
    mark.append("path").attr("d", `M${end - 5},${y - 4}l6,4l-6,4z`).attr("fill", "none").attr("stroke", ink);
    say(end - 12, "end", notDated(row));
    return mark;
  }
  const open = row.censored === "left" || row.interval_before === null;
  const right = place(row.interval_after);
  const left = open ? axis.left - 4 : place(row.interval_before);
  mark.append("rect").attr("class", "between").attr("x", left).attr("width", Math.max(3, right - left)).attr("y", y - wide / 2).attr("height", wide).attr("rx", thin ? 1 : 2.5).attr("fill", ink);
  if (open) mark.append("path").attr("d", `M${left + 1},${y - 5}l-7,5l7,5z`).attr("fill", ink);
  let [first, last] = [left, right];
  if (!open && row.low !== null && row.high !== null) {
    const [low, high] = [place(row.low), place(row.high)];
    [first, last] = [Math.min(first, low), Math.max(last, high)];
    mark.append("rect").attr("x", low).attr("width", Math.max(1, high - low)).attr("y", y - narrow / 2).attr("height", narrow).attr("rx", narrow / 2).attr("fill", ink);
  }
  if (!open && row.midpoint !== null) {
    const at = place(row.midpoint);
    mark.append("line").attr("x1", at).attr("x2", at).attr("y1", y - tick / 2).attr("y2", y + tick / 2).attr("stroke", ink).attr("stroke-width", thin ? 1.2 : 2);
  }
  if (!thin && ofBar(row)) {
    for (const step of [row.at_two_thirds, row.at_four_thirds]) {
      if (step !== null) mark.append("circle").attr("class", "other-bar").attr("cx", place(step)).attr("cy", y + wide / 2 + 2.5).attr("r", 1.6).attr("fill", ink);
    }
  }
  const bounds = boundsOf(row, run, unit);
  // Where there is no room the definition is in the note alone.
  for (const text of asked && asked !== row.definition ? [`${bounds} by ${row.definition}`, bounds] : [bounds]) {
    const size = text.length * 6.1;
    if (last + 7 + size <= axis.right + 12) return say(last + 7, "start", text), mark;
    if (first - axis.left > size + 8) return say(first - 7, "end", text), mark;
  }
  say(axis.right + 10, "end", bounds)?.classed("over", true);
  return mark;
}
