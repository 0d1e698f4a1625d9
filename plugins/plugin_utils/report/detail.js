"use strict";
// One unit: what the measurements say of it, its curves, what is known of it, and the measurements as a table.

const dialog = document.getElementById("detail");
let drawn = [];
let shown = null;

const CLASSES = { saves: "saves", costs: "costs", "no difference": "same", "too thin": "thin", off: "off" };

function chipOf(unit) {
  const verdict = word(units.verdict[unit]);
  if (verdict === "off") return null;
  const share = Math.abs(units.saving[unit]);
  const text = verdict === "saves" || verdict === "costs" ? `${verdict} ${share} %` : verdict;
  return make("span", { className: `chip chip-${CLASSES[verdict]}` }, text);
}

function list(title, texts) {
  if (!texts.length) return [];
  return [make("h3", {}, title), make("ul", {}, ...texts.map((text) => make("li", {}, text)))];
}

function facts(unit) {
  const pairs = [
    ["Runs with", word(units.allocator[unit]) || "unknown"],
    ["Configured", word(units.configured[unit]) ? `jemalloc ${word(units.configured[unit])}` : "nothing"],
    ["Memory", size(units.memory[unit] * 1024)],
    ["Resident", size(units.rss[unit] * 1024)],
    ["Swapped out", units.swap[unit] ? size(units.swap[unit] * 1024) : "nothing"],
    ["Uptime", duration(units.uptime[unit])],
    ["Processes, threads", `${number(units.processes[unit])}, ${number(units.threads[unit])}`],
    ["Scope", word(units.scope[unit])],
    ["Container", word(units.container[unit])],
    ["Settings", word(units.malloc_conf[unit])],
  ];
  const kept = pairs.filter(([, value]) => value);
  return make(
    "dl",
    { className: "facts" },
    ...kept.map(([k, v]) => make("div", {}, make("dt", {}, k), make("dd", {}, v))),
  );
}

function measurements(points) {
  const head = ["Time", "Uptime", "Memory", "Allocator"].map((title) => make("th", { scope: "col" }, title));
  const rows = points.map((point) => {
    const cells = [date(point.time), duration(point.uptime), size(point.memory), point.label];
    return make("tr", {}, ...cells.map((text) => make("td", {}, text)));
  });
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows.reverse()));
  return make("details", {}, make("summary", {}, `Measurements (${points.length})`), table);
}

function figure(title, label) {
  const place = make("div", { className: "chart", role: "img", ariaLabel: label });
  const readout = make("p", { className: "readout" });
  return { place, readout, whole: make("div", {}, make("h3", {}, title), place, readout) };
}

function curves(unit, points) {
  for (const plot of drawn) plot.destroy();
  const charts = dialog.querySelector(".charts");
  const over = figure(
    "Memory over time",
    `Memory of ${unitName(unit)} over time, from ${points.length} measurements.`,
  );
  const by = figure("Memory by uptime", `${reasonOf(unit)} The curves show memory by uptime.`);
  if (points.length < 2) {
    charts.replaceChildren(
      make("p", { className: "readout" }, "One measurement is no curve; each run of the report adds one."),
    );
    drawn = [];
    return;
  }
  const both = points.some((point) => sideOf(point) !== "neither");
  charts.replaceChildren(over.whole, ...(both ? [by.whole] : []));
  drawn = [chartOverTime(over.place, over.readout, points, enabledAt(unit))];
  if (both) drawn.push(chartByUptime(by.place, by.readout, points));
}

function openUnit(unit) {
  const points = historyOf(unit);
  const close = make("button", { type: "button", className: "close" }, "Close");
  close.addEventListener("click", () => dialog.close());
  const title = make(
    "div",
    {},
    make("h2", { id: "detail-title" }, unitName(unit)),
    make("p", {}, hostName(hostOf[unit])),
  );
  const chip = chipOf(unit);
  const sides = SIDES.filter((side) => points.some((point) => sideOf(point) === side));
  const legend = sides.map((side) => make("span", {}, make("i", { className: `swatch-${side}` }), TITLES[side]));
  dialog.replaceChildren(
    make("header", {}, title, close),
    make("p", { className: "reason" }, ...(chip ? [chip, " "] : []), reasonOf(unit)),
    make("div", { className: "legend" }, ...legend),
    make("div", { className: "charts" }),
    facts(unit),
    ...list("Drift", textsOf(units.drift[unit])),
    ...list("Candidate", [word(units.candidate[unit])].filter(Boolean)),
    measurements(points),
  );
  shown = { unit, points };
  dialog.showModal();
  if (points.length) curves(unit, points);
}

function redraw() {
  if (dialog.open && shown.points.length) curves(shown.unit, shown.points);
}

addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // the backdrop
});
