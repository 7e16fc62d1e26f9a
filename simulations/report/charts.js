"use strict";
// Draws the report's charts as SVG from the page's own data; every chart shares one time axis and one crosshair.
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const SVG = document.getElementById("namespace").namespaceURI;
const charts = [];

function make(tag, attributes, parent) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (parent) parent.appendChild(element);
  return element;
}

function clock(seconds) {
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600);
  const minutes = String(Math.floor(whole / 60) % 60).padStart(2, "0"), rest = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${minutes}:${rest}` : `${minutes}:${rest}`;
}

function short(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value >= 10 ? value.toFixed(1) : value.toFixed(value >= 1 ? 2 : 3);
}

// Index of the last x that is not after `at`, -1 when all are.
function before(xs, at) {
  let low = 0, high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= at) low = middle + 1; else high = middle;
  }
  return low - 1;
}

function niceTicks(top, count) {
  const rough = top / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const ticks = [];
  for (let value = 0; value <= top * 1.0001; value += step) ticks.push(value);
  return ticks;
}

function timeTicks(end, width) {
  const steps = [60, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
  const step = steps.find((s) => (end / s) * 64 <= width) || 172800;
  const ticks = [];
  for (let at = 0; at <= end; at += step) ticks.push(at);
  return ticks;
}

// The path of a line: broken where a value is missing, in steps where asked.
function path(xs, ys, x, y, steps) {
  let out = "", pen = false, lastY = 0;
  for (let i = 0; i < xs.length; i++) {
    if (ys[i] === null) { pen = false; continue; }
    const px = x(xs[i]).toFixed(1), py = y(ys[i]).toFixed(1);
    if (!pen) out += `M${px} ${py}`;
    else if (steps) out += `L${px} ${lastY}L${px} ${py}`;
    else out += `L${px} ${py}`;
    pen = true; lastY = py;
  }
  return out;
}

function area(xs, low, high, x, y, steps) {
  const kept = xs.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null);
  if (!kept.length) return "";
  const pick = (values) => kept.map((i) => values[i]);
  const there = path(pick(xs), pick(high), x, y, steps);
  const back = path(pick(xs).reverse(), pick(low).reverse(), x, y, false);
  if (!steps) return `${there}L${back.slice(1)}Z`;
  return `${there}L${x(xs[kept.at(-1)]).toFixed(1)} ${y(low[kept.at(-1)]).toFixed(1)}L${x(xs[kept[0]]).toFixed(1)} ${y(low[kept[0]]).toFixed(1)}Z`;
}

class Chart {
  constructor(figure, spec) {
    this.figure = figure;
    this.spec = spec;
    if (spec.title) figure.appendChild(Object.assign(document.createElement("h3"), { textContent: spec.title }));
    this.legend();
    this.svg = make("svg", { role: "img", "aria-label": spec.label }, null);
    figure.appendChild(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.hover(event));
    this.svg.addEventListener("pointerdown", (event) => this.hover(event));
    this.svg.addEventListener("pointerleave", () => leave());
    charts.push(this);
  }

  legend() {
    const legend = document.createElement("div");
    legend.className = "legend";
    for (const series of this.spec.series) {
      const entry = document.createElement("span"), swatch = make("svg", { viewBox: "0 0 22 10" }, null);
      if (series.kind === "area") make("rect", { x: 0, y: 0, width: 22, height: 10, style: `fill:${series.color}`, opacity: series.opacity }, swatch);
      else make("line", { x1: 0, x2: 22, y1: 5, y2: 5, style: `stroke:${series.color}`, "stroke-width": series.width || 2, "stroke-dasharray": series.dash || "" }, swatch);
      entry.append(swatch, series.name);
      legend.appendChild(entry);
    }
    this.figure.appendChild(legend);
  }

  draw() {
    const { spec, svg } = this, width = svg.clientWidth || 600, height = spec.height;
    svg.replaceChildren();
    svg.setAttribute("height", height);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const left = 46, right = 8, top = 16, bottom = 24;
    const values = spec.series.flatMap((s) => (s.kind === "area" ? s.high : s.y)).filter((v) => v !== null);
    const highest = spec.top || Math.max(...values, ...(spec.marks || []).map((m) => m.y));
    this.x = (at) => left + ((width - left - right) * at) / data.end;
    let ticks;
    if (spec.log) {
      const lowest = Math.max(spec.log, 1e-4), low = Math.log10(lowest), high = Math.log10(highest * 1.25);
      this.y = (v) => top + (height - top - bottom) * (1 - (Math.log10(Math.max(v, lowest)) - low) / (high - low));
      ticks = [];
      for (let power = Math.ceil(low); power <= high; power++) ticks.push(10 ** power);
    } else {
      ticks = niceTicks(highest * 1.05, Math.max(2, Math.floor(height / 48)));
      const reach = Math.max(highest * 1.05, ticks.at(-1));
      this.y = (v) => top + (height - top - bottom) * (1 - v / reach);
    }
    for (const tick of ticks) {
      make("line", { class: "grid", x1: left, x2: width - right, y1: this.y(tick), y2: this.y(tick) }, svg);
      make("text", { x: left - 7, y: this.y(tick) + 4, "text-anchor": "end" }, svg).textContent = tick < 1 && tick > 0 ? String(Number(tick.toPrecision(2))) : tick.toLocaleString("en");
    }
    make("text", { x: 0, y: 9 }, svg).textContent = spec.unit;
    for (const at of timeTicks(data.end, width - left)) {
      make("line", { class: "axis", x1: this.x(at), x2: this.x(at), y1: height - bottom, y2: height - bottom + 4 }, svg);
      make("text", { x: this.x(at), y: height - 6, "text-anchor": at === 0 ? "start" : "middle" }, svg).textContent = clock(at);
    }
    make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }, svg);
    // What goes beyond the axis is cut at its top: a wish for 300 replicas would flatten the twelve there are.
    const frame = `frame-${charts.indexOf(this)}`;
    make("rect", { x: left, y: top - 2, width: width - left - right, height: height - top - bottom + 4 }, make("clipPath", { id: frame }, svg));
    const plot = make("g", { "clip-path": `url(#${frame})` }, svg);
    for (const s of spec.series) {
      if (s.kind === "area") make("path", { d: area(s.x, s.low, s.high, this.x, this.y, s.steps), style: `fill:${s.color}`, opacity: s.opacity }, plot);
      else make("path", { d: path(s.x, s.y, this.x, this.y, s.steps), fill: "none", style: `stroke:${s.color}`, "stroke-width": s.width || 2, "stroke-dasharray": s.dash || "", "stroke-linejoin": "round" }, plot);
    }
    for (const mark of spec.marks || []) {
      make("line", { class: "objective", x1: left, x2: width - right, y1: this.y(mark.y), y2: this.y(mark.y) }, svg);
      make("text", { class: "mark", x: width - right - 2, y: this.y(mark.y) - 5, "text-anchor": "end" }, svg).textContent = mark.label;
    }
    this.cross = make("line", { class: "cross", y1: top, y2: height - bottom, visibility: "hidden" }, svg);
    this.left = left;
    this.span = width - left - right;
  }

  hover(event) {
    const box = this.svg.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left - this.left) / this.span)), at = share * data.end;
    for (const chart of charts) {
      chart.cross.setAttribute("x1", chart.x(at));
      chart.cross.setAttribute("x2", chart.x(at));
      chart.cross.setAttribute("visibility", "visible");
    }
    tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: clock(at) }));
    for (const s of this.spec.series) {
      const i = before(s.x, at);
      if (i < 0) continue;
      const shown = s.kind === "area" ? (s.tip ? `${short(s.low[i])} to ${short(s.high[i])}` : null) : short(s.y[i]);
      if (shown !== null) this.row(s.short || s.name, shown);
    }
    const why = this.spec.why && this.spec.why(at);
    if (why) tip.appendChild(Object.assign(document.createElement("div"), { className: "why", textContent: why }));
    tip.hidden = false;
    const w = tip.offsetWidth, h = tip.offsetHeight;
    let x = event.clientX + 16, y = event.clientY + 16;
    if (x + w > innerWidth - 12) x = Math.max(12, event.clientX - w - 16);
    if (x < 12 || x + w > innerWidth - 12) x = 12;
    if (y + h > innerHeight - 12) y = Math.max(12, event.clientY - h - 16);
    tip.style.left = `${x}px`;
    tip.style.top = `${y}px`;
  }

  row(name, value) {
    const row = document.createElement("div");
    row.className = "row";
    row.append(Object.assign(document.createElement("span"), { textContent: name }), Object.assign(document.createElement("span"), { textContent: value }));
    tip.appendChild(row);
  }
}

function leave() {
  tip.hidden = true;
  for (const chart of charts) chart.cross.setAttribute("visibility", "hidden");
}

const color = (i) => `var(--p${i % 4})`;
const dashes = ["", "7 4", "2 3", "10 3 2 3"];
const of = (name) => document.querySelector(`[data-chart="${name}"]`);
const lines = (pick) => data.policies.map((p, i) => ({ name: p.label, x: pick(p).x, y: pick(p).y, color: color(i), dash: dashes[i % 4], width: i ? 1.8 : 2.4 }));

new Chart(of("load"), {
  label: "Requests arriving a second over time, with the band that was foreseen", unit: "requests/s", height: 240,
  series: [
    ...(data.forecast.x.length ? [{ name: "foreseen for this moment, a lead time before: expected to upper", short: "foreseen", kind: "area", x: data.forecast.x, low: data.forecast.expected, high: data.forecast.upper, color: color(0), opacity: 0.25, tip: true }] : []),
    { name: "arriving", x: data.load.x, y: data.load.y, color: "var(--demand)", width: 1.8, steps: true },
  ],
});
const most = Math.max(...data.policies.map((p) => Math.max(...p.holding)));
data.policies.forEach((policy, i) => {
  const figure = Object.assign(document.createElement("figure"), { className: "chart" });
  document.getElementById("replica-charts").appendChild(figure);
  const wish = Math.max(...policy.wanted);
  new Chart(figure, {
    title: policy.label, label: `Replicas over time under ${policy.label}`, unit: "replicas", height: 200, top: most,
    series: [
      { name: "holding GPUs, draining ones included", kind: "area", x: policy.time, low: policy.time.map(() => 0), high: policy.holding, color: color(i), opacity: 0.13, steps: true, tip: false },
      { name: wish > most ? `wanted, up to ${wish}` : "wanted", short: "wanted", x: policy.time, y: policy.wanted, color: "var(--soft)", dash: "2 3", width: 1.3, steps: true },
      { name: "created", x: policy.time, y: policy.created, color: color(i), dash: "6 3", width: 1.6, steps: true },
      { name: "ready", x: policy.time, y: policy.ready, color: color(i), width: 2.6, steps: true },
    ],
    why: (at) => policy.sentences[before(policy.time, at)],
  });
});
new Chart(of("queue"), { label: "Requests waiting over time", unit: "requests waiting", height: 210, series: lines((p) => ({ x: p.time, y: p.waiting })) });
new Chart(of("ttft"), { title: "Time to first token, 95th percentile by minute of arrival", label: "Time to first token over time", unit: "seconds (log)", height: 230, log: 0.05, marks: [{ y: data.objectives.ttft, label: `objective ${data.objectives.ttft} s` }], series: lines((p) => p.ttft) });
new Chart(of("tpot"), { title: "Time per output token, 95th percentile by minute of arrival", label: "Time per output token over time", unit: "milliseconds", height: 200, marks: [{ y: data.objectives.tpot, label: `objective ${data.objectives.tpot} ms` }], series: lines((p) => p.tpot) });

const redraw = () => charts.forEach((chart) => chart.draw());
let pending = 0;
addEventListener("resize", () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(redraw); });
redraw();
