"use strict";
// What the page knows: columns, in which texts are numbers, and curves of three or four characters a measurement.

const data = JSON.parse(document.getElementById("data").textContent);
const { hosts, units, words } = data;
const unitCount = units.name.length;

// which host a unit belongs to, and which is the first unit of a host
const hostOf = new Uint32Array(unitCount);
const firstUnit = new Uint32Array(hosts.name.length);
for (let host = 0, unit = 0; host < hosts.name.length; host += 1) {
  firstUnit[host] = unit;
  hostOf.fill(host, unit, unit + hosts.units[host]);
  unit += hosts.units[host];
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const VALUES = new Map([...DIGITS].map((digit, value) => [digit, value]));

// The share that two characters stand for.
const share = (text, at) => (VALUES.get(text[at]) * 64 + VALUES.get(text[at + 1])) / 4095;

const word = (number) => words[number];
const textsOf = (numbers) => (numbers ? numbers.map(word) : []);
const unitName = (unit) => word(units.name[unit]) || "Processes in no unit";
const hostName = (host) => word(hosts.name[host]);
const enabledAt = (unit) => (units.enabled[unit] === null ? null : data.time - units.enabled[unit]);

function reasonOf(unit) {
  const [text, ...figures] = textsOf(units.reason[unit]);
  return text.replace(/\{\}/g, () => figures.shift());
}

// The measurements of a unit: time and uptime in seconds, memory in bytes, and whether it ran with our jemalloc.
function historyOf(unit) {
  const found = [];
  const labels = units.labels[unit];
  let label = typeof labels === "number" ? labels : labels[1];
  let next = typeof labels === "number" ? Infinity : 2;
  const ages = units.ages[unit];
  const curve = units.curve[unit];
  let time = data.time;
  let started = 0;
  let age = 0;
  hosts.times[hostOf[unit]].forEach((later, index) => {
    time += later;
    if (index >= labels[next]) {
      label = labels[next + 1];
      next += 2;
    }
    if (curve[2 * index] === " ") return; // it was not there
    if (ages[age] === ".") {
      age += 1;
    } else {
      started = time - Math.expm1(share(ages, age) * Math.log1p(data.longest));
      age += 2;
    }
    const memory = share(curve, 2 * index) * units.most[unit] * 1024;
    found.push({ time, uptime: time - started, memory, label: word(label), enabled: data.sides[label] });
  });
  return found;
}
