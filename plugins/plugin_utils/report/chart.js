"use strict";
// The curves: small ones in the table as SVG, large ones by uPlot, over time and by uptime.

const SIDES = ["before", "after", "neither"];
const TITLES = { before: "Without jemalloc", after: "With jemalloc", neither: "Partly, or another jemalloc" };
const sideOf = (point) => (point.enabled === true ? "after" : point.enabled === false ? "before" : "neither");
const STEPS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 21600, 43200, 86400].concat(
  [2, 5, 7, 14, 30, 60, 90, 180, 365, 730].map((days) => days * 86400),
);

function sparkline(unit) {
  const points = historyOf(unit);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 28");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  if (points.length < 2) return svg;
  const from = points[0].time;
  const whole = points[points.length - 1].time - from || 1;
  const most = Math.max(...points.map((point) => point.memory)) || 1;
  const place = (point) =>
    `${(((point.time - from) / whole) * 100).toFixed(1)} ${(27 - (point.memory / most) * 26).toFixed(1)}`;
  for (let start = 0; start < points.length;) {
    let end = start + 1;
    while (end < points.length && points[end].enabled === points[start].enabled) end += 1;
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", `line-${sideOf(points[start])}`);
    path.setAttribute("d", `M${points.slice(start, end).map(place).join("L")}${end === start + 1 ? "h.1" : ""}`);
    svg.append(path);
    start = end;
  }
  return svg;
}

// A canvas knows no custom properties, so an element has to resolve them.
function colour(name) {
  const probe = document.body.appendChild(make("i"));
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function marker(moment) {
  return {
    hooks: {
      draw: (plot) => {
        const { left, top, width, height } = plot.bbox;
        const x = Math.round(plot.valToPos(moment, "x", true));
        if (x < left || x > left + width) return;
        const { ctx } = plot;
        const right = x < left + width / 2;
        ctx.save();
        ctx.strokeStyle = ctx.fillStyle = colour("text");
        ctx.lineWidth = devicePixelRatio;
        ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
        ctx.beginPath();
        ctx.moveTo(x, top);
        ctx.lineTo(x, top + height);
        ctx.stroke();
        ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
        ctx.textAlign = right ? "left" : "right";
        ctx.textBaseline = "top";
        ctx.fillText("jemalloc enabled", x + (right ? 6 : -6) * devicePixelRatio, top + 2);
        ctx.restore();
      },
    },
  };
}

function axes(horizontal) {
  const common = { stroke: colour("quiet"), font: "12px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: colour("line"), width: 1 };
  const powers = Array.from({ length: 40 }, (_, power) => 1024 * 2 ** power);
  return [
    { ...common, grid: { show: false }, ...horizontal },
    {
      ...common,
      grid,
      size: 72,
      incrs: powers,
      space: 36,
      values: (_, values) => values.map((v) => (v ? size(v) : "0")),
    },
  ];
}

// Draws a chart into its place; lines are {side, values, dots: whether there is no line}.
function draw(place, readout, xs, lines, { time, horizontal, plugins, say }) {
  const plot = new uPlot(
    {
      width: place.clientWidth || 480,
      height: 240,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { x: { time }, y: { range: (_, _low, high) => [0, (high || 1) * 1.08] } },
      axes: axes(horizontal),
      series: [
        {},
        ...lines.map((line) => ({
          stroke: colour(line.side),
          width: line.dots ? 0 : 2,
          dash: line.side === "before" ? [6, 4] : undefined,
          spanGaps: !line.gaps,
          points: { show: line.dots || line.values.length < 60, size: line.dots ? 5 : 4, fill: colour(line.side) },
        })),
      ],
      plugins,
      hooks: {
        setCursor: [(chart) => (readout.textContent = chart.cursor.idx == null ? "" : say(chart.cursor.idx))],
      },
    },
    [xs, ...lines.map((line) => line.values)],
    place,
  );
  return plot;
}

function chartOverTime(place, readout, points, moment) {
  const lines = SIDES.map((side) => ({
    side,
    gaps: true,
    values: points.map((point) => (sideOf(point) === side ? point.memory : null)),
  })).filter((line) => line.values.some((value) => value !== null));
  return draw(
    place,
    readout,
    points.map((point) => point.time),
    lines,
    {
      time: true,
      plugins: moment === null ? [] : [marker(moment)],
      say: (index) => `${date(points[index].time)}: ${size(points[index].memory)}, ${points[index].label}`,
    },
  );
}

// The middle of what was measured at equal uptimes, in steps as the comparison has them.
function middles(points) {
  const groups = new Map();
  for (const point of points) {
    const step = Math.floor(Math.log(Math.max(point.uptime, 1)) / Math.log(1.25));
    groups.set(step, [...(groups.get(step) || []), point]);
  }
  const median = (values) => {
    const sorted = values.sort((a, b) => a - b);
    return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
  };
  return [...groups.values()]
    .map((group) => [median(group.map((point) => point.uptime)), median(group.map((point) => point.memory))])
    .sort((a, b) => a[0] - b[0]);
}

function chartByUptime(place, readout, points) {
  const sides = ["before", "after"].filter((side) => points.some((point) => sideOf(point) === side));
  const tables = sides.flatMap((side) => {
    const mine = points.filter((point) => sideOf(point) === side).sort((a, b) => a.uptime - b.uptime);
    const middle = middles(mine);
    const dots = new Map(mine.map((point) => [point.uptime, point.memory]));
    return [
      [[...dots.keys()], [...dots.values()]],
      [middle.map((pair) => pair[0]), middle.map((pair) => pair[1])],
    ];
  });
  if (!tables.length) return null;
  const [xs, ...values] = uPlot.join(tables);
  const lines = values.map((column, index) => ({ side: sides[index >> 1], dots: index % 2 === 0, values: column }));
  return draw(place, readout, xs, lines, {
    time: false,
    plugins: [],
    horizontal: { incrs: STEPS, space: 64, values: (_, found) => found.map((value) => duration(value)) },
    say: (index) => {
      const said = lines.filter((line) => line.values[index] != null && line.dots);
      return said
        .map(
          (line) => `After ${duration(xs[index])}: ${size(line.values[index])}, ${TITLES[line.side].toLowerCase()}`,
        )
        .join("; ");
    },
  });
}
