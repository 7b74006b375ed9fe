// @ts-check
// Who carries each role, from when to when? One lane a role, one track a component, marks where something happens.

import { d3 } from "./vendor/d3.js";
import { dated, familyOf, level, namesIn, rowsOf } from "./data.js";
import { boundsOf, wordsOf } from "./interval.js";
import { toggled } from "./paper.js";
import { pressable, tell } from "./tip.js";
import { short } from "./time.js";

/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./data.js").Lane} Lane */
/** @typedef {import("./data.js").Track} Track */
/** @typedef {import("./data.js").Formation} Formation */
/** @typedef {import("./state.js").Store} Store */
/** @typedef {import("./history.js").Context} Context */
/** @typedef {import("./time.js").TimeAxis} TimeAxis */

const TRACK = 14;
const FEW = 6;

/** The first tracks of a lane and its strongest, in its order. @param {Lane} lane @param {boolean} all */
export function shownTracks(lane, all) {
  if (all || lane.tracks.length <= FEW + 2) return lane.tracks;
  const rest = lane.tracks.slice(1).sort((a, b) => peakOf(b) - peakOf(a));
  const kept = new Set([lane.tracks[0], ...rest.slice(0, FEW - 1)]);
  return lane.tracks.filter((track) => kept.has(track));
}

/** @param {Track} track */
const peakOf = (track) => Math.max(...track.strength.map(Number));

/**
 * `formed in (512, 1,000] by half-rise`, in the unit of the axis, or why no such interval can be given.
 * @param {Formation|undefined} row
 * @param {Run} run
 * @param {string} unit
 */
export function formedIn(row, run, unit) {
  if (!row) return "";
  const bounds = boundsOf(row, run, unit);
  return bounds.startsWith("(") ? `formed in ${bounds} by ${row.definition}` : bounds;
}

/**
 * @param {any} svg
 * @param {any} back
 * @param {Lane} lane
 * @param {TimeAxis} axis
 * @param {number} top
 * @param {Context} context
 */
export function drawLane(svg, back, lane, axis, top, context) {
  const { page, run, colour, store } = context;
  const ink = colour(lane.role);
  const open = store.state.open.split("|").includes(lane.lifeline);
  const shown = shownTracks(lane, open);
  const formed = dated(lane.formation, "form", store.state.definition);
  const group = svg.append("g").style("--role", ink);
  const head = group.append("text").attr("y", top + 10).attr("x", 0).attr("class", "lane");
  head.append("tspan").attr("class", "role").text(lane.lifeline);
  const count = head.append("tspan").attr("class", "meta").attr("dx", 8);
  const meaning = page.roles[lane.role] ? `${lane.role}: ${page.roles[lane.role]}\n` : "";
  tell(head, `${meaning}${formed ? wordsOf(formed, run, store.state.unit) : ""}` || null);
  let y = top + 18;
  if (lane.tracks.length > FEW + 2) y = drawCrowd(group, lane, axis, y, run, open, store);
  const first = y;
  const rows = new Map();
  for (const track of shown) {
    drawTrack(group, lane, track, axis, y, ink, context);
    rows.set(track.component, y + TRACK / 2);
    y += TRACK;
  }
  drawEvents(group, run, lane, rows, axis, ink, page.events);
  if (formed) drawBand(back, run, formed, axis, first - 2, Math.max(y + 2, first + 10), ink);
  const names = new Set(lane.tracks.map((track) => track.component));
  const said = formedIn(formed, run, store.state.unit);
  const move = (/** @type {number} */ place) => {
    const now = lane.tracks.filter((track) => track.places.includes(place)).length;
    const heads = names.size === 1 ? "1 component" : `${now} of ${names.size} components at this step`;
    count.text(axis.right < 520 ? said : `${said}${said ? "  ·  " : ""}${heads}`);
  };
  return { bottom: y, move };
}

/** How many components carry the role, over time; and a switch that shows them all. */
function drawCrowd(/** @type {any} */ group, /** @type {Lane} */ lane, /** @type {TimeAxis} */ axis, /** @type {number} */ top, /** @type {Run} */ run, /** @type {boolean} */ open, /** @type {Store} */ store) {
  const counts = run.steps.map(() => 0);
  for (const track of lane.tracks) for (const place of track.places) counts[place] += 1;
  const most = Math.max(...counts);
  const y = d3.scaleLinear().domain([0, most]).range([top + 24, top + 2]);
  const area = d3.area().x((/** @type {number} */ _, /** @type {number} */ i) => axis.x(i)).y0(top + 24).y1((/** @type {number} */ n) => y(n));
  tell(group.append("path").attr("class", "crowd").attr("clip-path", axis.clip).attr("d", area(counts)), `how many components carry ${lane.lifeline}: at most ${most}`);
  const button = group.append("text").attr("class", "more").attr("x", 0).attr("y", top + 15).attr("tabindex", 0);
  button.text(open ? "show fewer" : `show all ${lane.tracks.length}`);
  button.attr("aria-label", `${open ? "Show fewer" : `Show all ${lane.tracks.length}`} components of ${lane.lifeline}`);
  pressable(button, () => store.set({ open: toggled(store.state.open, lane.lifeline) }));
  return top + 30;
}

/**
 * @param {any} group
 * @param {Lane} lane
 * @param {Track} track
 * @param {TimeAxis} axis
 * @param {number} top
 * @param {string} ink
 * @param {Context} context
 */
function drawTrack(group, lane, track, axis, top, ink, { page, run, store }) {
  const row = group.append("g").attr("class", "track").attr("data-component", track.component);
  row.append("rect").attr("class", "hit").attr("x", 0).attr("width", axis.right).attr("y", top).attr("height", TRACK);
  row.append("text").attr("class", "name").attr("x", axis.left - 8).attr("y", top + 10).attr("text-anchor", "end").text(track.component);
  const family = familyOf(page, run.name, track.component);
  if (family) row.append("text").attr("class", "letter").attr("x", 2).attr("y", top + 10).text(family.label.split(" ").pop());
  const peak = peakOf(track);
  const bars = row.append("g").attr("clip-path", axis.clip);
  track.places.forEach((place, i) => {
    const on = track.places[i + 1] === place + 1;
    const start = axis.x(place);
    const stop = on ? axis.x(place + 1) : start;
    bars
      .append("rect")
      .attr("class", "carried")
      .attr("x", on ? start : start - 1.5)
      .attr("width", Math.max(3, stop - start + 0.4))
      .attr("y", top + 4)
      .attr("height", TRACK - 8)
      .attr("fill", ink)
      .attr("opacity", 0.3 + 0.7 * level(Number(track.strength[i]), peak));
  });
  const others = family ? Object.entries(family.members).filter(([name]) => name !== run.name) : [];
  const known = others.map(([name, component]) => `\n${family?.label}: ${component} in ${name}`).slice(0, 6);
  tell(row, `${track.component} carries ${lane.lifeline} at ${track.places.length} of ${run.steps.length} checkpoints, score at most ${short(peak)}${known.join("")}`);
  row.on("click", () => store.set({ component: store.state.component === track.component ? "" : track.component }));
}

/**
 * @param {any} group
 * @param {Run} run
 * @param {Lane} lane
 * @param {Map<string, number>} rows
 * @param {TimeAxis} axis
 * @param {string} ink
 * @param {Record<string, string>} words
 */
function drawEvents(group, run, lane, rows, axis, ink, words) {
  const layer = group.append("g").attr("class", "events").attr("clip-path", axis.clip);
  for (const event of rowsOf(run.events)) {
    if (event.lifeline !== lane.lifeline) continue;
    const [x0, x1] = [Number(axis.ofStep(event.step_before)), Number(axis.ofStep(event.step_after))];
    const before = namesIn(event.components_before).filter((name) => rows.has(name));
    const after = namesIn(event.components_after).filter((name) => rows.has(name));
    const mark = layer.append("g").attr("opacity", (event.confidence ?? 1) < 0.5 ? 0.4 : 1);
    const [from, to] = [namesIn(event.components_before).join(", "), namesIn(event.components_after).join(", ")];
    const told = [from, words[event.event] ?? event.event, to].filter(Boolean);
    if (!from) told.reverse();
    tell(mark, `${event.event}: ${told.join(" ")}\nbetween steps ${event.step_before.toLocaleString("en")} and ${event.step_after.toLocaleString("en")}, confidence ${short(event.confidence)}`);
    const at = (/** @type {string} */ name) => Number(rows.get(name));
    if (event.event === "birth" || event.event === "death") {
      for (const name of event.event === "birth" ? after : before) {
        mark.append("line").attr("class", "dots").attr("x1", x0).attr("x2", x1).attr("y1", at(name)).attr("y2", at(name)).attr("stroke", ink);
        // It rises out of its own past before it reaches the height at which its role is drawn.
        const reaches = Math.max(x1, axis.x(lane.tracks.find((track) => track.component === name)?.places.find((place) => axis.x(place) >= x0) ?? 0));
        if (event.event === "birth") mark.append("line").attr("class", "dots").attr("x1", x1).attr("x2", reaches).attr("y1", at(name)).attr("y2", at(name)).attr("stroke", ink);
        if (event.event === "birth") mark.append("circle").attr("class", "birth").attr("cx", x1).attr("cy", at(name)).attr("r", 3.4).attr("stroke", ink);
        else mark.append("path").attr("class", "death").attr("d", `M${x1 - 3},${at(name) - 3}l6,6m0,-6l-6,6`).attr("stroke", ink);
      }
      continue;
    }
    for (const one of before)
      for (const other of after) {
        const middle = (x0 + x1) / 2;
        mark.append("path").attr("class", "handoff").attr("d", `M${x0},${at(one)}C${middle + 8},${at(one)} ${middle - 8},${at(other)} ${x1},${at(other)}`);
        mark.append("path").attr("class", "arrow").attr("d", `M${x1 + 1},${at(other)}l-6,-3.2v6.4z`);
      }
  }
}

/**
 * @param {any} back
 * @param {Run} run
 * @param {Formation} row
 * @param {TimeAxis} axis
 * @param {number} top
 * @param {number} bottom
 * @param {string} ink
 */
function drawBand(back, run, row, axis, top, bottom, ink) {
  if (row.censored === "right" || row.interval_after === null) return;
  const right = Number(axis.ofStep(row.interval_after));
  const left = row.censored === "left" || row.interval_before === null ? Number(axis.ofStep(run.steps[0])) - 6 : Number(axis.ofStep(row.interval_before));
  back.append("rect").attr("class", "band").attr("clip-path", axis.clip).attr("x", left).attr("width", Math.max(2, right - left)).attr("y", top).attr("height", bottom - top).attr("fill", ink);
  if (row.censored === "left") {
    const y = (top + bottom) / 2;
    back.append("path").attr("class", "open").attr("clip-path", axis.clip).attr("d", `M${Number(axis.ofStep(run.steps[0])) - 2},${y - 5}l-7,5l7,5z`).attr("fill", ink);
  }
}

/** Mark the chosen component in every lane. @param {HTMLElement} element @param {string} component */
export function markTracks(element, component) {
  for (const track of element.querySelectorAll(".track")) track.classList.toggle("chosen", /** @type {SVGElement} */ (track).dataset.component === component);
}
