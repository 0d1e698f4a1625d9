"use strict";
// How figures are written, and elements made: texts go in as text, never as HTML.

function size(bytes) {
  let value = Math.abs(bytes) / 1024;
  let unit = "KiB";
  for (const larger of ["MiB", "GiB", "TiB"]) {
    if (value < 999.5) break;
    value /= 1024;
    unit = larger;
  }
  const digits = unit === "KiB" || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${bytes < 0 ? "-" : ""}${value.toFixed(digits)} ${unit}`;
}

function duration(seconds) {
  for (const [unit, length] of [
    ["d", 86400],
    ["h", 3600],
    ["min", 60],
  ]) {
    if (seconds >= 2 * length) return `${Math.round(seconds / length)} ${unit}`;
  }
  return `${Math.round(seconds)} s`;
}

const dateFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const date = (seconds) => dateFormat.format(new Date(seconds * 1000));
const number = (value) => value.toLocaleString("en");
const plural = (value) => (value === 1 ? "" : "s");

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}
