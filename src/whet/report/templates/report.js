"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLORS = 8;
  const SHAPES = [
    (r) => `M${-r},0 a${r},${r} 0 1,0 ${2 * r},0 a${r},${r} 0 1,0 ${-2 * r},0 z`,
    (r) => polygon(r * 1.25, 4, 45),
    (r) => polygon(r * 1.4, 3, -90),
    (r) => polygon(r * 1.25, 4, 0),
    (r) => polygon(r * 1.4, 3, 90),
    (r) => polygon(r * 1.15, 6, 0),
    (r) => star(r * 1.45),
    (r) => cross(r * 1.15, r * 0.45),
  ];

  function polygon(radius, corners, turn) {
    const points = [];
    for (let i = 0; i < corners; i++) points.push(polar(radius, turn + (360 / corners) * i));
    return `M${points.join("L")}z`;
  }

  function star(radius) {
    const points = [];
    for (let i = 0; i < 10; i++) points.push(polar(i % 2 ? radius / 2 : radius, 36 * i - 90));
    return `M${points.join("L")}z`;
  }

  function cross(arm, half) {
    return `M${-half},${-arm}H${half}V${-half}H${arm}V${half}H${half}V${arm}H${-half}V${half}H${-arm}V${-half}H${-half}z`;
  }

  function polar(radius, degrees) {
    const angle = (degrees * Math.PI) / 180;
    return `${(radius * Math.cos(angle)).toFixed(2)},${(radius * Math.sin(angle)).toFixed(2)}`;
  }

  // text is set as text nodes alone, never as HTML: names of models may contain anything
  function made(namespace, tag, attributes, children) {
    const element = document.createElementNS(namespace, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }
  const svg = (tag, attributes = {}, ...children) => made("http://www.w3.org/2000/svg", tag, attributes, children);
  const html = (tag, attributes = {}, ...children) => made("http://www.w3.org/1999/xhtml", tag, attributes, children);
  const shapeOf = (series, radius) => SHAPES[series % SHAPES.length](radius);

  // scales and axes

  function scale(low, high, from, to) {
    const wide = low > 0 && high / low > 12;
    const room = wide ? 0 : (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    const [start, end] = wide ? [low / 1.15, high * 1.15] : [low - room, high + room];
    const measure = wide ? Math.log : (value) => value;
    const at = (value) => from + ((measure(value) - measure(start)) / (measure(end) - measure(start))) * (to - from);
    return { at, ticks: wide ? decades(start, end) : steps(start, end, Math.max(2, Math.round(Math.abs(to - from) / (to < from ? 55 : 80)))) };
  }

  function steps(start, end, count) {
    const raw = (end - start) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw * 0.999);
    const found = [];
    for (let i = Math.ceil(start / step); i * step <= end; i++) found.push(Number((i * step).toPrecision(12)));
    return found;
  }

  function decades(start, end) {
    const found = [];
    for (let power = Math.floor(Math.log10(start)); 10 ** power <= end; power++) {
      for (const digit of [1, 2, 5]) {
        const value = digit * 10 ** power;
        if (value >= start && value <= end) found.push(Number(value.toPrecision(12)));
      }
    }
    return found;
  }

  const written = (value) =>
    Math.abs(value) >= 1e6 ? `${value / 1e6} M` : value.toLocaleString("en", { maximumFractionDigits: 6 });

  function frame(box, x, y, names) {
    const parts = [];
    for (const tick of y.ticks) {
      parts.push(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y.at(tick), y2: y.at(tick) }));
      parts.push(svg("text", { x: box.left - 8, y: y.at(tick) + 4, "text-anchor": "end" }, written(tick)));
    }
    for (const tick of x.ticks) {
      parts.push(svg("line", { class: "axis", x1: x.at(tick), x2: x.at(tick), y1: box.bottom, y2: box.bottom + 5 }));
      parts.push(svg("text", { x: x.at(tick), y: box.bottom + 19, "text-anchor": "middle" }, written(tick)));
    }
    parts.push(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
    parts.push(svg("text", { x: box.right, y: box.bottom + 38, "text-anchor": "end" }, names.x));
    parts.push(svg("text", { x: 0, y: 12 }, names.y));
    return parts;
  }

  const boxOf = (width, height) => ({ left: 46, right: width - 12, top: 26, bottom: height - 46 });

  // the frontier

  const chart = document.getElementById("frontier");
  const choice = document.getElementById("axis");
  const rows = new Map([...document.querySelectorAll("#table tbody tr")].map((row) => [Number(row.dataset.trial), row]));
  const tip = html("div", { class: "tip", id: "tip", role: "tooltip" });
  tip.hidden = true;
  const largest = Math.max(...data.points.map((point) => point.mib || 0));
  let marks = [];

  function radius(point, width) {
    const most = width < 500 ? 15 : 20;
    return largest && point.mib ? Math.max(4.5, most * Math.sqrt(point.mib / largest)) : 7;
  }

  function drawFrontier() {
    const axis = data.axes[Number(choice.value) || 0];
    const width = Math.max(280, chart.clientWidth);
    const height = Math.round(Math.min(460, Math.max(320, width * 0.52)));
    const box = boxOf(width, height);
    const ends = (metric) => data.points.map((point) => point.values[metric]);
    const range = (all) => [Math.min(...all.map((one) => one[1])), Math.max(...all.map((one) => one[2]))];
    const x = scale(...range(ends(axis.metric)), box.left + 16, box.right - 16);
    const y = scale(...range(ends(data.quality.metric)), box.bottom, box.top);
    const where = (i) => [x.at(data.points[i].values[axis.metric][0]), y.at(data.points[i].values[data.quality.metric][0])];
    const names = {
      x: axis.better === "lower" ? `← better · ${axis.label}` : `${axis.label} · better →`,
      y: `${data.quality.words} ${data.quality.better === "lower" ? "↓" : "↑"}`,
    };
    const line = svg("polyline", { class: "front", points: axis.frontier.map((i) => where(i).join(",")).join(" ") });
    const order = data.points.map((_, i) => i).sort((a, b) => (data.points[b].mib || 0) - (data.points[a].mib || 0));
    marks = [];
    const drawn = order.map((i) => (marks[i] = mark(i, where(i), x, y, axis, width)));
    const picture = svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${data.quality.words} against ${axis.label}` },
      ...frame(box, x, y, names), line, ...drawn, ...labels(axis, where, box, width),
    );
    tip.hidden = true;
    chart.replaceChildren(picture, tip);
  }

  function mark(i, [left, top], x, y, axis, width) {
    const point = data.points[i];
    const [, fastest, slowest] = point.values[axis.metric];
    const [, worst, finest] = point.values[data.quality.metric];
    const r = radius(point, width);
    const bar = (x1, y1, x2, y2) => svg("line", { class: "bar", x1, y1, x2, y2 });
    const bars = [];
    if (fastest < slowest) {
      const [a, b] = [x.at(fastest), x.at(slowest)];
      bars.push(bar(a, top, b, top), bar(a, top - 3, a, top + 3), bar(b, top - 3, b, top + 3));
    }
    if (worst < finest) {
      const [a, b] = [y.at(worst), y.at(finest)];
      bars.push(bar(left, a, left, b), bar(left - 3, a, left + 3, a), bar(left - 3, b, left + 3, b));
    }
    const shape = svg("g", { transform: `translate(${left} ${top})` }, svg("path", { class: "shape", d: shapeOf(point.series, r) }));
    if (point.baseline) shape.append(svg("circle", { class: "ring", r: r + 5 }));
    shape.append(svg("circle", { class: "hit", r: Math.max(r + 4, 14) }));
    const front = axis.frontier.includes(i) ? " front-mark" : "";
    const figures = point.figures.map(([name, value, ends]) => `${name} ${value}${ends && ` (${ends})`}`).join(", ");
    const group = svg(
      "g",
      {
        class: `mark c${point.series % COLORS}${front}`, tabindex: "0", role: "img",
        "aria-label": `${point.name}, ${point.recipe.join(", ")}: ${figures}`, "data-trial": i,
      },
      ...bars, shape,
    );
    group.addEventListener("pointerenter", () => tell(i));
    group.addEventListener("focus", () => tell(i));
    group.addEventListener("click", () => tell(i));
    group.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hush(i));
    group.addEventListener("blur", () => hush(i));
    return group;
  }

  // names beside the marks: the best and the frontier first, the others where there is room, far ones with a line
  function labels(axis, where, box, width) {
    const wanted = [data.best, 0, ...axis.frontier, ...data.points.keys()].filter((i, k, all) => i !== null && all.indexOf(i) === k);
    const taken = data.points.map((point, i) => {
      const [left, top] = where(i);
      const r = radius(point, width);
      return { left: left - r, right: left + r, top: top - r, bottom: top + r };
    });
    const most = width < 500 ? 16 : 36;
    const found = [];
    for (const i of wanted) {
      const name = shortened(data.points[i].name, most);
      const inside = placesAround(where(i), radius(data.points[i], width), name.length * 6.9, width < 500 ? 30 : 100).filter((own) =>
        own.left >= box.left && own.right <= box.right + 8 && own.top >= box.top - 8 && own.bottom <= box.bottom);
      const free = inside.find((own) => taken.every((one) => own.right < one.left || own.left > one.right || own.bottom < one.top || own.top > one.bottom));
      // the best model always has a label, even one that overlaps others
      const own = free || (i === data.best ? inside[0] : null);
      if (!own) continue;
      taken.push(own);
      if (own.line) found.unshift(svg("line", { class: "lead-line", x1: own.line[0], y1: own.line[1], x2: own.line[2], y2: own.line[3] }));
      found.push(svg("text", { class: "label", x: own.at, y: own.base, "text-anchor": own.anchor }, name));
    }
    return found;
  }

  // the colour and shape of a mark tell the runtime that a name may have after it in brackets
  function shortened(name, most) {
    const kept = [...name].length > most ? name.replace(/(.) \([^()]*\)$/, "$1") : name;
    return [...kept].length > most ? `${[...kept].slice(0, most - 1).join("")}…` : kept;
  }

  function placesAround([left, top], size, long, farthest) {
    const places = [];
    for (const away of [8, 26, 46, 70, 100].filter((one) => one <= farthest)) {
      const r = size + away;
      places.push(
        ["start", left + r, top - 7], ["end", left - r, top - 7], ["start", left + r, top + 16], ["end", left - r, top + 16],
        ["middle", left, top - r - 4], ["middle", left, top + r + 12], ["start", left - r, top - r - 4], ["end", left + r, top - r - 4],
        ["start", left - r, top + r + 12], ["end", left + r, top + r + 12],
      );
    }
    return places.map(([anchor, at, base], k) => {
      const start = anchor === "start" ? at : anchor === "end" ? at - long : at - long / 2;
      const own = { anchor, at, base, left: start, right: start + long, top: base - 11, bottom: base + 3 };
      const near = [Math.max(own.left, Math.min(own.right, left)), base < top ? own.bottom : own.top];
      return { ...own, line: k < 10 ? null : [left, top, ...near] };
    });
  }

  const told = ([name, value, ends]) => [
    html("dt", {}, name),
    html("dd", {}, html("span", {}, value), ...(ends ? [" ", html("span", { class: "ends" }, ends)] : [])),
  ];

  function tell(i) {
    for (const other of data.points.keys()) light(other, other === i);
    const point = data.points[i];
    const figures = html("dl", {}, ...point.figures.flatMap(told));
    const steps = point.recipe.map((step) => html("div", { class: "recipe" }, step));
    tip.replaceChildren(html("strong", {}, point.name), ...steps, figures);
    tip.hidden = false;
    const frame = chart.getBoundingClientRect();
    const shape = marks[i].querySelector(".hit").getBoundingClientRect();
    const [left, top] = [shape.left - frame.left, shape.top - frame.top];
    const beside = left + shape.width + 8 + tip.offsetWidth <= frame.width ? left + shape.width + 8 : left - tip.offsetWidth - 8;
    const fits = beside >= 0;
    tip.style.left = `${fits ? beside : Math.max(0, Math.min(frame.width - tip.offsetWidth, left - tip.offsetWidth / 2))}px`;
    const below = top + shape.height + 8;
    tip.style.top = `${fits ? Math.max(0, Math.min(frame.height - tip.offsetHeight, top - 20)) : below}px`;
  }

  function hush(i) {
    light(i, false);
    tip.hidden = true;
  }

  function light(i, on) {
    marks[i]?.classList.toggle("lit", on);
    rows.get(i)?.classList.toggle("lit", on);
  }

  function drawLegend() {
    const key = (series, name) =>
      html(
        "span", {},
        svg("svg", { width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true" },
          svg("g", { class: `mark front-mark c${series % COLORS}` }, svg("path", { class: "shape", d: shapeOf(series, 5) }))),
        name,
      );
    const parts = data.series.map((name, i) => key(i, name));
    if (data.points.some((point) => point.baseline)) {
      const ring = svg("circle", { class: "ring", r: 6 });
      parts.push(html("span", {}, svg("svg", { width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("g", { class: "mark" }, ring)), "baseline"));
    }
    if (largest) parts.push(html("span", { class: "hint" }, `area: MiB on disk, the largest ${written(Math.round(largest))}`));
    document.getElementById("legend").replaceChildren(...parts);
  }

  // the table

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        for (const other of heads) other.setAttribute("aria-sort", other === head ? order : "none");
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort((a, b) => compared(a.cells[column], b.cells[column], order)));
      });
    });
  }

  function compared(a, b, order) {
    const sign = order === "ascending" ? 1 : -1;
    if (a.tagName === "TH") return sign * a.dataset.value.localeCompare(b.dataset.value, "en", { numeric: true });
    const [one, other] = [parseFloat(a.dataset.value), parseFloat(b.dataset.value)];
    // rows without a value come last in both orders
    if (Number.isNaN(one) || Number.isNaN(other)) return Number.isNaN(one) - Number.isNaN(other);
    return sign * (one - other);
  }

  // recipes and commands, to copy

  function copyable(place) {
    const text = place.querySelector("pre");
    const button = html("button", { type: "button", class: "copy" }, "Copy");
    button.addEventListener("click", async () => {
      button.textContent = (await copied(text)) ? "Copied" : "Press Ctrl+C";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    place.append(button);
  }

  // a page from a disk or from a plain http address may have no clipboard; its text is selected then
  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text.textContent);
      return true;
    } catch {
      getSelection().selectAllChildren(text);
      return document.execCommand("copy");
    }
  }

  // learning curves

  function drawCurves() {
    if (!data.curves.length) return;
    drawLines("losses", "loss", [1, 2]);
    drawLines("scores", data.quality.words, [3]);
  }

  function drawLines(id, name, columns) {
    const place = document.getElementById(id);
    const width = Math.max(260, place.clientWidth);
    const box = boxOf(width, 240);
    const rowsOf = data.curves.flatMap((curve) => curve.rows);
    const values = rowsOf.flatMap((row) => columns.map((column) => row[column])).filter(Number.isFinite);
    if (!values.length) return;
    const epochs = rowsOf.map((row) => row[0]);
    const x = scale(Math.min(...epochs), Math.max(...epochs), box.left + 4, box.right - 4);
    const y = scale(Math.min(...values), Math.max(...values), box.bottom, box.top);
    const lines = data.curves.flatMap((curve, i) => columns.flatMap((column) => {
      const points = curve.rows.filter((row) => Number.isFinite(row[column])).map((row) => [x.at(row[0]), y.at(row[column])]);
      const dashed = column === 1;
      const line = svg("polyline", { class: `curve c${i % COLORS}${dashed ? " dashed" : ""}`, points: points.map((one) => one.join(",")).join(" ") });
      const dots = points.map(([left, top]) => svg("path", { class: `dot c${i % COLORS}`, d: shapeOf(i, 3.5), transform: `translate(${left} ${top})` }));
      return dashed ? [line] : [line, ...dots];
    }));
    const label = `${name} of ${data.curves.map((curve) => curve.name).join(", ")} by epoch`;
    place.replaceChildren(svg("svg", { viewBox: `0 0 ${width} 240`, role: "img", "aria-label": label }, ...frame(box, x, y, { x: "epoch", y: name }), ...lines));
    const key = (curve, i) => html("span", {}, svg("svg", { width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("path", { class: `dot c${i % COLORS}`, d: shapeOf(i, 5) })), curve.name);
    document.getElementById("curve-legend").replaceChildren(...data.curves.map(key));
  }

  function draw() {
    drawFrontier();
    drawCurves();
  }

  drawLegend();
  draw();
  document.querySelectorAll(".figures").forEach(sortable);
  document.querySelectorAll(".code").forEach(copyable);
  for (const [i, row] of rows) {
    row.addEventListener("pointerenter", () => light(i, true));
    row.addEventListener("pointerleave", () => light(i, false));
  }
  choice.addEventListener("change", drawFrontier);
  document.addEventListener("keydown", (event) => event.key === "Escape" && data.points.forEach((_, i) => hush(i)));
  let drawnAt = chart.clientWidth;
  addEventListener("resize", () => {
    if (chart.clientWidth === drawnAt) return;
    drawnAt = chart.clientWidth;
    draw();
  });
})();
