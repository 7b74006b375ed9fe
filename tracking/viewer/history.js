// @ts-check
// The run over time: curves above, lifelines below, one time axis, and a cursor at the step that is looked at.

import { d3 } from "./vendor/d3.js";
import { level, namesIn, rowsOf } from "./data.js";
import { short, timeAxis } from "./time.js";

/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./data.js").Lane} Lane */
/** @typedef {import("./state.js").Store} Store */
/** @typedef {{run: Run, colour: (role: string) => string, store: Store}} Context */

const CURVE = 64;
const TRACK = 14;
const FEW = 6;
const SERIES = ["var(--ink)", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

/**
 * Draw everything; gives back what moves with the step.
 * @param {HTMLElement} element
 * @param {Context} context
 */
export function drawHistory(element, context) {
  const { run, store } = context;
  const width = innerWidthOf(element);
  const gutter = width < 560 ? 62 : 84;
  const axis = timeAxis(run, store.state.unit, store.state.scale, gutter, width - 20);
  const svg = d3.select(element).html("").append("svg").attr("width", width).attr("class", "history");
  svg.attr("role", "group").attr("aria-label", "Curves and lifelines over training");
  const back = svg.append("g");
  const ground = svg.append("rect").attr("class", "ground").attr("x", gutter - 6).attr("width", width - gutter + 6);
  let y = 4;
  /** @type {((place: number) => void)[]} */
  const moving = [];
  for (const family of families(run)) {
    moving.push(drawFamily(svg, family, axis, y));
    y += CURVE + 34;
  }
  drawTicks(svg.append("g").attr("transform", `translate(0,${y})`), axis, true);
  y += 30;
  for (const lane of run.lanes) {
    const drawn = drawLane(svg, back, lane, axis, y, context);
    moving.push(drawn.move);
    y = drawn.bottom + 14;
  }
  if (!run.lanes.length) {
    svg.append("text").attr("x", gutter).attr("y", y + 8).attr("class", "note").text("No lifelines were found in this run.");
    y += 30;
  }
  drawTicks(svg.append("g").attr("transform", `translate(0,${y})`), axis, false);
  const bottom = y;
  y += 40;
  if (run.lanes.length) y = drawMarks(svg, y, width);
  svg.attr("height", y);
  ground.attr("height", bottom);
  for (const tick of axis.ticks)
    back.append("line").attr("class", "grid").attr("x1", tick.at).attr("x2", tick.at).attr("y1", 0).attr("y2", bottom);
  const cursor = svg.append("line").attr("class", "cursor").attr("y1", 0).attr("y2", bottom);
  scrub(svg.node(), ground.node(), axis, store);
  return (/** @type {number} */ place) => {
    cursor.attr("x1", axis.x(place)).attr("x2", axis.x(place));
    for (const move of moving) move(place);
  };
}

/** Pixels for a drawing inside an element. @param {HTMLElement} element */
export function innerWidthOf(element) {
  const style = getComputedStyle(element);
  return Math.max(280, Math.floor(element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)));
}

/** Curves that share an axis, in the order of the data, at most six axes. @param {Run} run */
function families(run) {
  const names = [...new Set(run.curves.map((curve) => curve.family))];
  return names.slice(0, 6).map((name) => run.curves.filter((curve) => curve.family === name));
}

function drawFamily(svg, curves, axis, top) {
  const group = svg.append("g").attr("transform", `translate(0,${top})`);
  const known = curves.flatMap((curve) => curve.values.filter((value) => value !== null)).map(Number);
  let [low, high] = [Math.min(...known), Math.max(...known)];
  if (curves[0].family === "faithfulness" || curves[0].family === "n_edges") low = Math.min(0, low);
  const y = d3.scaleLinear().domain([low, high === low ? low + 1 : high]).range([CURVE + 14, 22]);
  const legend = group.append("text").attr("class", "legend").attr("y", 10).attr("x", 0);
  legend.append("tspan").attr("class", "family").text(axis.right < 520 ? curves[0].unit.split(" (")[0] : curves[0].unit);
  for (const tick of y.ticks(3).length > 4 ? y.ticks(2) : y.ticks(3)) {
    group.append("line").attr("class", "level").attr("x1", axis.left).attr("x2", axis.right).attr("y1", y(tick)).attr("y2", y(tick));
    group.append("text").attr("class", "tick").attr("x", axis.left - 8).attr("y", y(tick) + 3.5).attr("text-anchor", "end").text(short(tick));
  }
  const clip = group.append("g").attr("class", "nohit");
  const readouts = curves.map((curve, index) => {
    const colour = SERIES[index % SERIES.length];
    const points = curve.places.map((place, i) => ({ x: axis.x(place), y: curve.values[i], e: 2 * (curve.errors[i] ?? 0) }));
    const there = (p) => p.y !== null;
    const area = d3.area().defined(there).x((p) => p.x).y0((p) => y(p.y - p.e)).y1((p) => y(p.y + p.e));
    clip.append("path").attr("d", area(points)).attr("fill", colour).attr("opacity", 0.18);
    clip.append("path").attr("d", d3.line().defined(there).x((p) => p.x).y((p) => y(p.y))(points)).attr("class", "line").attr("stroke", colour);
    const dot = clip.append("circle").attr("r", 3).attr("fill", colour);
    const text = legend.append("tspan").attr("dx", 8).style("fill", `color-mix(in srgb, ${colour} 60%, var(--ink))`);
    return (place) => {
      const i = curve.places.indexOf(place);
      const value = i < 0 ? null : curve.values[i];
      text.text(`${curve.label} ${short(value)}`);
      dot.attr("visibility", value === null ? "hidden" : "visible").attr("cx", axis.x(place)).attr("cy", value === null ? 0 : y(value));
    };
  });
  return (place) => readouts.forEach((readout) => readout(place));
}

function drawTicks(group, axis, above) {
  group.attr("class", "axis");
  group.append("line").attr("class", "rule").attr("x1", axis.left).attr("x2", axis.right);
  for (const tick of axis.ticks) {
    group.append("line").attr("class", "rule").attr("x1", tick.at).attr("x2", tick.at).attr("y2", 4);
    group.append("text").attr("class", "tick").attr("x", tick.at).attr("y", 16).attr("text-anchor", "middle").text(tick.label);
  }
  group.append("text").attr("class", "tick unit").attr("x", 0).attr("y", above ? 16 : 16).text(axis.label);
}

/** What the marks mean, in as many lines as it takes. */
function drawMarks(svg, top, width) {
  const group = svg.append("g").attr("class", "marks");
  let [x, y] = [0, top];
  const entry = (/** @type {string} */ text, /** @type {(at: any) => void} */ mark) => {
    const size = 26 + text.length * 6;
    if (x + size > width) [x, y] = [0, y + 17];
    mark(group.append("g").attr("transform", `translate(${x},${y - 4})`));
    group.append("text").attr("class", "tick").attr("x", x + 20).attr("y", y).text(text);
    x += size;
  };
  entry("takes up a role", (at) => at.append("circle").attr("class", "birth").attr("cx", 8).attr("r", 3.4).attr("stroke", "var(--muted)"));
  entry("gives it up", (at) => at.append("path").attr("class", "death").attr("d", "M5,-3l6,6m0,-6l-6,6").attr("stroke", "var(--muted)"));
  entry("hands it over", (at) => (at.append("path").attr("class", "handoff").attr("d", "M1,0H12"), at.append("path").attr("class", "arrow").attr("d", "M16,0l-6,-3.2v6.4z")));
  entry("formation: last checkpoint without to first with", (at) => at.append("rect").attr("class", "band").attr("x", 2).attr("y", -6).attr("width", 13).attr("height", 12).attr("fill", "var(--muted)"));
  return y + 10;
}

/** The first tracks of a lane and its strongest, in its order. @param {Lane} lane @param {boolean} all */
export function shownTracks(lane, all) {
  if (all || lane.tracks.length <= FEW + 2) return lane.tracks;
  const peak = (track) => Math.max(...track.strength.map(Number));
  const rest = lane.tracks.slice(1).sort((a, b) => peak(b) - peak(a));
  const kept = new Set([lane.tracks[0], ...rest.slice(0, FEW - 1)]);
  return lane.tracks.filter((track) => kept.has(track));
}

/**
 * `formed in (512, 1,000] by half-rise`, in the unit of the axis, or why no such interval can be given.
 * @param {Lane} lane
 * @param {Run} run
 * @param {string} unit
 */
export function formedIn(lane, run, unit) {
  const row = lane.formation[0];
  if (!row) return "";
  if (row.censored === "left") return "there at the first checkpoint";
  if (row.censored === "right" || row.interval_after === null) return "not formed by the last checkpoint";
  const said = (/** @type {number|null} */ step) => {
    const tokens = unit === "tokens" && run.tokens ? run.tokens[run.steps.indexOf(step ?? -1)] : undefined;
    return step === null ? "…" : tokens === undefined ? step.toLocaleString("en") : short(tokens);
  };
  return `formed in (${said(row.interval_before)}, ${said(row.interval_after)}] by ${row.definition}`;
}

function drawLane(svg, back, lane, axis, top, context) {
  const { run, colour, store } = context;
  const ink = colour(lane.role);
  const open = store.state.open.split("|").includes(lane.lifeline);
  const shown = shownTracks(lane, open);
  const group = svg.append("g").style("--role", ink);
  const head = group.append("text").attr("y", top + 10).attr("x", 0).attr("class", "lane");
  head.append("tspan").attr("class", "role").text(lane.lifeline);
  const count = head.append("tspan").attr("class", "meta").attr("dx", 8);
  let y = top + 18;
  if (lane.tracks.length > FEW + 2) y = drawCrowd(group, lane, axis, y, run, open, store);
  const first = y;
  const rows = new Map();
  for (const track of shown) {
    drawTrack(group, lane, track, axis, y, ink, store);
    rows.set(track.component, y + TRACK / 2);
    y += TRACK;
  }
  drawEvents(group, run, lane, rows, axis, ink);
  drawBand(back, lane, axis, first - 2, Math.max(y + 2, first + 10), ink);
  const names = new Set(lane.tracks.map((track) => track.component));
  const move = (place) => {
    const now = lane.tracks.filter((track) => track.places.includes(place)).length;
    const heads = names.size === 1 ? "1 component" : `${now} of ${names.size} components at this step`;
    const formed = formedIn(lane, run, store.state.unit);
    count.text(axis.right < 520 ? formed : `${formed}${formed ? "  ·  " : ""}${heads}`);
  };
  return { bottom: y, move };
}

/** How many components carry the role, over time; and a switch that shows them all. */
function drawCrowd(group, lane, axis, top, run, open, store) {
  const counts = run.steps.map((_, place) => lane.tracks.filter((track) => track.places.includes(place)).length);
  const y = d3.scaleLinear().domain([0, Math.max(...counts)]).range([top + 24, top + 2]);
  const area = d3.area().x((_, i) => axis.x(i)).y0(top + 24).y1((n) => y(n));
  group.append("path").attr("class", "crowd nohit").attr("d", area(counts));
  const button = group.append("text").attr("class", "more").attr("x", 0).attr("y", top + 15).attr("tabindex", 0).attr("role", "button");
  button.text(open ? "show fewer" : `show all ${lane.tracks.length}`);
  const toggle = () => {
    const kept = store.state.open.split("|").filter((name) => name && name !== lane.lifeline);
    store.set({ open: (open ? kept : [...kept, lane.lifeline]).join("|") });
  };
  button.on("click", toggle).on("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      event.stopPropagation();
      toggle();
    }
  });
  return top + 30;
}

function drawTrack(group, lane, track, axis, top, ink, store) {
  const row = group.append("g").attr("class", "track").attr("data-component", track.component);
  row.append("rect").attr("class", "hit").attr("x", 0).attr("width", axis.right).attr("y", top).attr("height", TRACK);
  row.append("text").attr("class", "name").attr("x", axis.left - 8).attr("y", top + 10).attr("text-anchor", "end").text(track.component);
  const peak = Math.max(...track.strength.map(Number));
  track.places.forEach((place, i) => {
    const on = track.places[i + 1] === place + 1;
    const start = axis.x(place);
    const stop = on ? axis.x(place + 1) : start;
    row
      .append("rect")
      .attr("class", "stint")
      .attr("x", on ? start : start - 1.5)
      .attr("width", Math.max(3, stop - start + 0.4))
      .attr("y", top + 4)
      .attr("height", TRACK - 8)
      .attr("fill", ink)
      .attr("opacity", 0.3 + 0.7 * level(Number(track.strength[i]), peak));
  });
  row.append("title").text(`${track.component}, ${lane.lifeline}`);
  row.on("click", () => store.set({ component: store.state.component === track.component ? "" : track.component }));
}

const WORDS = { birth: "takes up", death: "gives up", "hand-off": "hands over", split: "splits", merge: "merges", switch: "switches" };

function drawEvents(group, run, lane, rows, axis, ink) {
  const layer = group.append("g").attr("class", "events");
  for (const event of rowsOf(run.events)) {
    if (event.lifeline !== lane.lifeline) continue;
    const [x0, x1] = [axis.ofStep(event.step_before), axis.ofStep(event.step_after)];
    const before = namesIn(event.components_before).filter((name) => rows.has(name));
    const after = namesIn(event.components_after).filter((name) => rows.has(name));
    const mark = layer.append("g").attr("opacity", (event.confidence ?? 1) < 0.5 ? 0.4 : 1);
    const told = `${namesIn(event.components_before).join(", ")} ${WORDS[event.event] ?? event.event} ${namesIn(event.components_after).join(", ")}`;
    mark.append("title").text(`${event.event}: ${told.trim()} between steps ${event.step_before} and ${event.step_after}, confidence ${short(event.confidence)}`);
    if (event.event === "birth" || event.event === "death") {
      for (const name of event.event === "birth" ? after : before) {
        const y = rows.get(name);
        mark.append("line").attr("class", "dots").attr("x1", x0).attr("x2", x1).attr("y1", y).attr("y2", y).attr("stroke", ink);
        if (event.event === "birth") mark.append("circle").attr("class", "birth").attr("cx", x1).attr("cy", y).attr("r", 3.4).attr("stroke", ink);
        else mark.append("path").attr("class", "death").attr("d", `M${x1 - 3},${y - 3}l6,6m0,-6l-6,6`).attr("stroke", ink);
      }
      continue;
    }
    for (const one of before)
      for (const other of after) {
        const [from, to] = [rows.get(one), rows.get(other)];
        const middle = (x0 + x1) / 2;
        mark.append("path").attr("class", "handoff").attr("d", `M${x0},${from}C${middle + 8},${from} ${middle - 8},${to} ${x1},${to}`);
        mark.append("path").attr("class", "arrow").attr("d", `M${x1 + 1},${to}l-6,-3.2v6.4z`);
      }
  }
}

function drawBand(back, lane, axis, top, bottom, ink) {
  const row = lane.formation[0];
  if (!row || row.censored === "right" || row.interval_after === null) return;
  const right = axis.ofStep(row.interval_after);
  const left = row.censored === "left" || row.interval_before === null ? axis.left - 6 : axis.ofStep(row.interval_before);
  back.append("rect").attr("class", "band").attr("x", left).attr("width", Math.max(2, right - left)).attr("y", top).attr("height", bottom - top).attr("fill", ink);
  if (row.censored === "left") {
    const y = (top + bottom) / 2;
    back.append("path").attr("class", "open").attr("d", `M${axis.left - 2},${y - 5}l-7,5l7,5z`).attr("fill", ink);
  }
}

/** Drag or click on the ground to choose a step. */
function scrub(svg, ground, axis, store) {
  const choose = (event) => store.set({ step: axis.nearest(event.clientX - svg.getBoundingClientRect().left) });
  ground.addEventListener("pointerdown", (event) => {
    choose(event);
    if (event.pointerType === "mouse") ground.setPointerCapture(event.pointerId);
  });
  ground.addEventListener("pointermove", (event) => event.buttons && event.pointerType === "mouse" && choose(event));
}

/** Mark the chosen component in every lane. @param {HTMLElement} element @param {string} component */
export function markTracks(element, component) {
  d3.select(element).selectAll(".track").classed("chosen", function () {
    return this.dataset.component === component;
  });
}

