// @ts-check
// The run over time: curves above, lifelines below, one time axis, and a cursor at the step that is looked at.

import { d3 } from "./vendor/d3.js";
import { drawFamily, drawMore, families, MORE } from "./curves.js";
import { namedBy } from "./data.js";
import { drawLane } from "./lanes.js";
import { clipped, innerWidthOf } from "./paper.js";
import { saveButtons } from "./save.js";
import { framed, markStages, short, timeAxis } from "./time.js";
import { spanOf, wheelZooms } from "./zoom.js";

/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./state.js").Store} Store */
/** @typedef {import("./time.js").TimeAxis} TimeAxis */
/** @typedef {{page: import("./data.js").Page, run: Run, colour: (role: string) => string, store: Store}} Context */
/** @typedef {(place: number) => void} Move */

/**
 * Draw everything; gives back what moves with the step.
 * @param {HTMLElement} element
 * @param {Context} context
 * @returns {Move}
 */
export function drawHistory(element, context) {
  const { run, store } = context;
  const width = innerWidthOf(element);
  const gutter = width < 560 ? 66 : 84;
  const root = d3.select(element).html("");
  const head = root.append("div").attr("class", "panel-head");
  const title = head.append("h2").text("Over training");
  if (context.page.runs.length > 1) title.append("span").attr("class", "meta").text(` ${clipped(namedBy(context.page, run), 60)}`);
  saveButtons(head, () => element.querySelector("svg.history"), () => `${run.name}-over-training`);
  const svg = root.append("svg").attr("width", width).attr("class", "history");
  svg.attr("role", "group").attr("aria-label", "Curves and lifelines over training");
  const axis = framed(svg, timeAxis(run, store.state.unit, store.state.scale, gutter, width - 18, spanOf(store.state, run)), store.state.view ? 1 : 10);
  const back = svg.append("g");
  const ground = svg.append("rect").attr("class", "ground").attr("x", gutter - 6).attr("width", width - gutter + 6);
  let y = axis.stages.length ? 18 : 4;
  for (const { at, name } of axis.stages) svg.append("text").attr("class", "tick").attr("x", at + 3).attr("y", 10).text(name);
  /** @type {Move[]} */
  const moving = [];
  const { shown, folded } = families(run, store.state.open.split("|").includes(MORE));
  for (const family of shown) {
    const drawn = drawFamily(svg, family, axis, y, width);
    moving.push(drawn.move);
    y = drawn.bottom + 14;
  }
  if (folded.length) y = drawMore(svg, folded, y, store);
  drawTicks(svg.append("g").attr("transform", `translate(0,${y})`), axis);
  y += 36;
  for (const lane of run.lanes) {
    const drawn = drawLane(svg, back, lane, axis, y, context);
    moving.push(drawn.move);
    y = drawn.bottom + 16;
  }
  if (!run.lanes.length) {
    svg.append("text").attr("x", gutter).attr("y", y + 8).attr("class", "note").text("No component carries a role in this run.");
    y += 30;
  } else {
    drawTicks(svg.append("g").attr("transform", `translate(0,${y})`), axis);
  }
  const bottom = y;
  y += run.lanes.length ? 42 : 10;
  if (run.lanes.length) y = drawMarks(svg, y, width, context.page.counterparts.families.some((family) => family.members[run.name]));
  svg.attr("height", y);
  ground.attr("height", bottom);
  for (const tick of axis.ticks)
    back.append("line").attr("class", "grid").attr("x1", tick.at).attr("x2", tick.at).attr("y1", 0).attr("y2", bottom);
  markStages(back, axis, 0, bottom);
  const ghost = svg.append("line").attr("class", "ghost").attr("y1", 0).attr("y2", bottom).attr("visibility", "hidden");
  const cursor = svg.append("line").attr("class", "cursor").attr("y1", 0).attr("y2", bottom);
  scrub(svg.node(), ground.node(), ghost, axis, store, run);
  wheelZooms(svg.node(), axis, store, run);
  return (place) => {
    moveCursor(cursor, axis, place);
    for (const move of moving) move(place);
  };
}

/** Put the cursor at a checkpoint; out of sight where that is not drawn. @param {any} cursor @param {TimeAxis} axis @param {number} place */
export function moveCursor(cursor, axis, place) {
  const at = axis.x(place);
  cursor.attr("x1", at).attr("x2", at).attr("visibility", at < axis.left - 1 || at > axis.right + 1 ? "hidden" : null);
}

/** @param {any} group @param {TimeAxis} axis */
function drawTicks(group, axis) {
  group.attr("class", "axis");
  group.append("line").attr("class", "rule").attr("x1", axis.left).attr("x2", axis.right);
  for (const tick of axis.ticks) {
    group.append("line").attr("class", "rule").attr("x1", tick.at).attr("x2", tick.at).attr("y2", 4);
    group.append("text").attr("class", "tick").attr("x", tick.at).attr("y", 16).attr("text-anchor", "middle").text(tick.label);
  }
  group.append("text").attr("class", "tick unit").attr("x", 0).attr("y", 16).text(axis.label);
}

/** What the marks mean, in as many lines as it takes. @param {any} svg @param {number} top @param {number} width @param {boolean} lettered */
function drawMarks(svg, top, width, lettered) {
  const group = svg.append("g").attr("class", "marks");
  let [x, y] = [0, top];
  const entry = (/** @type {string} */ text, /** @type {(at: any) => void} */ mark) => {
    const size = 28 + text.length * 5.9;
    if (x + size > width && x > 0) [x, y] = [0, y + 17];
    mark(group.append("g").attr("transform", `translate(${x},${y - 4})`));
    group.append("text").attr("class", "tick").attr("x", x + 21).attr("y", y).text(text);
    x += size;
  };
  const bar = (/** @type {any} */ at, /** @type {number} */ x, /** @type {number} */ opacity) => at.append("rect").attr("x", x).attr("y", -3).attr("width", 5).attr("height", 6).attr("fill", "var(--muted)").attr("opacity", opacity);
  entry("carries the role, darker where the score is higher", (at) => [0.35, 0.65, 1].forEach((opacity, i) => bar(at, 1 + 5 * i, opacity)));
  entry("takes it up", (at) => at.append("circle").attr("class", "birth").attr("cx", 9).attr("r", 3.4).attr("stroke", "var(--muted)"));
  entry("gives it up", (at) => at.append("path").attr("class", "death").attr("d", "M6,-3l6,6m0,-6l-6,6").attr("stroke", "var(--muted)"));
  entry("hands it over", (at) => (at.append("path").attr("class", "handoff").attr("d", "M1,0H12"), at.append("path").attr("class", "arrow").attr("d", "M16,0l-6,-3.2v6.4z")));
  entry("the role forms: last checkpoint without to first with", (at) => at.append("rect").attr("class", "band key").attr("x", 2).attr("y", -6).attr("width", 13).attr("height", 12).attr("fill", "var(--muted)"));
  if (lettered) entry("the same letter: matched in other runs", (at) => at.append("text").attr("class", "letter").attr("x", 5).attr("y", 4).style("--role", "var(--muted)").text("A"));
  return y + 10;
}

/**
 * Drag or click on the ground to choose a step; a pale line shows the one under the pointer.
 * @param {SVGElement} svg
 * @param {SVGElement} ground
 * @param {any} ghost
 * @param {TimeAxis} axis
 * @param {Store} store
 * @param {Run} run
 */
function scrub(svg, ground, ghost, axis, store, run) {
  const under = (/** @type {PointerEvent} */ event) => axis.nearest(event.clientX - svg.getBoundingClientRect().left);
  const choose = (/** @type {PointerEvent} */ event) => store.set({ step: under(event) });
  ground.addEventListener("pointerdown", (event) => {
    choose(event);
    if (event.pointerType === "mouse") ground.setPointerCapture(event.pointerId);
  });
  ground.addEventListener("pointermove", (event) => {
    const place = under(event);
    ghost.attr("visibility", "visible").attr("x1", axis.x(place)).attr("x2", axis.x(place));
    const tokens = run.tokens ? `, ${short(run.tokens[place])} tokens` : "";
    ground.dataset.tip = `step ${run.steps[place].toLocaleString("en")}${tokens}`;
    if (event.buttons && event.pointerType === "mouse") choose(event);
  });
  ground.addEventListener("pointerleave", () => ghost.attr("visibility", "hidden"));
}
