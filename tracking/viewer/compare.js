// @ts-check
// Several runs under common roles: when did each form in each, as intervals, and what differs between the runs?

import { d3 } from "./vendor/d3.js";
import { innerWidthOf } from "./history.js";
import { timeAxis } from "./time.js";

const ROW = 18;

/**
 * @param {HTMLElement} element
 * @param {{page: import("./data.js").Page, colour: (role: string) => string, store: import("./state.js").Store}} context
 */
export function drawComparison(element, { page, colour, store }) {
  const root = d3.select(element).html("");
  root.append("h2").text("Formation, run by run");
  const known = page.runs.some((run) => Object.keys(run.hyperparameters).length);
  const same = known ? "All hyperparameters are the same." : "No hyperparameters are known.";
  const differing = page.differing.length ? `The runs differ in ${page.differing.map((name) => name.replaceAll("_", " ")).join(", ")}.` : same;
  root.append("p").attr("class", "meta").text(`${differing} Each bar is an interval: the last checkpoint without, the first with.`);
  const width = innerWidthOf(element);
  const gutter = Math.min(230, width * 0.42);
  const axis = timeAxis(together(page.runs), store.state.unit, store.state.scale, gutter, width - 16);
  const roles = [...new Set(page.runs.flatMap((run) => run.lanes.map((lane) => lane.lifeline)))];
  const svg = root.append("svg").attr("width", width).attr("role", "img").attr("aria-label", "Intervals of formation of each role in each run");
  let y = 6;
  for (const role of roles) {
    const rows = page.runs.map((run) => ({ run, lane: run.lanes.find((lane) => lane.lifeline === role) }));
    svg.append("text").attr("class", "lane role").style("--role", colour(rows.find((r) => r.lane)?.lane?.role ?? role)).attr("x", 0).attr("y", y + 10).text(role);
    y += 18;
    for (const { run, lane } of rows) {
      drawRow(svg, run, lane?.formation[0], axis, y, colour(lane?.role ?? role), label(page, run), store);
      y += ROW;
    }
    y += 8;
  }
  for (const tick of axis.ticks) svg.append("text").attr("class", "tick").attr("x", tick.at).attr("y", y + 10).attr("text-anchor", "middle").text(tick.label);
  svg.append("text").attr("class", "tick").attr("x", 0).attr("y", y + 10).text(axis.label);
  svg.attr("height", y + 20);
}

/** A run with the checkpoints of all: the axis begins with the earliest of them and ends with the latest. */
function together(runs) {
  const earliest = runs.reduce((best, run) => (run.steps[0] < best.steps[0] ? run : best));
  const union = (lists) => [...new Set(lists.flat())].sort((a, b) => a - b);
  const tokens = runs.every((run) => run.tokens) ? union(runs.map((run) => run.tokens)) : null;
  return { ...earliest, steps: union(runs.map((run) => run.steps)), tokens };
}

const label = (page, run) => [run.name, ...page.differing.map((name) => `${name.replaceAll("_", " ")} ${run.hyperparameters[name] ?? "–"}`)].join(" · ");

function drawRow(svg, run, row, axis, y, ink, text, store) {
  svg.append("line").attr("class", "level").attr("x1", axis.left).attr("x2", axis.right).attr("y1", y + ROW / 2).attr("y2", y + ROW / 2);
  svg.append("text").attr("class", "name").attr("x", 10).attr("y", y + 13).text(text.length > 36 ? `${text.slice(0, 35)}…` : text).append("title").text(text);
  if (!row || row.censored === "right" || row.interval_after === null) {
    svg.append("text").attr("class", "tick").attr("x", axis.right).attr("y", y + 13).attr("text-anchor", "end").text(row ? "not formed by the last checkpoint" : "not looked for");
    return;
  }
  const right = position(run, row.interval_after, axis, store);
  const left = row.censored === "left" || row.interval_before === null ? axis.left - 8 : position(run, row.interval_before, axis, store);
  const bar = svg.append("rect").attr("x", left).attr("width", Math.max(3, right - left)).attr("y", y + 4).attr("height", ROW - 8).attr("rx", 2).attr("fill", ink).attr("opacity", 0.6);
  bar.append("title").text(`${run.name}: (${row.interval_before ?? "…"}, ${row.interval_after}], ${row.definition}`);
  if (row.midpoint !== null) {
    const x = position(run, row.midpoint, axis, store);
    svg.append("line").attr("x1", x).attr("x2", x).attr("y1", y + 2).attr("y2", y + ROW - 2).attr("stroke", ink).attr("stroke-width", 2);
  }
}

/** A step of one run on the axis of another: in tokens, runs of other batch sizes lie elsewhere. */
function position(run, step, axis, store) {
  if (store.state.unit !== "tokens" || !run.tokens) return axis.ofTime(step);
  const after = Math.max(1, run.steps.findIndex((other) => other >= step));
  const share = (step - run.steps[after - 1]) / (run.steps[after] - run.steps[after - 1]);
  return axis.ofTime(run.tokens[after - 1] + share * (run.tokens[after] - run.tokens[after - 1]));
}
