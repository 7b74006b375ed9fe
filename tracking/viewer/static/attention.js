// @ts-check
// Where does a head look, on a few prompts, at the step that is looked at?

import { d3 } from "./vendor/d3.js";
import { clipped } from "./paper.js";
import { tell } from "./tip.js";

/** @typedef {import("./data.js").Run} Run */

const SHARES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** The shares of a pattern's lower triangle, row by row of the queries. @param {string} letters @returns {number[][]} */
export function triangle(letters) {
  /** @type {number[][]} */
  const rows = [];
  for (let from = 0, n = 1; from < letters.length; from += n, n += 1) rows.push(Array.from(letters.slice(from, from + n), (letter) => SHARES.indexOf(letter) / 63));
  return rows;
}

/**
 * The patterns of a head at a place, one square a prompt; gives back what changes with the step.
 * @param {any} root
 * @param {string} name
 * @param {Run} run
 * @param {string} ink
 * @param {number} width
 * @returns {(place: number) => void}
 */
export function drawAttention(root, name, run, ink, width) {
  const head = /^a(\d+)\.h(\d+)$/.exec(name);
  const { patterns } = run;
  if (!patterns || !head) return () => {};
  const number = Number(head[1]) * patterns.heads + Number(head[2]);
  const title = root.append("h3").text("Where it looks ");
  const when = title.append("span").attr("class", "meta");
  const holder = root.append("div").attr("class", "patterns");
  let drawn = -1;
  return (place) => {
    const known = patterns.at.map((at, i) => (at ? i : -1)).filter((i) => i >= 0);
    const at = known.reduce((best, i) => (Math.abs(i - place) < Math.abs(best - place) ? i : best), known[0]);
    when.text(`at step ${run.steps[at].toLocaleString("en")}${at === place ? "" : ", the nearest that was recorded"}; rows are queries, columns keys`);
    if (at === drawn) return;
    drawn = at;
    holder.html("");
    const size = Math.min(240, (width - 14) / Math.min(2, patterns.words.length));
    (patterns.at[at]?.[number] ?? []).forEach((letters, prompt) => drawPattern(holder, triangle(letters), patterns.words[prompt], ink, size));
  };
}

/** @param {any} holder @param {number[][]} rows @param {string[]} words @param {string} ink @param {number} size */
function drawPattern(holder, rows, words, ink, size) {
  const cell = size / rows.length;
  const svg = holder.append("svg").attr("class", "pattern").attr("width", size).attr("height", size).attr("role", "img");
  svg.append("path").attr("class", "whole").attr("d", `M0,0V${size}H${size}z`);
  const strongest = rows.map((row) => row.indexOf(Math.max(...row)));
  const last = rows.length - 1;
  svg.attr("aria-label", `Attention on ${clipped(words.join(" "), 60)}: the last token looks most at token ${strongest[last] + 1}, ${words[strongest[last]]}`);
  rows.forEach((row, query) =>
    row.forEach((share, key) => {
      if (share < 0.016) return;
      const mark = svg.append("rect").attr("x", key * cell).attr("y", query * cell).attr("width", cell).attr("height", cell).attr("fill", ink).attr("opacity", share);
      tell(mark, `“${words[query]}” (${query + 1}) looks at “${words[key]}” (${key + 1}): ${share.toFixed(2)}`);
    }),
  );
}
