"use strict";
const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const storage = { get: () => { try { return localStorage.theme; } catch { return undefined; } },
               set: (value) => { try { localStorage.theme = value; } catch { /* a local file without storage */ } } };

// Charts name no colours: all come from the page, which is light or dark.
function chartConfig() {
  const style = getComputedStyle(root), value = (name) => style.getPropertyValue(name).trim();
  const ink = value("--ink"), soft = value("--soft"), grid = value("--grid"), series = value("--series").split(" ");
  const font = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
  const [low, high] = [value("--low"), value("--high")];
  return {
    background: null, font, padding: 2, view: { stroke: null }, customFormatTypes: true,
    axis: { labelColor: soft, titleColor: soft, gridColor: grid, domainColor: soft, tickColor: soft, labelFontSize: 11,
            titleFontSize: 12, titleFontWeight: 500, titlePadding: 8, labelFont: font, titleFont: font },
    legend: { labelColor: ink, titleColor: soft, labelFontSize: 12, titleFontSize: 11, titleFontWeight: 500, offset: 18 },
    range: { category: series, heatmap: [low, high], ramp: [low, high], ordinal: { scheme: "viridis" },
             diverging: [series[1], low, series[0]] },
    line: { strokeWidth: 2, color: series[0] }, point: { color: series[0] }, bar: { color: series[0] },
    area: { color: series[0] }, rule: { color: series[0] }, text: { color: ink, font }, arc: { color: series[0] },
    style: {
      threshold: { stroke: soft, strokeWidth: 1.2 },
      "cell-label": { fill: ink, fontSize: 11 },
      "cell-label-strong": { fill: value("--card"), fontSize: 11 },
      contour: { stroke: soft, strokeWidth: 0.8, opacity: 0.7 },
      spot: { filled: true, fill: value("--card"), stroke: ink, strokeWidth: 1.2, opacity: 1 },
      "spot-label": { fill: ink, fontWeight: 600 },
      "spot-halo": { fill: value("--card"), stroke: value("--card"), strokeWidth: 4, fontWeight: 600 },
      edge: { stroke: soft }, node: { filled: true, fill: value("--card"), stroke: ink, opacity: 1 },
    },
  };
}

const raised = (exponent) => `${exponent}`.replace(/./g, (digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(digit)]);

// Format powers of ten as 10⁻³, and 1 and 10 as they are.
function power(value) {
  const exponent = Math.round(Math.log10(value));
  return exponent === 0 || exponent === 1 ? `${value}` : `10${raised(exponent)}`;
}

// Format numbers as 10,000 and 1·10⁻⁵, not as 1e+4 and 1e-5.
function figure(value) {
  if (typeof value !== "number") return `${value}`;
  if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-3)) {
    const [mantissa, exponent] = value.toExponential(3).split("e");
    const short = +mantissa;
    return `${Math.abs(short) === 1 ? (short < 0 ? "−" : "") : `${short}·`.replace("-", "−")}10${raised(+exponent)}`;
  }
  return (+value.toPrecision(4)).toLocaleString("en-US", { maximumFractionDigits: 6 }).replace("-", "−");
}

// Vega-Lite writes a mark's colour into the chart, where a named style can't change it: write the style's colour there.
function applyStyles(part, styles) {
  if (Array.isArray(part)) part.forEach((one) => applyStyles(one, styles));
  else if (part && typeof part === "object") {
    if (part.format === ".4~g") Object.assign(part, { formatType: "figure", format: "" });
    if (part.format === ".0e") Object.assign(part, { formatType: "power", format: "" });
    if (part.mark?.style in styles) Object.assign(part.mark, styles[part.mark.style], part.mark.size ? { size: part.mark.size } : {});
    for (const [name, inner] of Object.entries(part)) if (name !== "data" && name !== "datasets") applyStyles(inner, styles);
  }
}

// The charts and the library that draws them travel compressed.
async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

async function prepare() {
  const script = document.createElement("script");
  script.textContent = await unpack("vega");
  document.head.append(script);
  return JSON.parse(await unpack("charts"));
}

const prepared = prepare();

async function draw(chart) {
  try {
    const specification = structuredClone((await prepared)[chart.dataset.specification]);
    const config = chartConfig();
    specification.description = chart.getAttribute("aria-label");
    applyStyles(specification, config.style);
    await vegaEmbed(chart, specification, {
      renderer: "svg", actions: false, config, tooltip: { theme: "funcnn" }, expressionFunctions: { figure, power },
    });
    chart.dataset.drawn = "yes";
  } catch (error) {
    chart.textContent = `This picture can't be drawn: ${error.message}`;
    chart.dataset.drawn = "failed";
    console.error(error);
  }
}

// Charts inside folded parts are drawn when their part is opened.
async function drawOpen() {
  for (;;) {
    const chart = [...document.querySelectorAll(".chart:not([data-drawn])")].find((one) => !one.closest("details:not([open])"));
    if (!chart) break;
    await draw(chart);
    await new Promise((rest) => setTimeout(rest));
  }
  root.dataset.drawn = "yes";
}

let drawing = Promise.resolve();
function drawNext() {
  delete root.dataset.drawn;
  drawing = drawing.then(drawOpen);
}

function setTheme(theme) {
  root.dataset.theme = theme;
  for (const chart of document.querySelectorAll(".chart[data-drawn]")) delete chart.dataset.drawn;
  drawNext();
}

for (const part of document.querySelectorAll("main details")) {
  part.addEventListener("toggle", () => { if (part.open && part.querySelector(".chart:not([data-drawn])")) drawNext(); });
}

function openAround(target) {
  for (let part = target?.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
}

function followHash() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.closest("main")) {
    openAround(target);
    target.scrollIntoView();
  }
}
addEventListener("hashchange", followHash);
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("main details")) part.open = true; });

document.getElementById("theme").addEventListener("click", () => {
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  storage.set(theme);
  setTheme(theme);
});
prefersDark.addEventListener("change", () => { if (!storage.get()) setTheme(prefersDark.matches ? "dark" : "light"); });

const search = document.getElementById("search");
let shown = "all";

function filterClaims() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), narrowed = words.length > 0 || shown !== "all";
  let count = 0;
  for (const part of document.querySelectorAll("details.section")) {
    let found = 0;
    for (const row of part.querySelectorAll("tr[data-verdict]")) {
      // An equation is searched for as it is written in plain text.
      const equations = [...row.querySelectorAll("math")].map((one) => one.getAttribute("alttext"));
      const text = [row.textContent, ...equations].join(" ").toLowerCase();
      row.hidden = (shown !== "all" && row.dataset.verdict !== shown) || !words.every((word) => text.includes(word));
      found += !row.hidden;
    }
    part.hidden = found === 0;
    part.open = narrowed && found > 0;
    count += found;
  }
  document.getElementById("found").textContent = narrowed ? `${count} claims` : "";
}

search.addEventListener("input", filterClaims);
for (const button of document.querySelectorAll(".filters button")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll(".filters button")) other.setAttribute("aria-pressed", other === button);
    shown = button.dataset.show;
    filterClaims();
  });
}
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "copied";
  });
}
const contents = document.querySelector("nav details");
document.addEventListener("click", (event) => { if (!contents.contains(event.target) || event.target.closest("nav a")) contents.open = false; });

setTheme(storage.get() ?? (prefersDark.matches ? "dark" : "light"));
followHash();
