
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const get = (id) => document.getElementById(id);
  const data = JSON.parse(get("data").textContent);
  const none = "–";
  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const tenth = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1, minimumFractionDigits: 1 });
  const count = (v) => (v === null ? none : whole.format(v));
  const share = (v) => (v === null ? none : v.toFixed(3));
  const chance = (v) => (v === null ? none : v === 0 || v >= 0.0005 ? (v === 0 ? "0" : v.toFixed(3)) : v.toExponential(1));
  const announce = (text) => { get("announce").textContent = text; };

  // Light or dark: the system decides until the button is used. Storage is closed to sandboxed frames, hence the guards.
  const remembered = () => { try { return localStorage.getItem("evenhand-theme"); } catch { return null; } };
  const remember = (theme) => { try { localStorage.setItem("evenhand-theme", theme); } catch { /* not kept */ } };
  const button = get("theme");
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => { button.setAttribute("aria-pressed", String(isDark())); };
  if (remembered() === "dark" || remembered() === "light") root.dataset.theme = remembered();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    label();
  });
  label();

  // Inside a notebook frame a fragment link would load the notebook itself.
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      const target = get(link.hash.slice(1));
      if (!target) return;
      event.preventDefault();
      target.scrollIntoView();
      target.focus({ preventScroll: true });
    });
  }

  for (const tabs of document.querySelectorAll(".tabs")) {
    const list = tabs.querySelector(".tablist");
    const buttons = [...tabs.querySelectorAll(".tab")];
    const panels = [...tabs.querySelectorAll(".panel")];
    const choose = (at, focus) => {
      buttons.forEach((tab, i) => {
        tab.setAttribute("aria-selected", String(i === at));
        tab.tabIndex = i === at ? 0 : -1;
        panels[i].hidden = i !== at;
      });
      if (focus) buttons[at].focus();
    };
    list.setAttribute("role", "tablist");
    panels.forEach((panel) => panel.setAttribute("role", "tabpanel"));
    buttons.forEach((tab, i) => {
      tab.setAttribute("role", "tab");
      tab.addEventListener("click", () => choose(i, false));
      tab.addEventListener("keydown", (event) => {
        const last = buttons.length - 1;
        const to = { ArrowRight: i === last ? 0 : i + 1, ArrowLeft: i ? i - 1 : last, Home: 0, End: last }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        choose(to, true);
      });
    });
    choose(0, false);
  }

  // Columns beyond the edge of a small screen are easily missed.
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const area = target.closest(".scroll, .plot");
      area.previousElementSibling.hidden = area.scrollWidth <= area.clientWidth + 1;
    }
  });
  for (const area of document.querySelectorAll(".scroll, .plot.wide")) {
    const hint = document.createElement("p");
    hint.className = "sideways";
    hint.hidden = true;
    hint.textContent = "Scroll sideways to see all →";
    area.before(hint);
    watch.observe(area);
    watch.observe(area.firstElementChild);
  }

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea"); // files opened from disk have no clipboard object in some browsers
      area.value = text;
      area.className = "sr";
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  for (const each of document.querySelectorAll(".copy")) {
    each.addEventListener("click", async () => {
      const done = await copy(each.parentElement.querySelector("code").textContent);
      each.focus();
      each.textContent = done ? "Copied" : "Press Ctrl+C";
      announce(done ? "Copied" : "Copying is not allowed here: select the text and press Ctrl+C");
      setTimeout(() => { each.textContent = "Copy"; }, 2000);
    });
  }

  // The per-class table: filter, sort, fifty rows at a time. Every name is set as text, never as markup.
  const total = data.id.length;
  const place = new Map(data.id.map((id, i) => [id, i]));
  const named = (i) => data.name[i] || `class ${data.id[i]}`;
  const often = new Map();
  for (const name of data.name) often.set(name, (often.get(name) || 0) + 1);
  const told = (i) => (data.name[i] && often.get(data.name[i]) > 1 ? `${data.name[i]} #${data.id[i]}` : named(i));
  const lower = data.name.map((name) => name.toLowerCase());
  const body = get("table").tBodies[0];
  const size = 50;
  const state = { query: "", only: "", key: "", down: false, page: 0, rows: [] };
  const error = data.id.map((_, i) => Math.abs(data.predicted[i] - data.true[i]));

  const cell = (row, tag, text, name) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.textContent = text;
    row.append(made);
    return made;
  };
  const draw = () => {
    const pages = Math.max(1, Math.ceil(state.rows.length / size));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const shown = state.rows.slice(state.page * size, (state.page + 1) * size);
    body.replaceChildren(...shown.map((i) => {
      const row = document.createElement("tr");
      cell(row, "td", String(data.id[i]));
      const head = cell(row, "th", "", "left");
      head.scope = "row";
      const name = cell(head, "bdi", named(i));
      if (data.name[i].length > 26) name.title = data.name[i];
      cell(row, "td", count(data.true[i]));
      const sign = Math.sign(data.predicted[i] - data.true[i]);
      cell(row, "td", (sign > 0 ? "▲ " : sign < 0 ? "▼ " : "") + count(data.predicted[i]), sign > 0 ? "over" : sign < 0 ? "under" : "");
      if (data.expected) cell(row, "td", data.expected[i] === null ? none : tenth.format(data.expected[i]));
      cell(row, "td", data.low[i] === null ? none : `${count(data.low[i])} to ${count(data.high[i])}`);
      cell(row, "td", share(data.recall[i]));
      cell(row, "td", share(data.precision[i]));
      cell(row, "td", chance(data.q[i]));
      cell(row, "td", data.verdicts[data.verdict[i]], "left");
      return row;
    }));
    const from = state.rows.length ? state.page * size + 1 : 0;
    get("page").textContent = `${count(from)} to ${count(from ? from + shown.length - 1 : 0)} of ${count(state.rows.length)}`;
    get("previous").disabled = state.page === 0;
    get("next").disabled = state.page >= pages - 1;
  };
  const compare = () => {
    const { key, down } = state;
    const column = data[key];
    const way = down ? -1 : 1;
    if (key === "") return (a, b) => error[b] - error[a] || a - b;
    if (key === "name") {
      const order = new Intl.Collator("en", { numeric: true });
      return (a, b) => way * order.compare(named(a), named(b)) || a - b;
    }
    return (a, b) => {
      if (column[a] === null || column[b] === null) return (column[a] === null) - (column[b] === null) || a - b;
      return way * (column[a] - column[b]) || a - b;
    };
  };
  const refresh = () => {
    const rows = [];
    for (let i = 0; i < total; i += 1) {
      if (state.only !== "" && data.verdict[i] !== Number(state.only)) continue;
      if (state.query && !lower[i].includes(state.query) && String(data.id[i]) !== state.query) continue;
      rows.push(i);
    }
    state.rows = rows.sort(compare());
    state.page = 0;
    get("matches").textContent = `${count(rows.length)} of ${count(total)} classes`;
    draw();
  };
  for (const head of document.querySelectorAll("#table thead th")) {
    const sort = document.createElement("button");
    sort.type = "button";
    sort.textContent = head.textContent;
    head.replaceChildren(sort);
    sort.addEventListener("click", () => {
      const { key } = head.dataset;
      const text = key === "name" || key === "id" || key === "verdict" || key === "q";
      state.down = state.key === key ? !state.down : !text;
      state.key = key;
      for (const other of document.querySelectorAll("#table thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      refresh();
    });
  }
  data.verdicts.forEach((verdict, i) => get("only").add(new Option(verdict, String(i))));
  let waiting = 0;
  get("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.query = event.target.value.trim().toLowerCase(); refresh(); }, 80);
  });
  get("only").addEventListener("change", (event) => { state.only = event.target.value; refresh(); });
  get("previous").addEventListener("click", () => { state.page -= 1; draw(); });
  get("next").addEventListener("click", () => { state.page += 1; draw(); });
  refresh();

  // Reading the main figure out: the pointer and the slider move the same cursor.
  const cursor = get("cursor");
  if (!cursor) return;
  const figure = get("counts-figure");
  const current = () => {
    const chosen = figure.querySelector('input[name="order"]:checked');
    return chosen ? chosen.value : Object.keys(data.plots)[0];
  };
  const marks = (plot) => (plot.edges ? plot.edges.length - 1 : plot.members.length);
  const mean = (column, members) => members.reduce((sum, i) => sum + column[i], 0) / members.length;
  const describe = (plot, at) => {
    const ids = plot.edges ? plot.members.slice(plot.edges[at], plot.edges[at + 1]) : [plot.members[at]];
    const members = ids.map((id) => place.get(id)).filter((i) => i !== undefined);
    if (!members.length) return "These classes are not in the table of this page.";
    const one = ids.length === 1;
    const who = one ? told(members[0]) : `${count(ids.length)} classes, ${told(members[0])} to ${told(members[members.length - 1])}, mean per class`;
    const shown = one ? count : (v) => tenth.format(v);
    const parts = [`true ${shown(mean(data.true, members))}`, `predicted ${shown(mean(data.predicted, members))}`];
    if (data.expected) parts.push(`expected ${tenth.format(mean(data.expected, members))}`);
    if (one) parts.push(`band ${count(data.low[members[0]])} to ${count(data.high[members[0]])}`, data.verdicts[data.verdict[members[0]]]);
    return `${who}: ${parts.join(", ")}`;
  };
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  line.setAttribute("class", "cursor");
  const move = (at) => {
    const order = current();
    const plot = data.plots[order];
    const picture = figure.querySelector(`.plot[data-order="${order}"] svg`);
    const x = plot.left + ((at + 0.5) / marks(plot)) * plot.width;
    const { height } = picture.viewBox.baseVal;
    for (const [name, value] of [["x1", x], ["x2", x], ["y1", 34], ["y2", height - 46]]) line.setAttribute(name, String(value));
    picture.append(line);
    cursor.value = String(at);
    const text = describe(plot, at);
    cursor.setAttribute("aria-valuetext", text);
    get("readout").textContent = text;
  };
  const limit = () => { cursor.max = String(marks(data.plots[current()]) - 1); };
  limit();
  cursor.addEventListener("input", () => move(Number(cursor.value)));
  for (const radio of figure.querySelectorAll('input[name="order"]')) radio.addEventListener("change", () => { limit(); line.remove(); });
  for (const area of figure.querySelectorAll(".plot")) {
    area.addEventListener("pointermove", (event) => {
      const picture = area.querySelector("svg");
      const box = picture.getBoundingClientRect();
      const plot = data.plots[area.dataset.order];
      const x = ((event.clientX - box.left) / box.width) * picture.viewBox.baseVal.width - plot.left;
      const at = Math.floor((x / plot.width) * marks(plot));
      if (at >= 0 && at < marks(plot)) move(at);
    });
  }
})();
