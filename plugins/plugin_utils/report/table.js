"use strict";
// A table that shows a page of its rows and sorts all of them, by the mouse and by the keyboard.

const PAGE = 50;
const PAPER = 500; // rows that are printed

// A column is {title, sort: what a row is sorted by, cell: fills its cell, down: whether the largest come first}.
function makeTable(name, columns, options) {
  const table = document.getElementById(`${name}-table`);
  const counter = document.getElementById(`${name}-count`);
  const state = { rows: [], column: null, down: false, page: 0, length: PAGE };

  const headers = columns.map((column) => {
    const header = make("th", { scope: "col", className: column.className || "" });
    if (!column.sort) {
      header.append(column.title);
      return header;
    }
    const button = make("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      state.down = state.column === column ? !state.down : Boolean(column.down);
      state.column = column;
      show(state.rows);
    });
    header.append(button);
    return header;
  });
  table.tHead.append(make("tr", {}, ...headers));

  const pages = document.getElementById(`${name}-pages`);
  const where = make("span", {});
  const turn = (title, by) => {
    const button = make("button", { type: "button" }, title);
    button.addEventListener("click", () => {
      state.page += by;
      draw();
    });
    return button;
  };
  const back = turn("Previous", -1);
  const on = turn("Next", 1);
  pages.append(where, back, on);

  function draw() {
    const last = Math.max(0, Math.ceil(state.rows.length / state.length) - 1);
    state.page = Math.min(Math.max(0, state.page), last);
    const start = state.page * state.length;
    const body = state.rows.slice(start, start + state.length).map((row) => {
      const line = make("tr");
      for (const column of columns) {
        const cell = make("td", { className: column.className || "" });
        column.cell(row, cell);
        line.append(cell);
      }
      line.addEventListener("click", () => options.open(row));
      return line;
    });
    if (!body.length) {
      body.push(make("tr", {}, make("td", { colSpan: columns.length, className: "empty" }, options.nothing)));
    }
    table.tBodies[0].replaceChildren(...body);
    where.textContent = `Page ${number(state.page + 1)} of ${number(last + 1)}`;
    back.disabled = state.page === 0;
    on.disabled = state.page === last;
    pages.hidden = last === 0;
  }

  function show(rows) {
    const { column, down } = state;
    const sign = down ? -1 : 1;
    // those that are equal stay in the order of the hosts
    state.rows = column ? rows.slice().sort((a, b) => sign * (column.sort(a) - column.sort(b)) || a - b) : rows;
    state.page = 0;
    headers.forEach((header, index) => {
      if (!columns[index].sort) return;
      header.setAttribute("aria-sort", columns[index] !== column ? "none" : down ? "descending" : "ascending");
    });
    counter.textContent = options.count(rows.length);
    draw();
  }

  addEventListener("beforeprint", () => {
    state.length = PAPER;
    draw();
  });
  addEventListener("afterprint", () => {
    state.length = PAGE;
    draw();
  });

  return {
    show,
    sortBy(title) {
      state.column = columns.find((column) => column.title === title);
      state.down = Boolean(state.column.down);
    },
  };
}

// Ranks of all texts, so that sorting 20,000 rows compares numbers: web2 comes before web10.
const ranks = (() => {
  let found = null;
  return (text) => {
    if (!found) {
      const collator = new Intl.Collator("en", { numeric: true });
      found = new Uint32Array(words.length);
      words
        .map((_, index) => index)
        .sort((a, b) => collator.compare(words[a], words[b]))
        .forEach((index, rank) => {
          found[index] = rank;
        });
    }
    return found[text];
  };
})();
