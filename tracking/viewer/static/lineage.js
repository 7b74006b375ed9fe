// @ts-check
// Who carried a function after whom? Components over time as bars, and the events that lead from one to another.

import { d3 } from "./vendor/d3.js";
import { innerWidthOf } from "./paper.js";
import { saveButtons } from "./save.js";
import { pressable, tell } from "./tip.js";
import { framed, markStages, short, timeAxis } from "./time.js";
import { spanOf, wheelZooms } from "./zoom.js";

/** @typedef {import("./data.js").Run} Run */
/** @typedef {import("./history.js").Context} Context */

const ROW = 18;
const MOST = 40;

/**
 * A row for every component: those that one function passes through stand together, in the order of time.
 * @param {Run["lineage"]} lineage
 * @returns {string[]}
 */
export function lineageRows({ nodes, edges }) {
  const group = nodes.map((_, i) => i);
  const rootOf = (/** @type {number} */ i) => {
    while (group[i] !== i) i = group[i];
    return i;
  };
  for (const [from, to] of edges) group[Math.max(rootOf(from), rootOf(to))] = Math.min(rootOf(from), rootOf(to));
  const places = nodes.map((_, i) => i).sort((a, b) => rootOf(a) - rootOf(b) || nodes[a][1] - nodes[b][1] || a - b);
  return [...new Set(places.map((i) => nodes[i][0]))];
}

/** Draw the lineage of the run; nothing where no function passes from one component to another. @param {HTMLElement} element @param {Context} context */
export function drawLineage(element, context) {
  const { page, run, colour, store } = context;
  const { nodes, edges } = run.lineage;
  const root = d3.select(element).html("");
  element.hidden = !edges.length;
  if (!edges.length) return;
  const rows = lineageRows(run.lineage);
  const shown = rows.slice(0, MOST);
  const head = root.append("div").attr("class", "panel-head");
  head.append("h2").text("Lineage");
  saveButtons(head, () => element.querySelector("svg.lineage"), () => `${run.name}-lineage`);
  const width = innerWidthOf(element);
  const svg = root.append("svg").attr("class", "lineage").attr("width", width).attr("height", ROW * shown.length + 24);
  svg.attr("role", "group").attr("aria-label", "Which component carried a function after which");
  const axis = framed(svg, timeAxis(run, store.state.unit, store.state.scale, 84, width - 18, spanOf(store.state, run)), 1);
  const inside = svg.append("g").attr("clip-path", axis.clip);
  wheelZooms(svg.node(), axis, store, run);
  const y = (/** @type {number} */ node) => ROW * shown.indexOf(nodes[node][0]) + ROW / 2;
  markStages(svg, axis, 0, ROW * shown.length);
  for (const tick of axis.ticks) svg.append("text").attr("class", "tick").attr("x", tick.at).attr("y", ROW * shown.length + 16).attr("text-anchor", "middle").text(tick.label);
  shown.forEach((name, i) => {
    const label = svg.append("text").attr("class", "name").attr("x", axis.left - 8).attr("y", ROW * i + ROW / 2 + 4).attr("text-anchor", "end").attr("tabindex", 0).text(name);
    pressable(label, () => store.set({ component: store.state.component === name ? "" : name }));
  });
  nodes.forEach(([name, first, last, role], i) => {
    if (!shown.includes(name)) return;
    const [left, right] = [Number(axis.ofStep(first)), Number(axis.ofStep(last))];
    const bar = inside.append("rect").attr("class", "life").attr("x", left).attr("width", Math.max(3, right - left)).attr("y", y(i) - 4).attr("height", 8).attr("fill", colour(role));
    tell(bar, `${name}${role ? `, ${role}` : ""}: steps ${first.toLocaleString("en")} to ${last.toLocaleString("en")}`);
  });
  for (const [from, to, event, before, after, confidence] of edges) {
    if (from === to || !shown.includes(nodes[from][0]) || !shown.includes(nodes[to][0])) continue;
    const [x0, x1] = [Number(axis.ofStep(before)), Number(axis.ofStep(after))];
    const mark = inside.append("g").attr("class", "link").attr("opacity", (confidence ?? 1) < 0.5 ? 0.4 : 1);
    mark.append("path").attr("class", "handoff").attr("d", `M${x0},${y(from)}C${x0 + 10},${y(from)} ${x1 - 10},${y(to)} ${x1},${y(to)}`);
    mark.append("path").attr("class", "arrow").attr("d", `M${x1 + 1},${y(to)}l-6,-3.2v6.4z`);
    tell(mark, `${event}: ${nodes[from][0]} ${page.events[event] ?? "to"} ${nodes[to][0]}\nbetween steps ${before.toLocaleString("en")} and ${after.toLocaleString("en")}, confidence ${short(confidence)}`);
  }
  if (rows.length > MOST) root.append("p").attr("class", "hint").text(`${rows.length - MOST} more components are in the table of events.`);
}
