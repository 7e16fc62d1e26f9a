"use strict";
// What every chart of the page shares: its figure, its legend, the tip, keys and touch; all from the page's own data.
const tip = document.getElementById("tip");
const SVG = document.getElementById("namespace").namespaceURI;
const charts = [];

function make(tag, attributes, parent) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (parent) parent.appendChild(element);
  return element;
}

const html = (tag, properties) => Object.assign(document.createElement(tag), properties);

// Seconds of the trace: 07:15, 2:07:15, 1d 02:07:15.
function clock(seconds) {
  const whole = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  const days = Math.floor(whole / 86400), hours = Math.floor(whole / 3600) % 24, minutes = Math.floor(whole / 60) % 60;
  if (days) return `${days}d ${two(hours)}:${two(minutes)}:${two(whole % 60)}`;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${two(minutes)}:${two(whole % 60)}`;
}

// On an axis: minutes and seconds within an hour, else hours and minutes; midnights tell the day that begins.
function tickTime(seconds, end) {
  const whole = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  if (end <= 5400) return `${two(Math.floor(whole / 60))}:${two(whole % 60)}`;
  if (end > 86400 && whole % 86400 === 0) return `day ${whole / 86400 + 1}`;
  return `${Math.floor(whole / 3600) % 24}:${two(Math.floor(whole / 60) % 60)}`;
}

function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value >= 10 ? value.toFixed(1) : value.toFixed(value >= 1 ? 2 : 3);
}

function niceTicks(top, count) {
  const rough = top / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.9999);
  const ticks = [];
  for (let i = 0; i * step <= top * 1.0001; i++) ticks.push(i * step);
  return ticks;
}

const axisNumber = (tick) => (tick < 1 && tick > 0 ? String(Number(tick.toPrecision(2))) : Number(tick.toPrecision(6)).toLocaleString("en"));

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.figure = document.getElementById(spec.at);
    this.frame = `frame-${spec.at}`;
    if (spec.title) this.figure.appendChild(html("h3", { textContent: spec.title }));
    this.legend = this.figure.appendChild(html("div", { className: "legend" }));
    this.svg = make("svg", { role: "img", "aria-label": spec.label }, this.figure);
    charts.push(this);
  }

  // An empty drawing of today's width, with margins for the axes.
  blank(left, bottom) {
    const width = this.svg.clientWidth || 600, height = this.spec.height;
    this.svg.replaceChildren();
    this.svg.setAttribute("height", height);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.box = { left, right: width - 8, top: 18, bottom: height - bottom };
  }

  yAxis(ticks, percent) {
    const { left, right } = this.box;
    for (const tick of ticks) {
      make("line", { class: "grid", x1: left, x2: right, y1: this.y(tick), y2: this.y(tick) }, this.svg);
      make("text", { x: left - 7, y: this.y(tick) + 4, "text-anchor": "end" }, this.svg).textContent = percent ? `${axisNumber(tick * 100)} %` : axisNumber(tick);
    }
  }

  // What goes beyond an axis is cut: a wish for 300 replicas would flatten the twelve there are.
  plot() {
    const { left, right, top, bottom } = this.box;
    make("rect", { x: left, y: top - 2, width: right - left, height: bottom - top + 4 }, make("clipPath", { id: this.frame }, this.svg));
    return make("g", { "clip-path": `url(#${this.frame})` }, this.svg);
  }

  inWindow(x, y) {
    const place = this.svg.getBoundingClientRect();
    return { x: place.left + x, y: place.top + y };
  }

  swatch(parent, series) {
    const swatch = make("svg", { viewBox: "0 0 22 10", "aria-hidden": "true" }, parent);
    if (series.kind === "area") make("rect", { x: 0, y: 0, width: 22, height: 10, style: `fill:${series.color}`, opacity: Math.max(series.opacity, 0.2) }, swatch);
    else make("line", { x1: 0, x2: 22, y1: 5, y2: 5, style: `stroke:${series.color}`, "stroke-width": series.width || 2, "stroke-dasharray": series.dash || "" }, swatch);
  }
}

// The tip of an element: a heading, rows of name and value, and a sentence; beside the point that `place` tells.
let owner = null, placed = null;
function tell(element, heading, rows, why, place) {
  tip.replaceChildren(html("b", { textContent: heading }));
  for (const [name, value] of rows) {
    const row = tip.appendChild(html("div", { className: "row" }));
    row.append(html("span", { textContent: name }), html("span", { textContent: value }));
  }
  if (why) tip.appendChild(html("div", { className: "why", textContent: why }));
  tip.hidden = false;
  owner = element;
  placed = place;
  put();
}

// Inside the window.
function put() {
  const at = placed(), w = tip.offsetWidth, h = tip.offsetHeight;
  let x = at.x + 16, y = at.y + 16;
  if (x + w > innerWidth - 12) x = at.x - w - 16;
  if (x < 12) x = Math.max(12, Math.min(at.x - w / 2, innerWidth - w - 12));
  if (y + h > innerHeight - 12) y = Math.max(12, at.y - h - 16);
  tip.style.left = `${x}px`;
  tip.style.top = `${y}px`;
}

function leave() {
  tip.hidden = true;
  for (const chart of charts) chart.uncross();
}
// An element that is left takes its own tip with it, not that of one just touched.
const leaves = (event) => { if (event.currentTarget === owner) leave(); };
addEventListener("keydown", (event) => { if (event.key === "Escape") leave(); });
// A tip that a finger left stands until the page is touched elsewhere; one that keys called follows its point.
addEventListener("pointerdown", (event) => { if (!event.target.closest(".chart")) leave(); });
addEventListener("scroll", () => {
  if (tip.hidden) return;
  if (document.activeElement.closest(".chart")) put(); else leave();
}, { passive: true });
