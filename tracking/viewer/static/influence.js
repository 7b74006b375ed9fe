// @ts-check
// Which training data moved a date, by how many steps, and what did retraining find?

import { d3 } from "./vendor/d3.js";
import { clipped, innerWidthOf } from "./paper.js";
import { saveButtons } from "./save.js";
import { tell } from "./tip.js";
import { short } from "./time.js";

/** @typedef {import("./data.js").Page} Page */
/** @typedef {import("./data.js").Influence} Influence */

const BAR = 20;
const SIDE = 220;
const LABEL = 190;

/** Sources with the largest shift first, the windows of each in order of time. @param {Influence} found */
export function shiftRows({ sources }) {
  const largest = new Map();
  for (const each of sources) largest.set(each.source, Math.max(largest.get(each.source) ?? 0, Math.abs(each.shift_steps)));
  return sources.slice().sort((a, b) => largest.get(b.source) - largest.get(a.source) || a.source.localeCompare(b.source, "en") || a.window[0] - b.window[0]);
}

/** Every answer there is, one below another; nothing where none was given. @param {HTMLElement} element @param {Page} page */
export function drawInfluence(element, page) {
  const root = d3.select(element).html("");
  element.hidden = !page.influences.length;
  if (element.hidden) return;
  root.append("h2").text("Which training data moved it");
  root.append("p").attr("class", "meta").text("Bars: steps by which the date moves when a source's weight rises by a tenth within the window, with its interval; to the left is earlier, pale where the direction is not told.");
  for (const found of page.influences) drawOne(root.append("div").attr("class", "influence"), innerWidthOf(element), found);
}

/** @param {any} root @param {number} width @param {Influence} found */
function drawOne(root, width, found) {
  const name = `${found.curve}${found.component ? ` of ${found.component}` : ""}`;
  const head = root.append("div").attr("class", "panel-head");
  head.append("h3").text(`${name}, step ${short(found.date)}, in ${found.runs.length === 1 ? found.runs[0] : `${found.runs.length} runs`}`);
  saveButtons(head, () => root.node().querySelector("svg"), () => `influence-${name.replaceAll(/\W+/g, "-")}`);
  const rows = shiftRows(found);
  const proved = found.proofs.filter((each) => each.actual !== null);
  const beside = proved.length > 0 && width > 640;
  const room = Math.min(beside ? width - SIDE - 90 : width, 760);
  const tall = Math.max(BAR * rows.length + 40, proved.length && beside ? SIDE + 40 : 0);
  const below = proved.length && !beside ? SIDE + 60 : 0;
  const svg = root.append("svg").attr("width", width).attr("height", tall + below).attr("role", "img").attr("aria-label", found.sentences.join(" "));
  drawBars(svg, rows, room, found.confidence);
  if (proved.length) drawProofs(svg.append("g").attr("transform", beside ? `translate(${room + 70},8)` : `translate(50,${tall + 8})`), proved);
  if (!found.sentences.length) return;
  const more = root.append("details");
  more.append("summary").text("In words");
  more.append("ul").selectAll("li").data(found.sentences).join("li").text((/** @type {string} */ line) => line);
}

/** @param {any} svg @param {Influence["sources"]} rows @param {number} width @param {number} confidence */
function drawBars(svg, rows, width, confidence) {
  const ends = rows.flatMap((each) => [each.low, each.high, each.shift_steps, 0]);
  const x = d3.scaleLinear().domain([Math.min(...ends), Math.max(...ends)]).nice(5).range([LABEL, width - 16]);
  const foot = BAR * rows.length + 8;
  const several = new Set(rows.map((each) => each.window.join())).size > 1;
  for (const tick of x.ticks(5)) {
    svg.append("line").attr("class", "grid").attr("x1", x(tick)).attr("x2", x(tick)).attr("y1", 0).attr("y2", foot);
    svg.append("text").attr("class", "tick").attr("x", x(tick)).attr("y", foot + 14).attr("text-anchor", "middle").text(short(tick));
  }
  svg.append("text").attr("class", "tick").attr("x", width - 16).attr("y", foot + 29).attr("text-anchor", "end").text("shift in steps");
  rows.forEach((each, i) => {
    const y = BAR * i + BAR / 2 + 2;
    const when = several ? `, ${each.window[0]} to ${each.window[1]}` : "";
    const told = each.low > 0 || each.high < 0;
    svg.append("text").attr("class", "row").attr("x", LABEL - 10).attr("y", y + 4).attr("text-anchor", "end").text(clipped(each.source, 26 - when.length) + when);
    const bar = svg.append("g").attr("class", told ? "shift told" : "shift");
    bar.append("rect").attr("x", Math.min(x(0), x(each.shift_steps))).attr("width", Math.abs(x(each.shift_steps) - x(0))).attr("y", y - 6).attr("height", 12);
    bar.append("line").attr("class", "whisker").attr("x1", x(each.low)).attr("x2", x(each.high)).attr("y1", y).attr("y2", y);
    const found = each.verified_shift === null ? "" : `\nretrained: ${short(each.verified_shift)}`;
    tell(bar, `${each.source}, steps ${each.window[0].toLocaleString("en")} to ${each.window[1].toLocaleString("en")}\n${short(each.shift_steps)} steps for a tenth more weight (${Math.round(100 * confidence)}% interval: ${short(each.low)} to ${short(each.high)})${found}`);
  });
  svg.append("line").attr("class", "rule").attr("x1", x(0)).attr("x2", x(0)).attr("y1", 0).attr("y2", foot);
}

/** Predicted against found; on the diagonal they are the same. @param {any} root @param {Influence["proofs"]} proofs */
function drawProofs(root, proofs) {
  const away = 1.1 * Math.max(1e-9, ...proofs.flatMap((each) => [Math.abs(each.predicted), Math.abs(each.actual ?? 0)]));
  const x = d3.scaleLinear().domain([-away, away]).range([0, SIDE]);
  const y = d3.scaleLinear().domain([-away, away]).range([SIDE, 0]);
  root.append("line").attr("class", "level").attr("x1", 0).attr("x2", SIDE).attr("y1", SIDE).attr("y2", 0);
  for (const tick of x.ticks(4)) {
    root.append("line").attr("class", "grid").attr("x1", x(tick)).attr("x2", x(tick)).attr("y1", 0).attr("y2", SIDE);
    root.append("line").attr("class", "grid").attr("x1", 0).attr("x2", SIDE).attr("y1", y(tick)).attr("y2", y(tick));
    root.append("text").attr("class", "tick").attr("x", x(tick)).attr("y", SIDE + 14).attr("text-anchor", "middle").text(short(tick));
    root.append("text").attr("class", "tick").attr("x", -6).attr("y", y(tick) + 4).attr("text-anchor", "end").text(short(tick));
  }
  root.append("text").attr("class", "tick").attr("x", SIDE).attr("y", SIDE + 29).attr("text-anchor", "end").text("predicted shift");
  root.append("text").attr("class", "tick").attr("x", 4).attr("y", 10).text("retrained shift");
  for (const each of proofs) {
    const at = [x(each.predicted), y(each.actual ?? 0)];
    const up = each.factor > 1 ? -1 : 1;
    const mark = root.append("path").attr("class", "proof").attr("d", `M${at[0]},${at[1] + 5 * up}l5,${-9 * up}h-10z`);
    tell(mark, `${each.source} × ${each.factor}\nforetold ${short(each.predicted)}, retrained ${short(each.actual)}`);
  }
}
