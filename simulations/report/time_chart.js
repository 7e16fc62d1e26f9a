// Charts over time: lines and areas, one crosshair over all that show the same moment.

// Index of the last x that is not after `at`; -1 when all are.
function before(xs, at) {
  let low = 0, high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= at) low = middle + 1; else high = middle;
  }
  return low - 1;
}

const times = (x, count) => (Array.isArray(x) ? x : Array.from({ length: count }, (_, i) => x.start + i * x.step));

function timeTicks(begin, end, width) {
  const steps = [60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];
  const step = steps.find((s) => ((end - begin) / s) * 64 <= width) || 2592000;
  const ticks = [];
  for (let at = Math.ceil(begin / step) * step; at <= end; at += step) ticks.push(at);
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
    // A value between two gaps would be a path without length, which nothing draws.
    if (!pen && ys[i + 1] === null) out += "h0.01";
    pen = true; lastY = py;
  }
  return out;
}

// The path of an area, in as many pieces as gaps leave; stepped ones stand on a level ground.
function area(xs, low, high, x, y, steps) {
  let out = "";
  for (let from = 0, to; from < xs.length; from = to + 1) {
    for (to = from; to < xs.length && high[to] !== null; to++);
    if (to === from) continue;
    const piece = (values) => values.slice(from, to), there = path(piece(xs), piece(high), x, y, steps);
    const back = steps ? [[xs[to - 1], low[to - 1]], [xs[from], low[from]]] : piece(xs).map((at, i) => [at, low[from + i]]).reverse();
    out += `${there}${back.map(([at, value]) => `L${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("")}Z`;
  }
  return out;
}

class TimeChart extends Chart {
  constructor(spec) {
    super(spec);
    for (const s of spec.series) {
      s.x = times(s.x, s.y.length);
      if (s.kind === "area" && !s.low) s.low = s.y.map(() => 0);
    }
    if (spec.said) spec.said.x = times(spec.said.x, spec.said.sentences.length);
    for (const s of spec.series) this.entry(s);
    this.svg.tabIndex = 0;
    this.svg.setAttribute("aria-label", `${spec.label}. Arrow keys read it.`);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") leave(); });
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("blur", leaves);
  }

  entry(series) {
    const entry = html(this.spec.choosable ? "button" : "span", {});
    this.swatch(entry, series);
    entry.append(series.name);
    if (this.spec.choosable) {
      entry.type = "button";
      entry.setAttribute("aria-pressed", series.shown);
      entry.addEventListener("click", () => {
        series.shown = !series.shown;
        entry.setAttribute("aria-pressed", series.shown);
        this.draw();
      });
    }
    this.legend.appendChild(entry);
  }

  draw() {
    const { spec, svg } = this, shown = spec.series.filter((s) => s.shown);
    this.blank(46, 24);
    const { left, right, top, bottom } = this.box;
    let highest = spec.top;
    if (highest === null) {
      highest = Math.max(0, ...spec.marks.map((m) => m.y));
      for (const s of shown) for (const v of s.y) if (v > highest) highest = v;
      highest = highest || 1;
    }
    this.x = (at) => left + ((right - left) * (at - spec.begin)) / (spec.end - spec.begin);
    let ticks;
    if (spec.log_from) {
      const low = Math.log10(spec.log_from), high = Math.log10(highest * 1.25);
      this.y = (v) => top + (bottom - top) * (1 - (Math.log10(Math.max(v, spec.log_from)) - low) / (high - low));
      ticks = [];
      for (let power = Math.ceil(low); power <= high; power++) ticks.push(10 ** power);
    } else {
      // Shares end at 100 %, but for those that say themselves where: more can be spent than there is.
      const reach = spec.percent && spec.top === null ? Math.min(1, highest * 1.05) : highest * 1.05;
      this.y = (v) => top + (bottom - top) * (1 - v / reach);
      ticks = niceTicks(reach, Math.max(2, Math.floor(spec.height / 48)));
    }
    this.yAxis(ticks, spec.percent);
    make("text", { x: 0, y: 9 }, svg).textContent = spec.unit;
    for (const at of timeTicks(spec.begin, spec.end, right - left)) {
      make("line", { class: "axis", x1: this.x(at), x2: this.x(at), y1: bottom, y2: bottom + 4 }, svg);
      const anchor = this.x(at) < left + 16 ? "start" : this.x(at) > right - 20 ? "end" : "middle";
      make("text", { x: this.x(at), y: bottom + 18, "text-anchor": anchor }, svg).textContent = tickTime(at, spec.end);
    }
    make("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }, svg);
    const plot = this.plot();
    for (const band of spec.bands) {
      make("rect", { class: "band", x: this.x(band.begin), width: this.x(band.end) - this.x(band.begin), y: top, height: bottom - top }, plot);
      make("text", { class: "mark", x: this.x(band.begin) + 5, y: top + 12 }, svg).textContent = band.label;
    }
    // Of lines that are chosen among, the first is what the page is about: it lies on top.
    for (const s of spec.choosable ? [...shown].reverse() : shown) {
      if (s.kind === "area") make("path", { d: area(s.x, s.low, s.y, this.x, this.y, s.steps), style: `fill:${s.color}`, opacity: s.opacity }, plot);
      else make("path", { d: path(s.x, s.y, this.x, this.y, s.steps), fill: "none", style: `stroke:${s.color}`, opacity: s.opacity, "stroke-width": s.width, "stroke-dasharray": s.dash, "stroke-linejoin": "round", "stroke-linecap": s.dash ? "butt" : "round" }, plot);
    }
    for (const mark of spec.marks) {
      make("line", { class: "objective", x1: left, x2: right, y1: this.y(mark.y), y2: this.y(mark.y) }, svg);
      const words = mark.left ? { x: left + 2, "text-anchor": "start" } : { x: right - 2, "text-anchor": "end" };
      make("text", { class: "mark", y: this.y(mark.y) - 5, ...words }, svg).textContent = mark.label;
    }
    this.cross = make("line", { class: "cross", y1: top, y2: bottom, visibility: "hidden" }, svg);
  }

  point(event) {
    const place = this.svg.getBoundingClientRect(), { left, right } = this.box;
    const share = Math.min(1, Math.max(0, (event.clientX - place.left - left) / (right - left)));
    this.read(this.spec.begin + share * (this.spec.end - this.spec.begin), event.clientY - place.top);
  }

  key(event) {
    const span = this.spec.end - this.spec.begin, step = (event.shiftKey ? 0.1 : 0.01) * span;
    const now = this.now ?? this.spec.begin;
    const to = { ArrowRight: now + step, ArrowLeft: now - step, Home: this.spec.begin, End: this.spec.end }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.read(Math.min(this.spec.end, Math.max(this.spec.begin, to)), this.spec.height / 3);
  }

  read(at, y) {
    this.now = at;
    for (const chart of charts) chart.crossAt(at);
    const rows = [];
    for (const s of this.spec.series) {
      const i = s.shown && s.told ? before(s.x, at) : -1;
      if (i < 0) continue;
      const value = (v) => (this.spec.percent && v !== null ? `${short(v * 100)} %` : short(v));
      rows.push([s.short || s.name, s.kind === "area" && s.low[i] ? `${value(s.low[i])} to ${value(s.y[i])}` : value(s.y[i])]);
    }
    const { said } = this.spec, i = said ? before(said.x, at) : -1;
    tell(this.svg, clock(at), rows, i < 0 ? null : said.sentences[i], () => this.inWindow(this.x(at), y));
  }

  crossAt(at) {
    if (!this.cross) return;
    const inside = at >= this.spec.begin && at <= this.spec.end;
    this.cross.setAttribute("visibility", inside ? "visible" : "hidden");
    if (inside) for (const end of ["x1", "x2"]) this.cross.setAttribute(end, this.x(at));
  }

  uncross() {
    if (this.cross) this.cross.setAttribute("visibility", "hidden");
  }
}
