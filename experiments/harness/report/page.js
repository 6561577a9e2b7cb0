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
      threshold: { stroke: soft, strokeDash: [4, 3], strokeWidth: 1.2 },
      "threshold-label": { fill: soft, align: "left", baseline: "bottom", dy: -3, fontSize: 11 },
      contour: { stroke: soft, strokeWidth: 0.8, opacity: 0.7 },
      spot: { filled: true, fill: value("--card"), stroke: ink, strokeWidth: 1.2, opacity: 1 },
      "spot-label": { fill: ink, fontWeight: 600 },
      edge: { stroke: soft }, node: { filled: true, fill: value("--card"), stroke: ink, opacity: 1 },
    },
  };
}

// Format numbers as 10,000 and 1·10⁻⁵, not as 1e+4 and 1e-5.
function figure(value) {
  if (typeof value !== "number") return `${value}`;
  if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-3)) {
    const [mantissa, exponent] = value.toExponential(3).split("e");
    const raised = `${+exponent}`.replace(/./g, (digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(digit)]);
    const short = +mantissa;
    return `${Math.abs(short) === 1 ? (short < 0 ? "−" : "") : `${short}·`.replace("-", "−")}10${raised}`;
  }
  return (+value.toPrecision(4)).toLocaleString("en-US", { maximumFractionDigits: 6 }).replace("-", "−");
}

// Vega-Lite writes a mark's colour into the chart, where a named style can't change it: write the style's colour there.
function applyStyles(part, styles) {
  if (Array.isArray(part)) part.forEach((one) => applyStyles(one, styles));
  else if (part && typeof part === "object") {
    if (part.format === ".4~g") Object.assign(part, { formatType: "figure", format: "" });
    if (part.mark?.style in styles) Object.assign(part.mark, styles[part.mark.style], part.mark.size ? { size: part.mark.size } : {});
    for (const [name, inner] of Object.entries(part)) if (name !== "data" && name !== "datasets") applyStyles(inner, styles);
  }
}

async function draw(chart) {
  const specification = JSON.parse(chart.nextElementSibling.textContent);
  const config = chartConfig();
  specification.description = chart.getAttribute("aria-label");
  applyStyles(specification, config.style);
  try {
    await vegaEmbed(chart, specification, {
      renderer: "svg", actions: false, config, tooltip: { theme: "funcnn" }, expressionFunctions: { figure },
    });
    chart.dataset.drawn = "yes";
  } catch (error) {
    chart.textContent = `This picture can't be drawn: ${error.message}`;
    console.error(error);
  }
}

async function drawAll() {
  for (const chart of document.querySelectorAll(".chart")) {
    await draw(chart);
    await new Promise((rest) => setTimeout(rest));
  }
  root.dataset.drawn = "yes";
}

function setTheme(theme) {
  root.dataset.theme = theme;
  return drawAll();
}

document.getElementById("theme").addEventListener("click", () => {
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  storage.set(theme);
  setTheme(theme);
});
prefersDark.addEventListener("change", () => { if (!storage.get()) setTheme(prefersDark.matches ? "dark" : "light"); });

for (const button of document.querySelectorAll(".filters button")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll(".filters button")) other.setAttribute("aria-pressed", other === button);
    for (const row of document.querySelectorAll("tr[data-verdict]")) {
      row.hidden = button.dataset.show !== "all" && row.dataset.verdict !== button.dataset.show;
    }
    for (const body of document.querySelectorAll(".claims tbody")) {
      body.hidden = ![...body.querySelectorAll("tr[data-verdict]")].some((row) => !row.hidden);
    }
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
