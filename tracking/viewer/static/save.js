// @ts-check
// How does what is seen leave the page: as a drawing, a picture, a table, or text to paste?

/** What a drawing takes from the page's style, and has to carry itself outside of it. */
const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "opacity", "font-family", "font-size", "font-weight", "text-anchor", "paint-order", "visibility", "display"];

/** Rows as comma-separated text. @param {string[]} columns @param {any[][]} rows */
export function commaSeparated(columns, rows) {
  return separated(columns, rows, ",");
}

/** Rows as tab-separated text, which spreadsheets take. @param {string[]} columns @param {any[][]} rows */
export function tabSeparated(columns, rows) {
  return separated(columns, rows, "\t");
}

/** Texts that a spreadsheet would run as a formula get an apostrophe. @param {string[]} columns @param {any[][]} rows @param {string} mark */
function separated(columns, rows, mark) {
  const safe = (/** @type {any} */ value) => (typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? ""));
  const quoted = (/** @type {string} */ text) => (/["\n\r]/.test(text) || text.includes(mark) ? `"${text.replaceAll('"', '""')}"` : text);
  return [columns, ...rows].map((row) => row.map((cell) => quoted(safe(cell))).join(mark)).join("\n") + "\n";
}

/** Give a file to whoever looks at the page. @param {string} name @param {string} kind @param {BlobPart} content */
export function download(name, kind, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: kind }));
  link.download = name.replace(/[^\w.-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** A drawing that stands by itself: its styles are written into it. @param {SVGSVGElement} svg */
export function standalone(svg) {
  const copy = /** @type {SVGSVGElement} */ (svg.cloneNode(true));
  const [from, to] = [[svg, ...svg.querySelectorAll("*")], [copy, ...copy.querySelectorAll("*")]];
  from.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of STYLES) to[i].setAttribute(name, style.getPropertyValue(name));
    for (const name of ["style", "class", "tabindex", "role", "data-tip"]) to[i].removeAttribute(name);
  });
  const { width, height } = svg.getBoundingClientRect();
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const colour = getComputedStyle(svg.closest(".formation") ?? svg).getPropertyValue("--panel");
  for (const [name, value] of [["width", "100%"], ["height", "100%"], ["fill", colour]]) ground.setAttribute(name, value);
  copy.prepend(ground);
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

/** Save a drawing as SVG or, at twice its size, as PNG. @param {SVGSVGElement} svg @param {string} name @param {"svg"|"png"} kind */
export async function saveDrawing(svg, name, kind) {
  const { text, width, height } = standalone(svg);
  if (kind === "svg") return download(`${name}.svg`, "image/svg+xml", text);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * width, 2 * height];
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => blob && download(`${name}.png`, "image/png", blob));
}

/**
 * Buttons that save the drawing of a panel.
 * @param {any} root where they stand
 * @param {() => SVGSVGElement|null} drawing
 * @param {() => string} name
 * @param {(() => [string[], any[][]])|null} table what is drawn, as columns and rows
 */
export function saveButtons(root, drawing, name, table = null) {
  const group = root.append("span").attr("class", "saves").attr("role", "group").attr("aria-label", "Save this drawing");
  for (const kind of /** @type {const} */ (["svg", "png"])) {
    const save = () => {
      const svg = drawing();
      if (svg) saveDrawing(svg, name(), kind);
    };
    group.append("button").attr("type", "button").attr("class", `quiet save-${kind}`).attr("aria-label", `Save as ${kind.toUpperCase()}`).text(kind.toUpperCase()).on("click", save);
  }
  if (table) group.append("button").attr("type", "button").attr("class", "quiet save-csv").attr("aria-label", "Save as CSV").text("CSV").on("click", () => download(`${name()}.csv`, "text/csv", commaSeparated(...table())));
}

/** Whether the text could be copied. @param {string} text */
export async function toClipboard(/** @type {string} */ text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
