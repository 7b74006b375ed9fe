// @ts-check
// One component: its scores over time with their error, what it carries, and when that formed.

import { d3 } from "./vendor/d3.js";
import { namesIn, rowsOf } from "./data.js";
import { innerWidthOf } from "./history.js";
import { short, timeAxis, withError } from "./time.js";

/** @typedef {import("./history.js").Context} Context */

const HEIGHT = 128;

/**
 * @param {HTMLElement} element
 * @param {Context & {page: import("./data.js").Page}} context
 */
export function drawComponent(element, context) {
  const { run, store } = context;
  const name = store.state.component;
  const root = d3.select(element).html("");
  if (!name) {
    root.append("p").attr("class", "hint").text("Choose a component, in the graph or among the lifelines, to see its scores over training.");
    return () => {};
  }
  const head = root.append("div").attr("class", "component-head");
  head.append("h2").text(name);
  head.append("button").attr("type", "button").attr("class", "quiet").text("Close").on("click", () => store.set({ component: "" }));
  const moving = [];
  const tasks = [...new Set(run.scores.filter((scores) => scores.components.includes(name)).map((scores) => scores.task))];
  for (const task of tasks) moving.push(drawScores(root, name, task, context, innerWidthOf(element)));
  if (!tasks.length) root.append("p").attr("class", "hint").text("No scores of this component were recorded.");
  drawFormation(root, name, context);
  drawEventList(root, name, context);
  drawElsewhere(root, name, context);
  return (place) => moving.forEach((move) => move(place));
}

function drawScores(root, name, task, { run, colour, store }, width) {
  const found = run.scores.filter((scores) => scores.task === task && scores.components.includes(name));
  const curves = found.map((scores) => {
    const row = scores.components.indexOf(name);
    return { measure: scores.measure, values: scores.values[row], errors: scores.errors?.[row] ?? null, prompts: scores.prompts };
  });
  const known = curves.flatMap((curve) => curve.values.filter((value) => value !== null)).map(Number);
  const [low, high] = [Math.min(0, ...known), Math.max(...known)];
  const decades = low >= 0 && high > 20;
  const prompts = curves[0].prompts;
  root.append("h3").text(`Scores on ${task}${prompts ? `, ${prompts} prompts` : ""}${curves[0].errors ? ", band two standard errors" : ""}`);
  const axis = timeAxis(run, store.state.unit, store.state.scale, 40, width - 14);
  const svg = root.append("svg").attr("width", width).attr("height", HEIGHT + 24).attr("role", "img");
  svg.attr("aria-label", `Scores of ${name} on ${task} over training`);
  const y = (decades ? d3.scaleSymlog().constant(1) : d3.scaleLinear()).domain([low, high || 1]).range([HEIGHT, 6]);
  const ticks = decades ? [0, 1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].filter((tick) => tick <= high) : y.ticks(4);
  for (const tick of ticks.filter((_, i) => ticks.length < 7 || i % 2 === 0)) {
    svg.append("line").attr("class", "level").attr("x1", axis.left).attr("x2", axis.right).attr("y1", y(tick)).attr("y2", y(tick));
    svg.append("text").attr("class", "tick").attr("x", axis.left - 6).attr("y", y(tick) + 3.5).attr("text-anchor", "end").text(short(tick));
  }
  for (const tick of axis.ticks) svg.append("text").attr("class", "tick").attr("x", tick.at).attr("y", HEIGHT + 16).attr("text-anchor", "middle").text(tick.label);
  for (const { measure, values, errors } of curves) {
    const points = values.map((value, i) => ({ x: axis.x(i), v: value, e: 2 * (errors?.[i] ?? 0) }));
    const there = (p) => p.v !== null;
    const area = d3.area().defined(there).x((p) => p.x).y0((p) => y(Math.max(p.v - p.e, decades ? 0 : -Infinity))).y1((p) => y(p.v + p.e));
    if (errors) svg.append("path").attr("d", area(points)).attr("fill", colour(measure)).attr("opacity", 0.2);
    svg.append("path").attr("class", "line").attr("stroke", colour(measure)).attr("d", d3.line().defined(there).x((p) => p.x).y((p) => y(p.v))(points));
  }
  const cursor = svg.append("line").attr("class", "cursor").attr("y1", 0).attr("y2", HEIGHT);
  const legend = root.append("ul").attr("class", "legend-list");
  const items = curves.map(({ measure, values, errors }) => {
    const item = legend.append("li").style("--role", colour(measure));
    item.append("span").attr("class", "chip");
    item.append("span").text(`${measure} `);
    const number = item.append("b");
    return (place) => number.text(withError(values[place], errors?.[place]));
  });
  return (place) => {
    cursor.attr("x1", axis.x(place)).attr("x2", axis.x(place));
    items.forEach((item) => item(place));
  };
}

/** Formation of the component itself, and of the roles it carries. */
function drawFormation(root, name, { run }) {
  const carried = new Set(run.lanes.filter((lane) => lane.tracks.some((t) => t.component === name)).map((lane) => lane.lifeline));
  const rows = rowsOf(run.formation).filter((row) => row.component === name || row.lifeline === name || (!row.component && carried.has(row.lifeline)));
  if (!rows.length) return;
  root.append("h3").text("Formation, clock by clock");
  const columns = ["role", "clock", "definition", "last step without", "first step with", "low – high"];
  const table = root.append("div").attr("class", "scroll").attr("tabindex", 0).append("table");
  table.append("thead").append("tr").selectAll("th").data(columns).join("th").attr("scope", "col").text((text) => text);
  const body = table.append("tbody");
  const step = (value) => (value === null ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: 0 }));
  for (const row of rows.slice(0, 40)) {
    const range = row.low === null || row.high === null ? "–" : `${step(row.low)} – ${step(row.high)}`;
    const first = row.censored === "right" ? "not by the end" : step(row.interval_after);
    const last = row.censored === "left" ? "none seen" : step(row.interval_before);
    const cells = [row.component === name ? row.role : `${row.role} (all)`, row.clock, row.definition, last, first, range];
    body.append("tr").selectAll("td").data(cells).join("td").text((text) => text);
  }
}

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
    button.text(`${row.event} of ${roles}${who}, steps ${row.step_before.toLocaleString("en")} to ${row.step_after.toLocaleString("en")}`);
    button.on("click", () => store.set({ step: Math.max(0, run.steps.indexOf(row.step_after)) }));
    item.append("span").attr("class", "meta").text(` confidence ${short(row.confidence)}`);
  }
}

/** Who carries the same roles in the other runs. */
function drawElsewhere(root, name, { run, page, store }) {
  const others = page.runs.filter((other) => other !== run);
  const roles = run.lanes.filter((lane) => lane.tracks.some((track) => track.component === name)).map((lane) => lane.lifeline);
  if (!others.length || !roles.length) return;
  root.append("h3").text("The same roles in the other runs");
  const list = root.append("ul").attr("class", "events-list");
  for (const other of others)
    for (const role of roles) {
      const lane = other.lanes.find((lane) => lane.lifeline === role);
      const item = list.append("li");
      item.append("span").text(`${other.name}, ${role}: `);
      if (!lane) item.append("span").attr("class", "meta").text("nobody");
      for (const track of lane?.tracks.slice(0, 8) ?? [])
        item.append("button").attr("type", "button").attr("class", "quiet").text(track.component).on("click", () => store.set({ run: other.name, component: track.component }));
    }
}
