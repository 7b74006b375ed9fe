// @ts-check
// How do heads, and runs, compare? One number of each, over one another on one axis; the pointer reads the values.

import { d3 } from "./vendor/d3.js";
import { CHIPS, choose, position, settingsOf, spanOfAll, together } from "./compare.js";
import { LINES } from "./curves.js";
import { namedBy } from "./data.js";
import { moveCursor } from "./history.js";
import { clipped, innerWidthOf, toggled } from "./paper.js";
import { saveButtons } from "./save.js";
import { framed, short, timeAxis, withError } from "./time.js";
import { wheelZooms } from "./zoom.js";

/** @typedef {import("./history.js").Context} Context */
/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./data.js").Page} Page */
/** @typedef {{run: Run, name: string, label: string, places: number[], values: (number|null)[], errors: (number|null)[]}} Line */
/** @typedef {(line: Line) => string[]} Style a colour and dashes */

/** Pixels of the drawing, at least and at most. */
export const LOWEST = 214;
export const HIGHEST = 600;
/** More lines than this are told apart by the pointer alone. */
const NAMED = 8;

/** What may be drawn: scores of heads, then the numbers of a run. @param {Page} page @returns {[string, string][]} */
export function choices(page) {
  const tasksOf = (/** @type {string} */ measure) => new Set(page.runs.flatMap((run) => run.scores.filter((one) => one.measure === measure).map((one) => one.task))).size;
  const scores = page.runs.flatMap((run) => run.scores.map(({ task, measure }) => /** @type {[string, string]} */ ([`score:${task}/${measure}`, `score ${measure}${tasksOf(measure) > 1 ? ` (${task})` : ""}`])));
  const curves = page.runs.flatMap((run) => run.curves.map(({ name, unit, label }) => /** @type {[string, string]} */ ([`curve:${name}`, `${unit.split(" (")[0]}: ${label}`])));
  return [...new Map([...scores, ...curves]).entries()];
}

/** The score by which the first role is told, or that of the role that came nearest to forming. @param {Page} page @param {Run} run */
export function firstChoice(page, run) {
  const lane = run.lanes.find((one) => one.measure);
  if (lane) return `score:${lane.task}/${lane.measure}`;
  const near = run.headlines.misses.slice().sort((a, b) => b.value / b.bar - a.value / a.bar)[0];
  const all = choices(page).map(([key]) => key);
  return all.find((key) => near && key.startsWith("score:") && key.endsWith(`/${near.role}`)) ?? all[0] ?? "";
}

/** Heads of a run by the score that is drawn, the highest first. @param {Run} run @param {string} what */
function ranked(run, what) {
  const found = run.scores.find(({ task, measure }) => what === `score:${task}/${measure}`);
  if (!found) return [];
  const rows = found.components.map((name, i) => ({ name, values: found.values[i], errors: found.errors?.[i] ?? [], peak: Math.max(...found.values[i].map((value) => value ?? -Infinity)) }));
  return rows.sort((a, b) => b.peak - a.peak);
}

/**
 * The lines of one run: the number itself, or the score of the heads that are asked for (`highest`: of whichever is so).
 * @param {Run} run
 * @param {string} what
 * @param {string} heads
 * @returns {Line[]}
 */
export function linesOf(run, what, heads) {
  if (what.startsWith("curve:")) return run.curves.filter(({ name }) => what === `curve:${name}`).map((curve) => ({ ...curve, run, name: "", label: "" }));
  const rows = ranked(run, what);
  const places = run.steps.map((_, place) => place);
  if (heads === "highest") {
    const best = places.map((place) => rows.reduce((/** @type {any} */ top, row) => ((row.values[place] ?? -Infinity) > (top?.values[place] ?? -Infinity) ? row : top), null));
    const line = { name: "", label: "", places, values: best.map((row, i) => row?.values[i] ?? null), errors: best.map((row, i) => row?.errors[i] ?? null) };
    return rows.length ? [{ run, ...line }] : [];
  }
  const carriers = run.lanes.filter((lane) => what === `score:${lane.task}/${lane.measure}`).flatMap((lane) => lane.tracks.map((track) => track.component));
  const names = heads === "all" ? rows.map((row) => row.name) : heads === "carriers" ? carriers : heads.split("|");
  return rows.filter((row) => names.includes(row.name)).map((row) => ({ run, name: row.name, label: row.name, places, values: row.values, errors: row.errors }));
}

/**
 * @param {HTMLElement} element
 * @param {Context} context
 * @param {number} size
 * @returns {import("./history.js").Move}
 */
export function drawOverlay(element, context, size) {
  const { page, run, store, colour } = context;
  const root = d3.select(element).html("");
  const several = page.runs.length > 1;
  const options = choices(page);
  element.hidden = !options.length;
  if (!options.length) return () => {};
  const what = options.some(([key]) => key === store.state.what) ? store.state.what : firstChoice(page, run);
  const ofHeads = what.startsWith("score:");
  const carried = run.lanes.some((lane) => what === `score:${lane.task}/${lane.measure}`);
  const heads = store.state.heads || (several ? "highest" : carried ? "carriers" : ranked(run, what).length > 2 * NAMED ? ranked(run, what).slice(0, NAMED).map((row) => row.name).join("|") : "all");
  const settings = settingsOf(page);
  const off = new Set(store.state.runs.split("|").filter(Boolean));
  const shown = settings.filter((_, i) => !off.has(String(i))).flatMap((setting) => setting.runs);
  const lines = (shown.length ? shown : [run]).flatMap((one) => linesOf(one, what, heads));
  const head = root.append("div").attr("class", "panel-head");
  head.append("h2").text(several ? "Runs over one another" : "Heads over one another");
  const bar = head.append("span").attr("class", "choices");
  choose(bar, "what", "Number", options, what, store);
  const kinds = [["highest", "the highest head"], ...(carried || several ? [["carriers", "those that carry the role"]] : []), ["all", "every head"]];
  if (!["highest", "carriers", "all"].includes(heads)) kinds.push([heads, `chosen: ${heads.replaceAll("|", ", ")}`]);
  if (ofHeads) choose(bar, "heads", "Heads", kinds, heads, store);
  const drawn = `${several ? page.title : run.name}-${what.replace(/^\w+:/, "")}`;
  saveButtons(bar, () => element.querySelector("svg.over"), () => drawn, () => asTable(lines));
  const style = (/** @type {Line} */ line) => {
    if (several) return LINES[Math.max(0, settings.findIndex((setting) => setting.runs.includes(line.run))) % LINES.length];
    const lane = run.lanes.find((one) => one.tracks.some((track) => track.component === line.name));
    return line.name ? [lane ? colour(lane.role) : "var(--faint)", ""] : LINES[0];
  };
  const move = drawLines(root, lines, { context, size, several, bar: run.thresholds[what.replace(/^.*\//, "")] ?? null, style });
  drawChips(root, context, { several, ofHeads, heads, what, settings, off, style });
  return move;
}

/** Every value that is drawn, as rows. @param {Line[]} lines @returns {[string[], any[][]]} */
function asTable(lines) {
  const rows = lines.flatMap((line) => line.places.map((place, i) => [line.run.name, line.name, line.run.steps[place], line.run.tokens?.[place] ?? null, line.values[i], line.errors[i] ?? null]));
  return [["run", "component", "step", "tokens", "value", "std_error"], rows.filter((row) => row[4] !== null)];
}

/**
 * @param {any} root
 * @param {Line[]} lines
 * @param {{context: Context, size: number, several: boolean, bar: number|null, style: Style}} about
 * @returns {import("./history.js").Move}
 */
function drawLines(root, lines, { context, size, several, bar, style }) {
  const foot = size - 24;
  const { page, run, store } = context;
  const width = innerWidthOf(root.node());
  const named = lines.length <= NAMED && width > 480;
  const svg = root.append("svg").attr("class", "over").attr("width", width).attr("height", size).attr("role", "img");
  svg.attr("aria-label", `${lines.length} lines over training; the table below holds their values`);
  const whole = together([...new Set(lines.map((line) => line.run))].length ? [...new Set(lines.map((line) => line.run))] : [run]);
  const axis = framed(svg, timeAxis(whole, store.state.unit, store.state.scale, 48, width - (named ? 142 : 14), spanOfAll(store.state, whole)), 1);
  const band = (/** @type {Line} */ line, /** @type {number} */ i) => (lines.length <= 3 ? 2 * (line.errors[i] ?? 0) : 0);
  const known = lines.flatMap((line) => line.values.flatMap((value, i) => (value === null ? [] : [value - band(line, i), value + band(line, i)])));
  const [low, high] = [Math.min(0, ...known), Math.max(bar ?? 0, ...known, 0)];
  const decades = low >= 0 && high > 20;
  const y = (decades ? d3.scaleSymlog().constant(1) : d3.scaleLinear()).domain([low, high || 1]).range([foot, 8]);
  const ticks = decades ? [0, 1, 10, 100, 1e3, 1e4, 1e5].filter((tick) => tick <= high) : y.ticks(5);
  for (const tick of ticks) {
    svg.append("line").attr("class", "level").attr("x1", axis.left).attr("x2", axis.right).attr("y1", y(tick)).attr("y2", y(tick));
    svg.append("text").attr("class", "tick").attr("x", axis.left - 6).attr("y", y(tick) + 3.5).attr("text-anchor", "end").text(short(tick));
  }
  for (const tick of axis.ticks) svg.append("text").attr("class", "tick").attr("x", tick.at).attr("y", foot + 16).attr("text-anchor", "middle").text(tick.label);
  svg.append("text").attr("class", "tick").attr("x", 0).attr("y", foot + 16).text(axis.label.split(",")[0]);
  if (bar !== null) {
    svg.append("line").attr("class", "rule bar-line").attr("x1", axis.left).attr("x2", axis.right).attr("y1", y(bar)).attr("y2", y(bar)).attr("stroke-dasharray", "6 3");
    svg.append("text").attr("class", "tick").attr("x", axis.left + 4).attr("y", y(bar) - 4).text(`bar ${short(bar)}`);
  }
  const drawing = svg.append("g").attr("clip-path", axis.clip);
  const drawn = lines.map((line) => {
    const [ink, dashes] = style(line);
    const points = line.places.map((place, i) => ({ x: position(line.run, line.run.steps[place], axis, store.state.unit), v: line.values[i], e: band(line, i) }));
    const some = points.filter((point) => point.v !== null);
    if (lines.length <= 3) drawing.append("path").attr("class", "errors").attr("fill", ink).attr("opacity", 0.18).attr("d", d3.area().x((/** @type {any} */ p) => p.x).y0((/** @type {any} */ p) => y(Math.max(low, p.v - p.e))).y1((/** @type {any} */ p) => y(p.v + p.e))(some));
    const path = drawing.append("path").attr("class", `line${several && line.run === run ? " current" : ""}`).attr("stroke", ink).attr("stroke-dasharray", dashes || null);
    return { line, points, path: path.attr("d", d3.line().x((/** @type {any} */ p) => p.x).y((/** @type {any} */ p) => y(p.v))(some)) };
  });
  const title = (/** @type {Line} */ line) => [several ? namedBy(page, line.run) : "", line.label].filter(Boolean).join(" · ") || line.run.name;
  if (named) labelEnds(svg, drawn.map(({ line, points }) => ({ text: title(line), points })), axis, y, foot);
  const dot = svg.append("circle").attr("r", 3.5).attr("fill", "var(--ink)").attr("visibility", "hidden");
  const cursor = svg.append("line").attr("class", "cursor").attr("y1", 0).attr("y2", foot);
  svg.append("rect").attr("class", "reads").attr("x", axis.left).attr("width", axis.right - axis.left).attr("height", foot);
  readValues(svg, drawn, { y, dot, title, store, page });
  wheelZooms(svg.node(), axis, store, whole);
  return (place) => moveCursor(cursor, { ...axis, x: () => position(run, run.steps[place], axis, store.state.unit) }, place);
}

/** Names at the right ends of lines, pushed apart. @param {any} svg @param {{text: string, points: {x: number, v: number|null}[]}[]} ends @param {import("./time.js").TimeAxis} axis @param {any} y @param {number} foot */
function labelEnds(svg, ends, axis, y, foot) {
  const last = ends.map(({ text, points }) => ({ text, at: points.findLast((point) => point.v !== null && point.x <= axis.right + 1) })).filter((end) => end.at);
  const sorted = last.sort((a, b) => y(a.at?.v) - y(b.at?.v));
  const wanted = sorted.map(({ at }) => y(at?.v) + 4);
  // None above the one before it by less than a line, and the last at the foot of the axis at most.
  wanted.forEach((at, i) => (wanted[i] = Math.max(at, (wanted[i - 1] ?? -13) + 13)));
  for (let i = wanted.length - 1; i >= 0; i--) wanted[i] = Math.min(wanted[i], (wanted[i + 1] ?? foot + 17) - 13);
  sorted.forEach(({ text }, i) => svg.append("text").attr("class", "row end").attr("x", axis.right + 7).attr("y", wanted[i]).text(clipped(text, 22)));
}

/**
 * The line under the pointer stands out and says its value; a click goes to its step, head and run.
 * @param {any} svg
 * @param {{line: Line, points: {x: number, v: number|null}[], path: any}[]} drawn
 * @param {{y: any, dot: any, title: (line: Line) => string, store: import("./state.js").Store, page: Page}} about
 */
function readValues(svg, drawn, { y, dot, title, store }) {
  const ground = svg.select(".reads");
  /** @type {{one: typeof drawn[0], i: number}|null} */
  let under = null;
  ground.on("pointermove", (/** @type {PointerEvent} */ event) => {
    const box = svg.node().getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let best = Infinity;
    under = null;
    for (const one of drawn) {
      const i = one.points.reduce((near, point, at) => (point.v !== null && Math.abs(point.x - px) < Math.abs(one.points[near].x - px) ? at : near), 0);
      if (one.points[i]?.v === null || !one.points[i]) continue;
      const far = Math.hypot((one.points[i].x - px) / 3, y(one.points[i].v) - py);
      if (far < best) [best, under] = [far, { one, i }];
    }
    for (const one of drawn) one.path.classed("read", one === under?.one);
    dot.attr("visibility", under ? "visible" : "hidden");
    if (!under) return;
    const { line, points } = under.one;
    dot.attr("cx", points[under.i].x).attr("cy", y(points[under.i].v));
    ground.attr("data-tip", `${title(line)}\nstep ${line.run.steps[line.places[under.i]].toLocaleString("en")}: ${withError(line.values[under.i], line.errors[under.i])}`);
  });
  ground.on("pointerleave", () => {
    for (const one of drawn) one.path.classed("read", false);
    dot.attr("visibility", "hidden");
  });
  ground.on("click", () => {
    if (!under) return;
    const { line } = under.one;
    store.set({ run: line.run.name, step: line.places[under.i], ...(line.name ? { component: line.name } : {}) });
  });
}

/**
 * Runs, or heads, to be taken in or left out.
 * @param {any} root
 * @param {Context} context
 * @param {{several: boolean, ofHeads: boolean, heads: string, what: string, settings: {label: string, runs: Run[]}[], off: Set<string>, style: Style}} about
 */
function drawChips(root, { run, store }, { several, ofHeads, heads, what, settings, off, style }) {
  const list = root.append("div").attr("class", "chips").attr("role", "group").attr("aria-label", several ? "Runs" : "Heads");
  const chip = (/** @type {string} */ text, /** @type {boolean} */ on, /** @type {string[]|null} */ line, /** @type {() => void} */ does) => {
    const button = list.append("button").attr("type", "button").attr("aria-pressed", String(on)).on("click", does);
    if (line) button.append("svg").attr("width", 22).attr("height", 8).attr("aria-hidden", "true").append("line").attr("x2", 22).attr("y1", 4).attr("y2", 4).attr("class", "line").attr("stroke", line[0]).attr("stroke-dasharray", line[1] || null);
    button.append("span").text(clipped(text, 60));
  };
  if (several)
    settings.forEach((setting, i) => {
      const count = setting.runs.length > 1 ? ` (${setting.runs.length} runs)` : "";
      chip(`${setting.label}${count}`, !off.has(String(i)), style({ run: setting.runs[0], name: "", label: "", places: [], values: [], errors: [] }), () => store.set({ runs: toggled(store.state.runs, String(i)) }));
    });
  if (!ofHeads || (several && heads === "highest")) return;
  const now = new Set(linesOf(run, what, heads).map((line) => line.name));
  for (const { name } of ranked(run, what).slice(0, CHIPS)) chip(name, now.has(name), null, () => store.set({ heads: toggled([...now].join("|"), name) || "all" }));
}
