// @ts-check
// What is being looked at, and how is it written into the address so that a view can be passed on?

/**
 * @typedef {{run: string, step: number, task: string, component: string, unit: "step"|"tokens",
 *   scale: "auto"|"log"|"linear"|"even", definition: string, clock: string, edges: string, table: string, filter: string,
 *   here: boolean, theme: string, open: string, span: string, view: string, what: string,
 *   heads: string, runs: string, each: string, notes: string} & Record<string, any>} State
 */

/** @typedef {(state: State, changed: Set<string>) => void} Listener */

/**
 * A value that tells its listeners what changed.
 * @param {State} initial
 */
export function makeStore(initial) {
  /** @type {Listener[]} */
  const listeners = [];
  const store = {
    state: { ...initial },
    /** @param {Partial<State>} part */
    set(part) {
      const changed = new Set(Object.keys(part).filter((key) => part[key] !== store.state[key]));
      if (!changed.size) return;
      store.state = { ...store.state, ...part };
      for (const listener of listeners) listener(store.state, changed);
    },
    /** @param {Listener} listener */
    listen(listener) {
      listeners.push(listener);
    },
  };
  return store;
}

/** @typedef {ReturnType<typeof makeStore>} Store */

/** Only what differs from the view a page opens with. @param {State} state @param {State} initial */
export function toFragment(state, initial) {
  const parts = new URLSearchParams();
  for (const key of Object.keys(initial))
    if (state[key] !== initial[key]) parts.set(key, String(state[key]));
  return parts.toString();
}

/** @param {string} fragment @param {State} initial @returns {State} */
export function fromFragment(fragment, initial) {
  const parts = new URLSearchParams(fragment.replace(/^#/, ""));
  const state = { ...initial };
  for (const [key, text] of parts) {
    if (!(key in initial)) continue;
    const like = initial[key];
    const value = typeof like === "number" ? Number(text) : typeof like === "boolean" ? text === "true" : text;
    if (typeof like !== "number" || Number.isFinite(value)) state[key] = value;
  }
  return state;
}
