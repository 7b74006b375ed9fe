// @ts-check
// Where does each step lie on the time axis, and how is a number written?

/** @typedef {import("./data.js").Run} Run */

/** Four significant digits at most, with k, M, B or T. @param {number|null|undefined} value */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  for (const [unit, letter] of /** @type {[number, string][]} */ ([[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e4, "k"]]))
    if (size >= unit) return `${digits(value / (letter === "k" ? 1e3 : unit))}${letter}`;
  return size >= 1000 ? Math.round(value).toLocaleString("en").replace("-", "−") : digits(value);
}

const digits = (/** @type {number} */ value) => String(Number(value.toPrecision(value !== 0 && Math.abs(value) < 1 ? 3 : 4))).replace("-", "−");

/** A value with its error: `0.86 ± 0.02`. */
export function withError(/** @type {number|null|undefined} */ value, /** @type {number|null|undefined} */ error) {
  return value === null || value === undefined ? "–" : error ? `${short(value)} ± ${short(Number(error.toPrecision(2)))}` : short(value);
}

/**
 * `stepAt` is the step, also one between checkpoints, at a pixel; `clip` the frame of what is drawn along the axis.
 * @typedef {{x: (place: number) => number, ofStep: (step: number|null) => number|null,
 *   ofTime: (time: number) => number, nearest: (px: number) => number, stepAt: (px: number) => number,
 *   ticks: {at: number, label: string}[], stages: {at: number, name: string}[], left: number, right: number, label: string, clip: string|null}} TimeAxis
 */

/** The part of the run that is drawn: its first and last step, or null for all of it. @typedef {[number, number]|null} Span */

/** Steps further apart than this many times are drawn on a logarithmic axis, where the page chooses. */
const WIDE = 20;

/**
 * The kind of axis that is drawn: in a short part of the run, `auto` is linear.
 * @param {Run} run
 * @param {string} unit
 * @param {string} wanted
 * @param {Span} span
 */
export function kindOf(run, unit, wanted, span) {
  const scale = (unit === "tokens" && run.scale.tokens) || run.scale.step;
  if (wanted === "log") return scale.log;
  if (wanted !== "auto") return wanted;
  if (!span) return scale.automatic;
  return span[0] > 0 && span[1] / span[0] > WIDE ? scale.log : "linear";
}

/**
 * The axis between two pixel positions, of the whole run or of a part of it.
 * @param {Run} run
 * @param {"step"|"tokens"} unit
 * @param {"auto"|"log"|"linear"|"even"} wanted
 * @param {number} left
 * @param {number} right
 * @param {Span} span
 * @returns {TimeAxis}
 */
export function timeAxis(run, unit, wanted, left, right, span = null) {
  const times = unit === "tokens" && run.tokens ? run.tokens : run.steps;
  const scale = (unit === "tokens" && run.scale.tokens) || run.scale.step;
  const kind = kindOf(run, unit, wanted, span);
  const even = (/** @type {number} */ time) =>
    kind === "even" ? interpolate(times, times.map((_, place) => place), time) : kind === "log" ? Math.log(time) : kind === "log1p" ? Math.log1p(time / scale.constant) : time;
  const ends = span ? span.map((step) => interpolate(run.steps, times, step)) : [times[0], times[times.length - 1]];
  const [first, last] = ends.map(even);
  const at = (/** @type {number} */ time) => left + ((right - left) * (even(time) - first)) / (last - first || 1);
  const places = times.map(at);
  const ofStep = (/** @type {number|null} */ step) => (step === null ? null : at(interpolate(run.steps, times, step)));
  const nearest = (/** @type {number} */ px) =>
    places.reduce((best, x, place) => (Math.abs(x - px) < Math.abs(places[best] - px) ? place : best), 0);
  const label = `${unit === "tokens" && run.tokens ? "tokens" : "step"}${{ linear: "", even: ", even" }[kind] ?? ", log"}`;
  const inside = run.steps.map((_, place) => place).filter((place) => times[place] >= ends[0] && times[place] <= ends[1]);
  const few = kind === "even" && inside.length > 2;
  const round = few ? roundCheckpoints(inside.map((place) => run.steps[place]), inside.map((place) => times[place]), at) : roundTimes(ends[0], ends[1], kind, at);
  const ticks = round.map((time) => ({ at: at(time), label: tickLabel(time, ends[1] - ends[0]) }));
  const stepAt = (/** @type {number} */ px) => bisect((step) => Number(ofStep(step)) - px, run.steps[0], run.steps[run.steps.length - 1]);
  const stages = (run.stages ?? []).slice(1).map(([name, begins]) => ({ at: Number(ofStep(begins)), name })).filter((stage) => stage.at >= left && stage.at <= right);
  return { x: (place) => places[place], ofStep, ofTime: at, nearest, stepAt, ticks, stages, left, right, label, clip: null };
}

/** Where each stage of training but the first begins. @param {any} group @param {TimeAxis} axis @param {number} top @param {number} bottom */
export function markStages(group, axis, top, bottom) {
  for (const { at, name } of axis.stages)
    group.append("line").attr("class", "stage").attr("x1", at).attr("x2", at).attr("y1", top).attr("y2", bottom).append("title").text(`${name} begins`);
}

/** A step by the clock of its stage; nothing in a run of one stage. @param {Run} run @param {number} step */
export function stageClock(run, step) {
  const stage = run.stages.filter(([, begins], i) => i === 0 || step > begins).at(-1);
  return stage ? ` · ${stage[0]} step ${(step - stage[2]).toLocaleString("en")}` : "";
}

/** A tick's label: with all its digits where the axis spans little of the number. @param {number} time @param {number} span */
const tickLabel = (time, span) => (time < 1e6 && span < time / 20 ? Number(time.toFixed(1)).toLocaleString("en") : short(time));

/** Where a rising function is zero. @param {(value: number) => number} rising @param {number} low @param {number} high */
function bisect(rising, low, high) {
  for (let i = 0; i < 50; i++) {
    const middle = (low + high) / 2;
    if (rising(middle) < 0) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

let frames = 0;

/**
 * Frame what is drawn along an axis, so that what lies outside of the part that is shown is not drawn over the labels.
 * @param {any} svg
 * @param {TimeAxis} axis
 * @param {number} margin for marks at the ends of the run
 * @returns {TimeAxis}
 */
export function framed(svg, axis, margin = 10) {
  frames += 1;
  const clip = svg.append("defs").append("clipPath").attr("id", `frame-${frames}`);
  clip.append("rect").attr("x", axis.left - margin).attr("width", axis.right - axis.left + 2 * margin).attr("y", -20).attr("height", 20000);
  return { ...axis, clip: `url(#frame-${frames})` };
}

/** The time of a step that may lie between two checkpoints. */
export function interpolate(/** @type {number[]} */ steps, /** @type {number[]} */ times, /** @type {number} */ step) {
  if (step <= steps[0]) return times[0];
  const after = steps.findIndex((other) => other >= step);
  if (after < 0) return times[times.length - 1];
  const share = (step - steps[after - 1]) / (steps[after] - steps[after - 1]);
  return times[after - 1] + share * (times[after] - times[after - 1]);
}

/** First and last, then the checkpoints with the roundest steps, at least 50 pixels apart. */
function roundCheckpoints(/** @type {number[]} */ steps, /** @type {number[]} */ times, /** @type {(time: number) => number} */ at) {
  const zeros = (/** @type {number} */ place) => /0*$/.exec(String(steps[place]))?.[0].length ?? 0;
  const places = steps.map((_, place) => place);
  const order = [0, places.length - 1, ...places.slice().sort((a, b) => zeros(b) - zeros(a) || a - b)];
  /** @type {number[]} */
  const chosen = [];
  for (const place of order) if (chosen.every((other) => Math.abs(at(times[place]) - at(other)) > 50)) chosen.push(times[place]);
  return chosen.sort((a, b) => a - b);
}

/** Round times, powers of ten first, so far apart that labels do not touch. */
function roundTimes(
  /** @type {number} */ first,
  /** @type {number} */ last,
  /** @type {string} */ kind,
  /** @type {(time: number) => number} */ at,
) {
  if (kind === "linear" || (first > 0 && last / first < 8)) {
    const size = 10 ** Math.floor(Math.log10(last - first || 1));
    const wide = (at(last) - at(first)) / 64;
    const step = [0.1, 0.2, 0.5, 1, 2, 5].map((part) => part * size).find((s) => (last - first) / s <= wide) ?? last;
    const start = Math.ceil(first / step);
    const all = Array.from({ length: Math.floor(last / step) - start + 1 }, (_, i) => (start + i) * step);
    return all.reduce((kept, time) => (kept.length && at(time) - at(kept[kept.length - 1]) < 46 ? kept : [...kept, time]), /** @type {number[]} */ ([]));
  }
  const exponents = Array.from({ length: Math.floor(Math.log10(last)) + 1 }, (_, i) => Math.floor(Math.log10(last)) - i);
  const candidates = [0, ...[1, 3, 2, 5].flatMap((part) => exponents.map((e) => part * 10 ** e))];
  /** @type {number[]} */
  const chosen = [];
  for (const time of candidates)
    if (time >= first && time <= last && chosen.every((other) => Math.abs(at(other) - at(time)) > 46)) chosen.push(time);
  return chosen.sort((a, b) => a - b);
}
