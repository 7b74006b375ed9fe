// @ts-check
// Which part of the run is drawn, and how is it zoomed and moved, in every chart at once?

import { d3 } from "./vendor/d3.js";
import { tell } from "./tip.js";
import { framed, timeAxis } from "./time.js";

/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Store} Store */
/** @typedef {import("./time.js").Span} Span */
/** @typedef {import("./time.js").TimeAxis} TimeAxis */

const IN = 1.6;

/** The part that is asked for, as far as the run reaches. @param {State} state @param {Run} run @returns {Span} */
export function spanOf({ view }, run) {
  const match = /^(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)$/.exec(view ?? "");
  if (!match) return null;
  const [first, last] = [run.steps[0], run.steps[run.steps.length - 1]];
  const [low, high] = [Math.max(first, Number(match[1])), Math.min(last, Number(match[2]))];
  return high > low ? [low, high] : null;
}

/** How a part is written in the state: empty for the whole run. @param {Run} run @param {number} low @param {number} high */
export function viewOf(run, low, high) {
  const [first, last] = [run.steps[0], run.steps[run.steps.length - 1]];
  [low, high] = [Math.max(first, low), Math.min(last, high)];
  const least = Math.min(1, last - first);
  if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
  if (low - first < 0.002 * (last - first) && last - high < 0.002 * (last - first)) return "";
  const round = (/** @type {number} */ step) => (high - low > 40 ? Math.round(step) : Number(step.toFixed(2)));
  return `${round(low)}..${round(high)}`;
}

/** Zoom about a pixel; a factor below 1 zooms out. @param {Store} store @param {Run} run @param {TimeAxis} axis @param {number} px @param {number} factor */
export function zoomAbout(store, run, axis, px, factor) {
  const step = (/** @type {number} */ to) => axis.stepAt(px + (to - px) / factor);
  store.set({ view: viewOf(run, step(axis.left), step(axis.right)) });
}

/** Move what is drawn by a number of pixels. @param {Store} store @param {Run} run @param {TimeAxis} axis @param {number} by */
export function panBy(store, run, axis, by) {
  const [first, last] = [Number(axis.ofStep(run.steps[0])), Number(axis.ofStep(run.steps[run.steps.length - 1]))];
  const kept = Math.max(Math.min(by, last - axis.right), first - axis.left);
  store.set({ view: viewOf(run, axis.stepAt(axis.left + kept), axis.stepAt(axis.right + kept)) });
}

/** Zoom or move by a key: about the step that is looked at. @param {Store} store @param {Run} run @param {string} key */
export function zoomByKey(store, run, key) {
  const axis = timeAxis(run, "step", store.state.scale, 0, 1000, spanOf(store.state, run));
  if (key === "0") return store.set({ view: "" });
  if (key === "[" || key === "]") return panBy(store, run, axis, key === "]" ? 250 : -250);
  const at = axis.x(store.state.step);
  zoomAbout(store, run, axis, at >= 0 && at <= 1000 ? at : 500, key === "-" ? 1 / IN : IN);
}

/**
 * Let the wheel zoom a drawing (with Ctrl, or pinched) and move it (sideways, or with Shift); a double click shows all.
 * @param {SVGElement} svg
 * @param {TimeAxis} axis
 * @param {Store} store
 * @param {Run} run
 */
export function wheelZooms(svg, axis, store, run) {
  svg.addEventListener("wheel", (event) => {
    const sideways = event.shiftKey ? event.deltaX || event.deltaY : Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : 0;
    if (event.ctrlKey || event.metaKey) zoomAbout(store, run, axis, event.clientX - svg.getBoundingClientRect().left, 2 ** (-event.deltaY / 240));
    else if (sideways && store.state.view) panBy(store, run, axis, sideways);
    else return;
    event.preventDefault();
  }, { passive: false });
  svg.addEventListener("dblclick", () => store.set({ view: "" }));
}

/**
 * The whole run under the bar: dates of formation, the part that is drawn, and the step. Drag the part to move it, its
 * ends to make it longer or shorter, and the ground to choose another.
 * @param {HTMLElement} element
 * @param {{run: Run, store: Store, colour: (role: string) => string}} context
 * @returns {(place: number) => void}
 */
export function drawOverview(element, { run, store, colour }) {
  const root = d3.select(element).html("");
  const width = Math.max(200, element.clientWidth);
  const svg = root.append("svg").attr("class", "overview").attr("width", width).attr("height", 20).attr("role", "img").attr("aria-label", "The whole run, and the part of it that is drawn");
  const axis = framed(svg, timeAxis(run, store.state.unit, store.state.scale, 6, width - 6));
  const at = (/** @type {number} */ step) => Number(axis.ofStep(step));
  svg.append("rect").attr("class", "whole").attr("x", axis.left).attr("width", axis.right - axis.left).attr("y", 3).attr("height", 14).attr("rx", 3);
  for (const row of run.lanes.flatMap((lane) => lane.formation.filter((one) => one.clock === "form" && one.rise === 1 && one.midpoint !== null && one.censored === "no")))
    svg.append("line").attr("class", "date").attr("x1", at(row.midpoint)).attr("x2", at(row.midpoint)).attr("y1", 4).attr("y2", 16).attr("stroke", colour(row.role));
  const span = spanOf(store.state, run);
  const part = svg.append("rect").attr("class", "window").attr("y", 1).attr("height", 18).attr("rx", 3);
  const place = (/** @type {[number, number]} */ [low, high] = span ?? [run.steps[0], run.steps[run.steps.length - 1]]) =>
    part.attr("x", at(low)).attr("width", Math.max(4, at(high) - at(low))).attr("visibility", span || dragging ? "visible" : "hidden");
  const cursor = svg.append("line").attr("class", "cursor").attr("y1", 0).attr("y2", 20);
  let dragging = false;
  place();
  tell(svg, "Drag to draw a part of the run in every chart; double click: all of it");
  svg.on("pointerdown", (/** @type {PointerEvent} */ event) => {
    const box = svg.node().getBoundingClientRect();
    const start = event.clientX - box.left;
    const old = span ? span.map(at) : null;
    const end = old ? old.findIndex((x) => Math.abs(x - start) < 6) : -1;
    const moves = old && end < 0 && start > old[0] && start < old[1];
    dragging = true;
    svg.node().setPointerCapture(event.pointerId);
    /** @type {[number, number]} */
    let now = [start, start];
    svg.on("pointermove", (/** @type {PointerEvent} */ on) => {
      const x = Math.max(axis.left, Math.min(axis.right, on.clientX - box.left));
      if (moves && old) {
        const by = Math.max(axis.left - old[0], Math.min(axis.right - old[1], x - start));
        now = [old[0] + by, old[1] + by];
      } else now = /** @type {[number, number]} */ ([old && end >= 0 ? old[1 - end] : start, x].sort((a, b) => a - b));
      place(/** @type {[number, number]} */ (now.map(axis.stepAt)));
    });
    svg.on("pointerup", () => {
      svg.on("pointermove", null).on("pointerup", null);
      dragging = false;
      if (Math.abs(now[1] - now[0]) > 3) store.set({ view: viewOf(run, axis.stepAt(now[0]), axis.stepAt(now[1])) });
      else place();
    });
  });
  svg.on("dblclick", () => store.set({ view: "" }));
  return (step) => cursor.attr("x1", axis.x(step)).attr("x2", axis.x(step));
}
