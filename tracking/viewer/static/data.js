// @ts-check
// What is in the page's data, and which rows of the tables is that?

/**
 * @typedef {{component: string, places: number[], strength: (number|null)[], confidence: (number|null)[]}} Track
 * @typedef {Record<string, any>} Formation
 * @typedef {{lifeline: string, role: string, task: string|null, measure: string|null, tracks: Track[],
 *   formation: Formation[]}} Lane
 * @typedef {{name: string, label: string, family: string, unit: string, minor: boolean, own: boolean,
 *   places: number[], values: (number|null)[], errors: (number|null)[]}} Curve
 * @typedef {{task: string, measure: string, prompts: number, components: string[], values: (number|null)[][],
 *   errors: (number|null)[][]|null}} Scores
 * @typedef {{status: string, caveat: string, size: number, faithfulness: (number|null)[]|null, edges: number[],
 *   scores: (number|null)[], errors: (number|null)[], inclusion: (number|null)[]|null, floor: number|null}} CircuitAt
 * @typedef {{measure: string, target: number|null, prompts: number, names: string[], at: (CircuitAt|null)[]}} Circuits
 * @typedef {{nodes: [string, number, number, string][], edges: [number, number, string, number, number, number|null][]}} Lineage
 * @typedef {{curve: string, component: string, bar: number, date: number, runs: string[], confidence: number, sentences: string[],
 *   sources: {source: string, window: number[], shift_steps: number, low: number, high: number, verified_shift: number|null}[],
 *   proofs: {source: string, window: number[], factor: number, predicted: number, actual: number|null}[]}} Influence
 * @typedef {{automatic: string, log: string, constant: number}} Scale
 * @typedef {{name: string, graph: {layers: number, heads: number, mlp: boolean, parallel: boolean},
 *   hyperparameters: Record<string, any>, settings: Record<string, any>, thresholds: Record<string, number>,
 *   confidence: number|null, sentences: string[],
 *   headlines: {faults: string[], story: string, roles: string[][], events: string[], misses: Miss[], more: string[]}, made: string, steps: number[],
 *   tokens: number[]|null, scale: {step: Scale, tokens: Scale|null}, stages: [string, number, number][], parent: string|null, failed: [number, string, string][],
 *   curves: Curve[], lanes: Lane[], events: Record<string, any[]>, formation: Record<string, any[]>,
 *   patterns: {words: string[][], heads: number, at: (string[][]|null)[]}|null,
 *   scores: Scores[], circuits: Record<string, Circuits>, lineage: Lineage}} Run
 * @typedef {{families: {label: string, support: number, members: Record<string, string>}[],
 *   between: {runs: [string, string], pairs: [string, string, number, number, number][]}[],
 *   remarks: string[], all: boolean}} Counterparts
 * @typedef {{title: string, tool_version: string, schema_version: number, colours: Record<string, string>,
 *   columns: Record<string, string[]>, clocks: Record<string, string>, events: Record<string, string>,
 *   roles: Record<string, string>, across: {story: string, confidence: number|null,
 *   effects: {what: string, role: string, factor: string, verdict: string, runs: number}[]},
 *   differing: string[], counterparts: Counterparts, influences: Influence[], runs: Run[]}} Page
 * @typedef {{role: string, component: string, step: number, value: number, bar: number}} Miss
 * @typedef {{component: string, similarity: number, confidence: number, chance: number}} Match
 */

/**
 * The page's data from gzipped JSON in base64.
 * @param {string} text
 * @returns {Promise<Page>}
 */
export async function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** An edge's name, `a0.h1->a1.h0<k>`, in parts. @param {string} name */
export function parseEdge(name) {
  const [source, reader] = name.split("->");
  const match = /^(.*)<([qkv])>$/.exec(reader);
  return { source, target: match ? match[1] : reader, slot: match ? match[2] : null };
}

/** The names in a cell of the events table. @param {string|null} cell */
export const namesIn = (cell) => (cell ?? "").split(/[ ,]+/).filter(Boolean);

/** Rows of a table of columns, as objects. @param {Record<string, any[]>} columns */
export function rowsOf(columns) {
  const names = Object.keys(columns);
  return (columns[names[0]] ?? []).map((_, i) => /** @type {Record<string, any>} */ (Object.fromEntries(names.map((name) => [name, columns[name][i]]))));
}

/** Rows that say when a lifeline first formed: those of its lane, or of the role that no component ever reached. @param {Run} run @param {string} lifeline */
export function formationOf(run, lifeline) {
  const lane = run.lanes.find((one) => one.lifeline === lifeline);
  return lane ? lane.formation : rowsOf(run.formation).filter((row) => row.lifeline === lifeline && !row.component);
}

/** Whether a row dates the first rise of its curve. @param {Formation} row */
export const isFirstRise = (row) => row.rise === 1;

/** The definitions by which formation is dated in any of the runs, in their order; further rises are left out. @param {Run[]} runs */
export function definitionsOf(runs) {
  const first = runs.flatMap((run) => run.lanes.flatMap((lane) => lane.formation.filter(isFirstRise)));
  return [...new Set(first.map((row) => String(row.definition)))];
}

/**
 * The row of one clock by one definition; by the first definition there is where that is not known, or none is asked for.
 * A clock that has no bar is dated by a definition that needs none.
 * @param {Formation[]} rows
 * @param {string} clock
 * @param {string} definition
 * @returns {Formation|undefined}
 */
export function dated(rows, clock, definition) {
  const some = rows.filter((row) => row.clock === clock && isFirstRise(row));
  const own = some.find((row) => row.definition === definition) ?? some[0];
  const barred = (/** @type {Formation} */ row) => row.state === "not datable by this definition";
  return own && own.bar_kind === "none" && barred(own) ? (some.find((row) => !barred(row)) ?? own) : own;
}

/**
 * Who in another run matches a component: null where the two runs were not compared.
 * @param {Page} page
 * @param {string} run
 * @param {string} component
 * @param {string} other
 * @returns {Match[]|null}
 */
export function matchesIn(page, run, component, other) {
  for (const { runs, pairs } of page.counterparts.between) {
    const [mine, theirs] = runs[0] === run && runs[1] === other ? [0, 1] : runs[1] === run && runs[0] === other ? [1, 0] : [-1, -1];
    if (mine < 0) continue;
    const some = pairs.filter((pair) => pair[mine] === component);
    return some.map((pair) => ({ component: String(pair[theirs]), similarity: pair[2], confidence: pair[3], chance: pair[4] }));
  }
  return null;
}

/** What tells a run from the others: the values that differ, and its name where that is short or all there is. @param {Page} page @param {Run} run */
export function namedBy(page, run) {
  const values = page.differing.map((name) => String(run.hyperparameters[name] ?? "–"));
  return [...values, ...(values.length && run.name.length > 16 ? [] : [run.name])].join(" · ");
}

/** The family that a component belongs to, if any. @param {Page} page @param {string} run @param {string} component */
export function familyOf(page, run, component) {
  return page.counterparts.families.find((family) => family.members[run] === component) ?? null;
}

/**
 * The first lane of each component at a place: what it mainly does there, and how strongly.
 * @param {Run} run
 * @param {number} place
 * @returns {Map<string, {lane: Lane, strength: number, level: number}>}
 */
export function carriersAt(run, place) {
  const found = new Map();
  for (const lane of run.lanes) {
    const top = Math.max(...lane.tracks.map((track) => Math.max(...track.strength.map(Number))));
    for (const track of lane.tracks) {
      const index = track.places.indexOf(place);
      if (index < 0 || found.has(track.component)) continue;
      const strength = Number(track.strength[index]);
      found.set(track.component, { lane, strength, level: level(strength, top) });
    }
  }
  return found;
}

/** How dark a score is drawn, from 0 to 1; in logarithms where scores span decades. */
export function level(/** @type {number} */ value, /** @type {number} */ top) {
  if (!(top > 0)) return 0;
  const share = top > 20 ? Math.log1p(Math.max(value, 0)) / Math.log1p(top) : value / top;
  return Math.min(1, Math.max(0, share));
}

/** Every table of the page: its columns, and a function that gives its rows. */
export const TABLES = /** @type {const} */ (["formation", "events", "lifelines", "scores", "edges", "metrics"]);

/**
 * @param {Page} page
 * @param {Run} run
 * @param {string} table
 * @returns {{columns: string[], rows: any[][]}}
 */
export function tableOf(page, run, table) {
  const columns = page.columns[table];
  const rows = rowsOfTable(run, table);
  return { columns, rows: rows.map((row) => columns.map((name) => row[name] ?? null)) };
}

/** @param {Run} run @param {string} table @returns {Record<string, any>[]} */
function rowsOfTable(run, table) {
  const tokens = (/** @type {number} */ place) => run.tokens?.[place] ?? null;
  if (table === "events" || table === "formation") return rowsOf(run[table]);
  /** @type {Record<string, any>[]} */
  const rows = [];
  if (table === "scores") {
    for (const { task, measure, components, values, errors } of run.scores)
      components.forEach((component, c) =>
        values[c].forEach((value, place) => {
          if (value !== null)
            rows.push({ step: run.steps[place], tokens: tokens(place), component, task, measure, value, std_error: errors?.[c][place] });
        }),
      );
    return rows;
  }
  if (table === "edges") {
    for (const [task, circuits] of Object.entries(run.circuits))
      circuits.at.forEach((at, place) =>
        at?.edges.forEach((edge, i) => {
          const { source, target, slot } = parseEdge(circuits.names[edge]);
          rows.push({ step: run.steps[place], task, source, target, slot, score: at.scores[i], std_error: at.errors[i], in_circuit: true, inclusion: at.inclusion?.[i] });
        }),
      );
    return rows;
  }
  if (table === "metrics") {
    for (const { name, places, values, errors } of run.curves)
      places.forEach((place, i) => rows.push({ step: run.steps[place], tokens: tokens(place), name, value: values[i], std_error: errors[i] }));
    return rows;
  }
  for (const { lifeline, role, tracks } of run.lanes)
    for (const { component, places, strength, confidence } of tracks)
      places.forEach((place, i) => rows.push({ lifeline, role, step: run.steps[place], component, strength: strength[i], confidence: confidence[i] }));
  return rows;
}
