// @ts-check
// When did each role form, in this run or in each of several, and what differs between the runs?

import { d3 } from "./vendor/d3.js";
import { dated, definitionsOf, formationOf, namedBy } from "./data.js";
import { drawInterval } from "./interval.js";
import { clipped, innerWidthOf } from "./paper.js";
import { saveButtons } from "./save.js";
import { tell } from "./tip.js";
import { interpolate, timeAxis } from "./time.js";
import { spanOf, viewOf, wheelZooms } from "./zoom.js";

/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./data.js").Page} Page */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./history.js").Context} Context */
/** @typedef {{runs: Run[], name: string, clock: string, label: string}} Row runs of one setting stand in one row */

/** Pixels between runs of one setting. */
const EACH = 5;

/** Clocks that anything is dated by. @param {Page} page */
export function clocksOf(page) {
  const known = new Set(page.runs.flatMap((run) => run.lanes.flatMap((lane) => lane.formation.map((row) => row.clock))));
  return Object.keys(page.clocks).filter((clock) => known.has(clock));
}

/** Runs in the order of what differs between them, and then by name. @param {Page} page */
export function inOrder({ runs, differing }) {
  const by = (/** @type {any} */ a, /** @type {any} */ b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a ?? "").localeCompare(String(b ?? ""), "en", { numeric: true }));
  return runs.slice().sort((one, other) => {
    for (const name of differing) {
      const order = by(one.hyperparameters[name], other.hyperparameters[name]);
      if (order) return order;
    }
    return by(one.name, other.name);
  });
}

/** More runs than this stand together with those of the same setting. */
export const CHIPS = 12;

/** Runs by what they have in common but for their seed; `values` is the label without names. @param {Page} page @returns {{label: string, values: string, runs: Run[]}[]} */
export function settingsOf(page) {
  const names = page.differing.filter((name) => !/seed/.test(name));
  const found = new Map();
  for (const run of inOrder(page)) {
    const label = page.runs.length > CHIPS && names.length ? names.map((name) => `${name.replaceAll("_", " ")} ${run.hyperparameters[name] ?? "–"}`).join(", ") : namedBy(page, run);
    const values = names.map((name) => String(run.hyperparameters[name] ?? "–")).join(" · ");
    found.set(label, { label, values: values || label, runs: [...(found.get(label)?.runs ?? []), run] });
  }
  return [...found.values()];
}

/** Lifelines of any run, in the order of the first that has them. @param {Run[]} runs */
const lifelinesOf = (runs) => [...new Set(runs.flatMap((run) => run.lanes.map((lane) => lane.lifeline)))];

/**
 * @param {HTMLElement} element
 * @param {Context} context
 */
export function drawComparison(element, context) {
  const { page, run, colour, store } = context;
  const several = page.runs.length > 1;
  const root = d3.select(element).html("");
  const clocks = clocksOf(page);
  const definitions = definitionsOf(page.runs);
  const definition = definitions.includes(store.state.definition) ? store.state.definition : (definitions[0] ?? "");
  const wanted = store.state.clock || (several ? "form" : "all");
  const shown = wanted === "all" ? clocks : clocks.filter((clock) => clock === wanted);
  const head = root.append("div").attr("class", "panel-head");
  head.append("h2").text(several ? "When each role formed, run by run" : "When each role formed");
  const choices = head.append("span").attr("class", "choices");
  choose(choices, "definition", "Definition", definitions.map((name) => [name, name]), definition, store);
  if (clocks.length > 1) choose(choices, "clock", "Clock", [["all", "all clocks"], ...clocks.map((name) => [name, name])], wanted, store);
  saveButtons(choices, () => element.querySelector("svg.formed"), () => `${several ? page.title : run.name}-formation`);
  drawEffects(root, page, colour);
  root.append("p").attr("class", "meta").text(explanation(page, several));
  element.hidden = !definitions.length;
  if (!definitions.length) return;
  const runs = several ? inOrder(page) : [run];
  const names = lifelinesOf(runs);
  const width = innerWidthOf(element);
  const groups = settingsOf(page);
  const grouped = several && groups.length < runs.length && !store.state.each;
  const those = grouped ? groups.map((some) => ({ ...some, label: width < 560 ? some.values : some.label })) : runs.map((one) => ({ label: several ? namedBy(page, one) : "", runs: [one] }));
  const rows = (/** @type {string} */ name) => those.flatMap((some) => clocksFor(some.runs[0], name, shown).map((clock) => ({ runs: some.runs, name, clock, label: [some.label, several && shown.length < 2 ? "" : clock].filter(Boolean).join(" · ") })));
  drawRows(root, context, { width, runs, names, rows, definition, several });
  if (several && groups.length < runs.length) root.append("button").attr("type", "button").attr("class", "quiet each").text(grouped ? "Each run on its own line" : "Runs of one setting together").on("click", () => store.set({ each: grouped ? "each" : "" }));
}

/** What each hyperparameter does to each role: a factor with its interval. @param {any} root @param {Page} page @param {(role: string) => string} colour */
function drawEffects(root, page, colour) {
  const { effects, confidence } = page.across;
  if (!effects.length) return;
  const list = root.append("dl").attr("class", "effects");
  for (const what of new Set(effects.map((row) => row.what))) {
    list.append("dt").text(what.replaceAll("_", " "));
    const cell = list.append("dd");
    for (const row of effects.filter((one) => one.what === what)) {
      const item = cell.append("span").attr("class", row.verdict === "moves it" ? "effect" : "effect meta");
      item.append("b").attr("class", "role").style("--role", colour(row.role)).text(row.role);
      item.append("span").text(` ${[row.verdict === "never forms" ? "" : row.factor, ["moves it", "too few runs"].includes(row.verdict) ? "" : row.verdict].filter(Boolean).join(", ")}`);
    }
  }
  root.append("p").attr("class", "meta").text(`Times at which a role forms, as factors with their ${Math.round(100 * (confidence ?? 0.9))}% intervals over ${effects[0].runs} runs.${effects.some((row) => row.verdict === "too few runs") ? " Where they are pale there are too few runs to tell: add seeds." : ""}`);
}

/** The clocks by which a run dates a lifeline; the first of those asked for where it dates none. @param {Run} run @param {string} name @param {string[]} clocks */
function clocksFor(run, name, clocks) {
  const rows = formationOf(run, name);
  const known = clocks.filter((clock) => rows.some((row) => row.clock === clock));
  return known.length ? known : clocks.slice(0, 1);
}

/** @param {Page} page @param {boolean} several */
function explanation(page, several) {
  const how = "Pale: from the last checkpoint without to the first one with. Dark: the interval of the date. Tick: the date. Dots: at two and four thirds of its bar.";
  if (!several) return how;
  const known = page.runs.some((run) => Object.keys(run.hyperparameters).length);
  const same = known ? "All hyperparameters are the same." : "No hyperparameters are known.";
  const differing = page.differing.map((name) => name.replaceAll("_", " "));
  const order = differing.length > 1 ? ", in this order in each row" : "";
  return `${differing.length ? `The runs differ in ${differing.join(", ")}${order}.` : same} ${how}`;
}

/**
 * A choice that is part of the state.
 * @param {any} root
 * @param {string} key
 * @param {string} label
 * @param {string[][]} names value and text of each
 * @param {string} value
 * @param {import("./state.js").Store} store
 */
export function choose(root, key, label, names, value, store) {
  if (names.length < 2) return;
  const box = root.append("label").attr("class", "choice").text(`${label} `).append("select").attr("data-key", key);
  box.selectAll("option").data(names).join("option").attr("value", (/** @type {string[]} */ one) => one[0]).text((/** @type {string[]} */ one) => one[1]).property("selected", (/** @type {string[]} */ one) => one[0] === value);
  box.on("change", () => store.set({ [key]: box.property("value") }));
}

/**
 * @param {any} root
 * @param {Context} context
 * @param {{width: number, runs: Run[], names: string[], rows: (name: string) => Row[], definition: string, several: boolean}} about
 */
function drawRows(root, { page, run: current, colour, store }, { width, runs, names, rows, definition, several }) {
  const lines = names.map(rows);
  const all = lines.flat();
  const size = all.length > 40 ? 14 : 18;
  const longest = Math.max(...all.map((row) => row.label.length));
  const stacked = several || width < 520;
  const role = stacked ? 0 : Math.min(150, 20 + 7.4 * Math.max(...names.map((name) => name.length)));
  const gutter = Math.min(width * 0.45, role + (stacked ? 26 : 22) + (several ? 7 : 6.4) * Math.min(46, longest));
  const whole = together(runs);
  const shown = lines.flat().flatMap((row) => row.runs.flatMap((one) => dated(formationOf(one, row.name), row.clock, definition) ?? []));
  const view = spanOfAll(store.state, whole);
  const auto = zooms(store.state, whole) && !view ? windowOf(shown, runs, all.some((row) => row.runs.length < 2)) : null;
  const span = view ?? (store.state.span === "whole" ? null : auto);
  const axis = timeAxis(whole, store.state.unit, span && !view ? "linear" : store.state.scale, gutter, width - 14, span);
  const svg = root.append("svg").attr("width", width).attr("class", "formed").attr("role", "group").attr("aria-label", "Intervals of formation");
  const back = svg.append("g");
  let y = 4;
  names.forEach((name, i) => {
    const ink = colour(runs.flatMap((run) => run.lanes).find((lane) => lane.lifeline === name)?.role ?? name);
    const title = svg.append("text").attr("class", "lane role").style("--role", ink).attr("x", 0).attr("y", y + 13).text(stacked ? name : clipped(name, role / 7.4));
    tell(title, page.roles[name] ? `${name}: ${page.roles[name]}` : name);
    if (stacked) y += 20;
    for (const row of lines[i]) {
      const high = row.runs.length > 1 ? Math.max(size, EACH * row.runs.length + 5) : size;
      const middle = y + high / 2;
      back.append("line").attr("class", "level").attr("x1", axis.left).attr("x2", axis.right).attr("y1", middle).attr("y2", middle);
      const label = svg.append("text").attr("class", "row").attr("x", stacked ? 10 : gutter - 18).attr("y", middle + 4).attr("text-anchor", stacked ? "start" : "end").text(clipped(row.label, (gutter - role - (stacked ? 20 : 18)) / 6.2));
      tell(label, several ? `${row.runs.map((one) => one.name).join("\n")}\n${row.clock} clock` : `${row.clock} clock`);
      // The choice of a run in the bar does the same from the keyboard.
      if (several) label.classed("current", row.runs.includes(current)).classed("link", true).on("click", () => store.set({ run: row.runs[0].name }));
      row.runs.forEach((one, k) => {
        // What lies outside of the part that is drawn stands at its end.
        const place = (/** @type {number|null} */ step) => Math.max(axis.left, Math.min(axis.right, position(one, Number(step), axis, store.state.unit)));
        const thin = row.runs.length > 1;
        const mark = drawInterval(svg, dated(formationOf(one, name), row.clock, definition), { run: one, unit: store.state.unit, axis, place, asked: definition, y: thin ? middle + EACH * (k - (row.runs.length - 1) / 2) : middle, ink, thin, title: several ? one.name : "" });
        if (several) mark.classed("link", true).classed("aside", thin && one !== current).on("click", () => store.set({ run: one.name }));
      });
      y += high;
    }
    y += stacked ? 6 : 10;
  });
  for (const tick of axis.ticks) {
    back.append("line").attr("class", "grid").attr("x1", tick.at).attr("x2", tick.at).attr("y1", 0).attr("y2", y);
    svg.append("text").attr("class", "tick").attr("x", tick.at).attr("y", y + 14).attr("text-anchor", "middle").text(tick.label);
  }
  svg.append("text").attr("class", "tick").attr("x", 0).attr("y", y + 14).text(axis.label);
  y += 26;
  if (span) y = drawStrip(svg, { whole, span, shown, store, left: gutter, right: width - 14, top: y, colour });
  svg.attr("height", y);
  wheelZooms(svg.node(), axis, store, whole);
  if (!auto) return;
  const button = (/** @type {string} */ name, /** @type {string} */ text, /** @type {() => void} */ does) => root.append("button").attr("type", "button").attr("class", `quiet ${name}`).text(text).on("click", does);
  button("zoom", span ? "Show the whole run" : "Zoom to where it happens", () => store.set({ span: span ? "whole" : "" }));
  button("all-here", "Draw this part in every chart", () => store.set({ view: viewOf(whole, auto[0], auto[1]) }));
}

/**
 * The steps within which all dates lie, with some room: null where they fill much of the run, or there are none.
 * @param {import("./data.js").Formation[]} rows
 * @param {Run[]} runs
 * @param {boolean} [labelled] whether numbers have to fit to the right of the last interval
 * @returns {[number, number]|null}
 */
export function windowOf(rows, runs, labelled = true) {
  const some = rows.filter((row) => row.censored === "no" && row.interval_after !== null && row.interval_before !== null);
  if (!some.length || some.length < rows.filter((row) => row.censored !== "right").length) return null;
  const [low, high] = [Math.min(...some.map((row) => Math.min(row.low ?? row.interval_before, row.interval_before))), Math.max(...some.map((row) => Math.max(row.high ?? row.interval_after, row.interval_after)))];
  const [first, last] = [Math.min(...runs.map((run) => run.steps[0])), Math.max(...runs.map((run) => run.steps[run.steps.length - 1]))];
  const room = Math.max(high - low, 1);
  return high - low < 0.25 * (last - first) ? [Math.max(first, low - 0.25 * room), Math.min(last, high + (labelled ? 0.7 : 0.15) * room)] : null;
}

/**
 * The whole run beneath: where the dates lie in it, and which part is drawn above.
 * @param {any} svg
 * @param {{whole: Run, span: [number, number], shown: import("./data.js").Formation[], store: import("./state.js").Store, left: number, right: number, top: number, colour: (role: string) => string}} about
 */
function drawStrip(svg, { whole, span, shown, store, left, right, top, colour }) {
  const axis = timeAxis(whole, store.state.unit, "linear", left, right);
  const group = svg.append("g").attr("class", "strip").attr("transform", `translate(0,${top})`);
  const at = (/** @type {number} */ step) => Number(axis.ofStep(step));
  group.append("text").attr("class", "tick").attr("x", 0).attr("y", 11).text("whole run");
  group.append("rect").attr("class", "whole").attr("x", left).attr("width", right - left).attr("y", 2).attr("height", 12).attr("rx", 3);
  group.append("rect").attr("class", "window").attr("x", at(span[0])).attr("width", Math.max(3, at(span[1]) - at(span[0]))).attr("y", 0).attr("height", 16).attr("rx", 3);
  for (const row of shown)
    if (row.midpoint !== null && row.censored === "no") group.append("line").attr("x1", at(row.midpoint)).attr("x2", at(row.midpoint)).attr("y1", 3).attr("y2", 13).attr("stroke", colour(row.role)).attr("stroke-width", 1.2);
  for (const tick of axis.ticks) group.append("text").attr("class", "tick").attr("x", tick.at).attr("y", 28).attr("text-anchor", "middle").text(tick.label);
  return top + 34;
}

/** Whether a part of several runs can be drawn: in tokens, runs of other batch sizes have other steps. @param {State} state @param {Run} whole */
const zooms = (state, whole) => state.unit === "step" || !whole.tokens || whole.tokens.length === whole.steps.length;

/** The part of several runs that is drawn. @param {State} state @param {Run} whole */
export const spanOfAll = (state, whole) => (zooms(state, whole) ? spanOf(state, whole) : null);

/** A run with the checkpoints of all: the axis begins with the earliest of them and ends with the latest. @param {Run[]} runs */
export function together(runs) {
  if (runs.length === 1) return runs[0];
  const earliest = runs.reduce((best, run) => (run.steps[0] < best.steps[0] ? run : best));
  const union = (/** @type {number[][]} */ lists) => [...new Set(lists.flat())].sort((a, b) => a - b);
  const tokens = runs.every((run) => run.tokens) ? union(runs.map((run) => run.tokens ?? [])) : null;
  return { ...earliest, steps: union(runs.map((run) => run.steps)), tokens };
}

/**
 * A step of one run on the axis of all: in tokens, runs of other batch sizes lie elsewhere.
 * @param {Run} run
 * @param {number} step
 * @param {import("./time.js").TimeAxis} axis
 * @param {string} unit
 */
export function position(run, step, axis, unit) {
  return axis.ofTime(unit === "tokens" && run.tokens ? interpolate(run.steps, run.tokens, step) : step);
}
