// @ts-check
// How much room is there to draw in, how much text fits, and which colour shows on this ground?

/** Pixels for a drawing inside an element. @param {HTMLElement} element */
export function innerWidthOf(element) {
  const style = getComputedStyle(element);
  return Math.max(280, Math.floor(element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)));
}

/** A colour that is lifted towards white on dark ground. @param {string} colour */
export const lifted = (colour) => (colour.startsWith("#") ? `color-mix(in oklab, ${colour}, white var(--lift))` : colour);

/** As many words as fit; one word that is too long is cut in its middle, so that both its ends are read. @param {string} text @param {number} letters */
export function clipped(text, letters) {
  if (text.length <= letters) return text;
  const room = Math.max(2, Math.floor(letters) - 1);
  const words = /^(.*)[\s·,;]+\S*$/s.exec(text.slice(0, room + 1))?.[1] ?? "";
  if (words.trim().length > room / 3) return `${words.trimEnd()} …`;
  return `${text.slice(0, Math.ceil(room / 2))}…${text.slice(text.length - Math.floor(room / 2))}`;
}

/** A list in one text, with or without a name. @param {string} list @param {string} name */
export function toggled(list, name) {
  const names = list.split("|").filter(Boolean);
  return (names.includes(name) ? names.filter((one) => one !== name) : [...names, name]).join("|");
}
