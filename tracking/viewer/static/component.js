// @ts-check
// One component: its scores over time with their error, its three clocks, its events, and its matches in other runs.

import { d3 } from "./vendor/d3.js";
import { drawAttention } from "./attention.js";
import { definitionsOf, familyOf, isFirstRise, matchesIn, namedBy, namesIn, rowsOf } from "./data.js";
import { countOf, drawInterval, notDated, ofBar } from "./interval.js";
import { clipped, innerWidthOf } from "./paper.js";
import { tell } from "./tip.js";
import { framed, markStages, short, timeAxis, withError } from "./time.js";
import { spanOf, wheelZooms } from "./zoom.js";
import { moveCursor } from "./history.js";

/** @typedef {import("./history.js").Context} Context */
/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./data.js").Formation} Formation */

const HEIGHT = 118;

/**
 * @param {HTMLElement} element
 * @param {Context} context
 * @returns {import("./history.js").Move}
 */
export function drawComponent(element, context) {
  const { page, run, colour, store } = context;
  const name = store.state.component || leading(run);
  const root = d3.select(element).html("");
  const head = root.append("div").attr("class", "panel-head");
  const title = head.append("h2").text(name);
  if (!store.state.component) tell(title.append("span").attr("class", "meta unchosen").text(" choose another in the graph or among the lifelines"), "shown until one is chosen");
  const family = familyOf(page, run.name, name);
  if (family) title.append("span").attr("class", "meta").text(` ${family.label}`);
  if (store.state.component) head.append("button").attr("type", "button").attr("class", "quiet").text("Close").on("click", () => store.set({ component: "" }));
  drawRoles(root, name, run, colour);
  /** @type {import("./history.js").Move[]} */
  const moving = [];
  const tasks = [...new Set(run.scores.filter((scores) => scores.components.includes(name)).map((scores) => scores.task))];
  for (const task of tasks) moving.push(drawScores(root, name, task, context, innerWidthOf(element)));
  if (!tasks.length) root.append("p").attr("class", "hint").text("No scores of this component were recorded.");
  moving.push(drawAttention(root, name, run, colour(rolesOf(run, name)[0]?.lane.role ?? ""), innerWidthOf(element)));
  drawClocks(root, name, context, innerWidthOf(element));
  drawEventList(root, name, context);
  return (place) => moving.forEach((move) => move(place));
}

/** Whom the page shows before one is chosen: the first carrier of the first role, or who came nearest to one. @param {Run} run */
export const leading = (run) => run.lanes[0]?.tracks[0]?.component ?? run.headlines.misses[0]?.component ?? run.scores[0]?.components[0] ?? "";

/** What it does, and at how many checkpoints. @param {any} root @param {string} name @param {Run} run @param {(role: string) => string} colour */
function drawRoles(root, name, run, colour) {
  const carried = rolesOf(run, name);
  const line = root.append("p").attr("class", "meta roles");
  if (!carried.length) line.text("It carries no role in this run.");
  for (const { lane, track } of carried) {
    const item = line.append("span");
    item.append("b").attr("class", "role").style("--role", colour(lane.role)).text(lane.lifeline);
    item.append("span").text(` at ${track.places.length} of ${run.steps.length} checkpoints`);
  }
}

/** The lanes in which a component has a track. @param {Run} run @param {string} name */
const rolesOf = (run, name) =>
  run.lanes.flatMap((lane) => lane.tracks.filter((track) => track.component === name).map((track) => ({ lane, track })));

/**
 * @param {any} root
 * @param {string} name
 * @param {string} task
 * @param {Context} context
 * @param {number} width
 * @returns {import("./history.js").Move}
 */
function drawScores(root, name, task, { run, colour, store }, width) {
  const found = run.scores.filter((scores) => scores.task === task && scores.components.includes(name));
  const curves = found.map((scores) => {
    const row = scores.components.indexOf(name);
    return { measure: scores.measure, values: scores.values[row], errors: scores.errors?.[row] ?? null, prompts: scores.prompts };
  });
  const known = curves.flatMap((curve) => curve.values.filter((value) => value !== null)).map(Number);
  const ends = curves.flatMap(({ values, errors }) => values.flatMap((value, i) => (value === null ? [] : [value - 2 * (errors?.[i] ?? 0), value + 2 * (errors?.[i] ?? 0)])));
  const [least, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const low = Math.min(...known, 0) < 0 || high <= 20 ? least : 0;
  const decades = low >= 0 && high > 20;
  const prompts = curves[0].prompts;
  const about = [prompts ? `${prompts} prompts` : "", curves[0].errors ? "bands: two standard errors" : "no errors known"].filter(Boolean).join(", ");
  root.append("h3").text(`Scores on ${task} `).append("span").attr("class", "meta").text(about);
  const svg = root.append("svg").attr("width", width).attr("height", HEIGHT + 24).attr("role", "img");
  const axis = framed(svg, timeAxis(run, store.state.unit, store.state.scale, 40, width - 14, spanOf(store.state, run)), 1);
  wheelZooms(svg.node(), axis, store, run);
  const drawing = svg.append("g").attr("clip-path", axis.clip);
  svg.attr("aria-label", `Scores of ${name} on ${task} over training`);
  const y = (decades ? d3.scaleSymlog().constant(1) : d3.scaleLinear()).domain([low, high || 1]).range([HEIGHT, 6]);
  const ticks = decades ? [0, 1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].filter((tick) => tick <= high) : y.ticks(4);
  for (const tick of ticks.filter((/** @type {number} */ _, /** @type {number} */ i) => ticks.length < 7 || i % 2 === 0)) {
    svg.append("line").attr("class", "level").attr("x1", axis.left).attr("x2", axis.right).attr("y1", y(tick)).attr("y2", y(tick));
    svg.append("text").attr("class", "tick").attr("x", axis.left - 6).attr("y", y(tick) + 3.5).attr("text-anchor", "end").text(short(tick));
  }
  markStages(svg, axis, 6, HEIGHT);
  for (const tick of axis.ticks) svg.append("text").attr("class", "tick").attr("x", tick.at).attr("y", HEIGHT + 16).attr("text-anchor", "middle").text(tick.label);
  for (const { measure, values, errors } of curves) {
    const points = values.map((value, i) => ({ x: axis.x(i), v: value, e: 2 * (errors?.[i] ?? 0) }));
    const there = (/** @type {any} */ p) => p.v !== null;
    const across = (/** @type {any} */ p) => p.x;
    const within = (/** @type {number} */ value) => Math.max(0, Math.min(HEIGHT + 6, y(value)));
    const area = d3.area().defined(there).x(across).y0((/** @type {any} */ p) => within(Math.max(p.v - p.e, decades ? 0 : -Infinity))).y1((/** @type {any} */ p) => within(p.v + p.e));
    if (errors) drawing.append("path").attr("class", "errors").attr("d", area(points)).attr("fill", colour(measure)).attr("opacity", 0.2);
    drawing.append("path").attr("class", "line").attr("stroke", colour(measure)).attr("d", d3.line().defined(there).x(across).y((/** @type {any} */ p) => y(p.v))(points));
  }
  const cursor = svg.append("line").attr("class", "cursor").attr("y1", 0).attr("y2", HEIGHT);
  const legend = root.append("ul").attr("class", "legend-list");
  const items = curves.map(({ measure, values, errors }) => {
    const item = legend.append("li").style("--role", colour(measure));
    item.append("span").attr("class", "chip");
    item.append("span").text(`${measure} `);
    const number = item.append("b");
    return (/** @type {number} */ place) => number.text(withError(values[place], errors?.[place]));
  });
  return (place) => {
    moveCursor(cursor, axis, place);
    items.forEach((item) => item(place));
  };
}

/**
 * Form, function and behaviour, as intervals: the component's own, and those of the roles that it carries.
 * @param {any} root
 * @param {string} name
 * @param {Context} context
 * @param {number} width
 */
function drawClocks(root, name, { page, run, colour, store }, width) {
  const all = rowsOf(run.formation);
  const own = all.filter((row) => row.component === name || row.lifeline === name);
  const carried = own.length ? [] : rolesOf(run, name).map(({ lane }) => ({ title: `${lane.lifeline}, whoever carries it`, role: lane.role, rows: lane.formation }));
  const groups = own.length ? [{ title: "", role: String(own[0].role), rows: own }] : carried;
  if (!groups.length) return;
  root.append("h3").text("Three clocks ").append("span").attr("class", "meta").text(Object.entries(page.clocks).map((entry) => entry.join(": ")).join(" · "));
  const definitions = definitionsOf(page.runs);
  const wanted = definitions.includes(store.state.definition) ? store.state.definition : definitions[0];
  const axis = timeAxis(run, store.state.unit, store.state.scale, 74, width - 14, spanOf(store.state, run));
  const svg = root.append("svg").attr("width", width).attr("class", "clocks").attr("role", "img").attr("aria-label", `When ${name} formed, by each clock and definition`);
  const back = svg.append("g");
  let y = 2;
  for (const { title, role, rows } of groups) {
    if (title) svg.append("text").attr("class", "tick").attr("x", 0).attr("y", (y += 14)).text(clipped(title, width / 6));
    y += title ? 4 : 0;
    for (const clock of Object.keys(page.clocks)) {
      const some = rows.filter((row) => row.clock === clock && isFirstRise(row));
      const first = some.find((row) => row.definition === wanted) ?? some[0];
      if (!first) continue;
      const about = { run, unit: store.state.unit, axis, place: (/** @type {number|null} */ step) => Math.max(axis.left, Math.min(axis.right, axis.ofStep(step) ?? axis.left)), ink: colour(role) };
      svg.append("text").attr("class", "row").attr("x", 62).attr("y", y + 13).attr("text-anchor", "end").text(clock);
      drawInterval(svg, first, { ...about, y: y + 9 });
      y += 18;
      for (const row of some.filter((one) => one !== first)) {
        drawInterval(svg, row, { ...about, y: y + 2, thin: true });
        y += 6;
      }
      y += 2;
    }
    y += 4;
  }
  for (const tick of axis.ticks) {
    back.append("line").attr("class", "grid").attr("x1", tick.at).attr("x2", tick.at).attr("y1", 0).attr("y2", y);
    svg.append("text").attr("class", "tick").attr("x", tick.at).attr("y", y + 13).attr("text-anchor", "middle").text(tick.label);
  }
  markStages(back, axis, 0, y);
  svg.attr("height", y + 20);
  const others = definitions.filter((one) => one !== wanted);
  if (others.length) root.append("p").attr("class", "meta").text(`Thick: by ${wanted}; thin, below it: by ${others.join(", ")}.`);
  drawFormationTable(root, groups.flatMap((group) => group.rows), name, run, store.state.unit);
}

/** The same as numbers, on request. @param {any} root @param {Formation[]} rows @param {string} name @param {Run} run @param {string} unit */
function drawFormationTable(root, rows, name, run, unit) {
  const details = root.append("details");
  details.append("summary").text("As numbers");
  const columns = ["role", "clock", "definition", "last without", "first with", "low – high", "at ⅔ – 4/3 of the bar"];
  const table = details.append("div").attr("class", "scroll").attr("tabindex", 0).attr("role", "region").attr("aria-label", `Formation of ${name}`).append("table");
  table.append("thead").append("tr").selectAll("th").data(columns).join("th").attr("scope", "col").text((/** @type {string} */ text) => text);
  const body = table.append("tbody");
  const count = (/** @type {number|null} */ step) => (step === null ? "–" : countOf(run, unit, step));
  for (const row of rows.slice(0, 60)) {
    const range = row.low === null || row.high === null ? "–" : `${count(row.low)} – ${count(row.high)}`;
    const bars = ofBar(row) ? `${count(row.at_two_thirds)} – ${count(row.at_four_thirds)}` : "–";
    const first = row.censored === "right" ? notDated(row) : count(row.interval_after);
    const last = row.censored === "left" ? "none seen" : count(row.interval_before);
    const cells = [row.component === name ? row.role : `${row.role} (all)`, row.clock, row.rise > 1 ? `${row.definition}, rise ${row.rise}` : row.definition, last, first, range, bars];
    body.append("tr").selectAll("td").data(cells).join("td").text((/** @type {string} */ text) => text);
  }
}

/** @param {any} root @param {string} name @param {Context} context */
function drawEventList(root, name, { run, store }) {
  const rows = rowsOf(run.events).filter((row) => namesIn(row.components_before).includes(name) || namesIn(row.components_after).includes(name));
  if (!rows.length) return;
  root.append("h3").text("Events");
  const list = root.append("ul").attr("class", "events-list");
  for (const row of rows) {
    const [before, after] = [namesIn(row.components_before).join(", "), namesIn(row.components_after).join(", ")];
    const roles = row.role_before && row.role_after && row.role_before !== row.role_after ? `${row.role_before} → ${row.role_after}` : row.role_after ?? row.role_before;
    const who = before && after && before !== after ? `, ${before} → ${after}` : "";
    const item = list.append("li");
    const button = item.append("button").attr("type", "button").attr("class", "quiet");
    button.text(`${row.event} of ${roles}${who}`);
    button.on("click", () => store.set({ step: Math.max(0, run.steps.indexOf(row.step_after)) }));
    const count = (/** @type {number} */ step) => countOf(run, store.state.unit, step);
    item.append("span").attr("class", "meta").text(` (${count(row.step_before)}, ${count(row.step_after)}], confidence ${short(row.confidence)}`);
  }
}

/**
 * Which component it is in each other run, by what it does and how it is wired, and how sure that is.
 * @param {HTMLElement} element
 * @param {Context} context
 */
export function drawMatches(element, { page, run, colour, store }) {
  element.hidden = page.runs.length < 2;
  if (element.hidden) return;
  const name = store.state.component || leading(run);
  const root = d3.select(element).html("");
  root.append("h2").text(`${name} in the other runs `).append("span").attr("class", "meta").text("by signature and wiring, at the last checkpoints");
  const table = root.append("div").attr("class", "scroll").attr("tabindex", 0).attr("role", "region").attr("aria-label", `Matches of ${name}`).append("table").attr("class", "matches");
  const columns = ["run", "match", "does there", "similarity", "confidence"];
  table.append("thead").append("tr").selectAll("th").data(columns).join("th").attr("scope", "col").text((/** @type {string} */ text) => text);
  const body = table.append("tbody");
  const missing = [];
  if (page.runs.length > 10) {
    table.selectAll("tbody").classed("folded", true);
    root.append("button").attr("type", "button").attr("class", "quiet").text(`All ${page.runs.length - 1} runs`).on("click", (/** @type {Event} */ event) => (body.classed("folded", false), /** @type {HTMLElement} */ (event.target).remove()));
  }
  for (const other of page.runs) {
    if (other === run) continue;
    const found = matchesIn(page, run.name, name, other.name);
    if (!found?.length) {
      missing.push(`${found ? "no match in" : "not compared with"} ${clipped(namedBy(page, other), 30)}`);
      continue;
    }
    for (const { component, similarity, confidence, chance } of found) {
      const row = body.append("tr").attr("data-run", other.name);
      tell(row.append("td").text(clipped(namedBy(page, other), 22)), other.name);
      row.append("td").append("button").attr("type", "button").attr("class", "quiet").text(component).on("click", () => store.set({ run: other.name, component }));
      const does = row.append("td");
      const roles = rolesOf(other, component);
      if (!roles.length) does.text("–");
      for (const { lane } of roles) does.append("span").attr("class", "chip").style("--role", colour(lane.role)), does.append("span").text(`${lane.lifeline} `);
      tell(row.append("td").attr("class", "number").text(similarity.toFixed(3)), `similarity of what they do, 1 for the same; chance reaches ${chance.toFixed(3)}`);
      const sure = row.append("td").attr("class", "number sure").style("--share", `${Math.round(100 * confidence)}%`);
      tell(sure, "how often it is chosen again on resampled prompts, and no more than it stands out from the next best").append("span").text(`${Math.round(100 * confidence)}%`);
    }
  }
  if (missing.length) root.append("p").attr("class", "meta").text(`${missing.slice(0, 4).join("; ")}${missing.length > 4 ? `; and ${missing.length - 4} more` : ""}.`);
  if (!page.counterparts.all) root.append("p").attr("class", "meta").text(`There are too many runs to compare all of them: each was compared with ${page.runs[0].name} alone.`);
}
