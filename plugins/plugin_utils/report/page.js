"use strict";
// Puts the parts together: the figures at the top, the two tables, search and filter, and the colour scheme.

const hasVerdict = (verdict) => (unit) => word(units.verdict[unit]) === verdict;
const FILTERS = [
  ["all", "All units", () => true],
  ["with", "With jemalloc", (unit) => data.sides[units.allocator[unit]] === true],
  ["without", "Without jemalloc", (unit) => data.sides[units.allocator[unit]] === false],
  ["saves", "Saves memory", hasVerdict("saves")],
  ["costs", "Costs memory", hasVerdict("costs")],
  ["same", "No difference", hasVerdict("no difference")],
  ["thin", "Evidence too thin", hasVerdict("too thin")],
  ["off", "Never with jemalloc", hasVerdict("off")],
  ["drift", "Drift", (unit) => units.drift[unit] !== 0],
  ["candidates", "Candidates", (unit) => units.candidate[unit] !== 0],
];
const tests = Object.fromEntries(FILTERS.map(([name, , test]) => [name, test]));
const query = document.getElementById("query");
const filter = document.getElementById("filter");
filter.append(...FILTERS.map(([value, title]) => make("option", { value }, title)));

const everyUnit = Array.from({ length: unitCount }, (_, unit) => unit);
const everyHost = Array.from({ length: hosts.name.length }, (_, host) => host);

// Every term has to be in some text of a unit. Texts are looked through once, and not once for each unit.
function matching(text) {
  const terms = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = terms.map((term) => words.map((one) => one.toLowerCase().includes(term)));
  const columns = [units.name, units.allocator, units.configured, units.scope, units.container];
  return (unit) => found.every((has) => has[hosts.name[hostOf[unit]]] || columns.some((column) => has[column[unit]]));
}

function chips(unit) {
  const found = [];
  if (units.drift[unit]) found.push(make("span", { className: "chip chip-bad" }, "drift"));
  if (units.candidate[unit]) found.push(make("span", { className: "chip chip-warn" }, "candidate"));
  return found;
}

const unitsTable = makeTable(
  "units",
  [
    {
      title: "Unit",
      sort: (unit) => ranks(units.name[unit]),
      cell: (unit, cell) => {
        cell.append(make("button", { type: "button", className: "open" }, unitName(unit)));
        if (units.container[unit]) {
          cell.append(make("span", { className: "place" }, `container ${word(units.container[unit])}`));
        }
        cell.append(make("span", { className: "under" }, hostName(hostOf[unit])));
      },
    },
    {
      title: "Host",
      className: "middle wrap",
      sort: (unit) => ranks(hosts.name[hostOf[unit]]),
      cell: (unit, cell) => cell.append(hostName(hostOf[unit])),
    },
    {
      title: "Runs with",
      className: "middle",
      sort: (unit) => ranks(units.allocator[unit]),
      cell: (unit, cell) => cell.append(word(units.allocator[unit]) || "unknown"),
    },
    {
      title: "Memory",
      className: "number",
      down: true,
      sort: (unit) => units.memory[unit],
      cell: (unit, cell) => cell.append(size(units.memory[unit] * 1024)),
    },
    { title: "Over time", className: "wide", cell: (unit, cell) => cell.append(sparkline(unit)) },
    {
      title: "Uptime",
      className: "number wide",
      down: true,
      sort: (unit) => units.uptime[unit],
      cell: (unit, cell) => cell.append(duration(units.uptime[unit])),
    },
    {
      title: "Saved",
      className: "number middle",
      down: true,
      sort: (unit) => units.saved[unit],
      cell: (unit, cell) => cell.append(units.saved[unit] ? size(units.saved[unit] * 1024) : "\u2013"),
    },
    {
      title: "Result",
      down: true,
      sort: (unit) => units.saving[unit],
      cell: (unit, cell) => cell.append(...[chipOf(unit), ...chips(unit)].filter(Boolean)),
    },
  ],
  {
    open: openUnit,
    nothing: "No unit is like that.",
    count: (found) => `${number(found)} of ${number(unitCount)} unit${plural(unitCount)}`,
  },
);

const sumOf = (host) => {
  const start = firstUnit[host];
  return units.memory.slice(start, start + hosts.units[host]).reduce((sum, value) => sum + value, 0);
};

const hostsTable = makeTable(
  "hosts",
  [
    {
      title: "Host",
      sort: (host) => ranks(hosts.name[host]),
      cell: (host, cell) => {
        cell.className = "wrap";
        cell.append(make("button", { type: "button", className: "open" }, hostName(host)));
      },
    },
    {
      title: "Current",
      sort: (host) => ranks(hosts.current[host]),
      cell: (host, cell) => cell.append(word(hosts.current[host]) || "\u2013"),
    },
    {
      title: "Releases",
      className: "wide",
      cell: (host, cell) => cell.append(textsOf(hosts.releases[host]).join(", ")),
    },
    {
      title: "Preloaded for",
      className: "middle wrap",
      cell: (host, cell) => cell.append(textsOf(hosts.scopes[host]).join(", ") || "nothing"),
    },
    {
      title: "Units",
      className: "number middle",
      down: true,
      sort: (host) => hosts.units[host],
      cell: (host, cell) => cell.append(number(hosts.units[host])),
    },
    {
      title: "Memory",
      className: "number",
      down: true,
      sort: sumOf,
      cell: (host, cell) => cell.append(size(sumOf(host) * 1024)),
    },
    {
      title: "Notes",
      className: "wrap",
      down: true,
      sort: (host) => (hosts.unread[host] ? 1000 : hosts.notes[host].length),
      cell: (host, cell) => {
        if (hosts.unread[host])
          cell.append(make("span", { className: "chip chip-bad" }, "not read"), word(hosts.unread[host]));
        else cell.append(textsOf(hosts.notes[host]).join(" "));
      },
    },
  ],
  { open: openHost, nothing: "There is no host.", count: (found) => `${number(found)} host${plural(found)}` },
);

function showUnits() {
  const test = tests[filter.value];
  const match = matching(query.value);
  unitsTable.show(everyUnit.filter((unit) => test(unit) && match(unit)));
}

function openHost(host) {
  query.value = hostName(host);
  filter.value = "all";
  selectTab("units");
  showUnits();
  query.focus();
}

const TABS = ["units", "hosts"];
function selectTab(name) {
  for (const tab of TABS) {
    const button = document.getElementById(`tab-${tab}`);
    button.setAttribute("aria-selected", String(tab === name));
    button.tabIndex = tab === name ? 0 : -1;
    document.getElementById(tab).hidden = tab !== name;
  }
}
for (const tab of TABS) {
  const button = document.getElementById(`tab-${tab}`);
  button.addEventListener("click", () => selectTab(tab));
  button.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = TABS[1 - TABS.indexOf(tab)];
    selectTab(other);
    document.getElementById(`tab-${other}`).focus();
  });
}

const counts = Object.fromEntries(FILTERS.map(([name, , test]) => [name, everyUnit.filter(test).length]));

function choose(name) {
  filter.value = name;
  query.value = "";
  selectTab("units");
  showUnits();
  document.getElementById("units").scrollIntoView();
}

function tile(value, title, then) {
  const inside = [make("b", {}, value), make("span", {}, title)];
  if (!then) return make("div", { className: "tile" }, ...inside);
  const button = make("button", { type: "button", className: "tile" }, ...inside);
  button.addEventListener("click", then);
  return button;
}

const unread = everyHost.filter((host) => hosts.unread[host]).length;
document.getElementById("tiles").append(
  tile(
    number(hosts.name.length),
    `host${plural(hosts.name.length)}${unread ? `, ${number(unread)} not read` : ""}`,
    () => selectTab("hosts"),
  ),
  tile(number(unitCount), `unit${plural(unitCount)}`, () => choose("all")),
  tile(size(units.memory.reduce((sum, value) => sum + value, 0) * 1024), "in use now"),
  tile(number(counts.with), "with jemalloc", () => choose("with")),
  tile(number(counts.drift), "with drift", () => choose("drift")),
  tile(number(counts.candidates), `candidate${plural(counts.candidates)}`, () => choose("candidates")),
);

const PARTS = [
  ["saves", "save memory"],
  ["same", "no difference"],
  ["costs", "take more"],
  ["thin", "too thin to say"],
  ["off", "never with jemalloc"],
];
const strip = make("div", { className: "strip", ariaHidden: "true" });
const key = make("ul", { className: "key" });
for (const [name, title] of PARTS.filter(([name]) => counts[name])) {
  const part = make("i", { className: `tone-${name}` });
  part.style.flexGrow = counts[name];
  strip.append(part);
  key.append(
    make("li", {}, make("i", { className: `tone-${name}` }), make("b", {}, number(counts[name])), ` ${title}`),
  );
}
document.getElementById("verdicts").append(strip, key);

const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.style.colorScheme || (dark.matches ? "dark" : "light")) === "dark";
const nameTheme = () => (theme.textContent = isDark() ? "Light" : "Dark");
theme.addEventListener("click", () => {
  document.documentElement.style.colorScheme = isDark() ? "light" : "dark";
  nameTheme();
  redraw();
});
dark.addEventListener("change", nameTheme);
nameTheme();

let waiting = 0;
query.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(showUnits, 80);
});
filter.addEventListener("change", showUnits);
query.form.addEventListener("submit", (event) => event.preventDefault());

unitsTable.sortBy(units.saved.some(Boolean) ? "Saved" : "Memory");
showUnits();
hostsTable.sortBy("Host");
hostsTable.show(everyHost);
