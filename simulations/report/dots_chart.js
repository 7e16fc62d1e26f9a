// Cost over attainment: a dot a policy, lines through dots, the objective and a floor.
class DotsChart extends Chart {
  constructor(spec) {
    super(spec);
    this.svg.setAttribute("role", "group");
    for (const link of spec.links.filter((each) => each.name)) {
      const entry = html("span", {});
      this.swatch(entry, link);
      entry.append(link.name);
      this.legend.appendChild(entry);
    }
  }

  // Nines: 90 %, 99 % and 99.9 % lie equally far apart; what cannot be told from 100 % lies at the end.
  nines(share) { return -Math.log10(Math.max(1 - share, this.spec.finest)); }

  draw() {
    const { spec, svg } = this;
    this.blank(46, 42);
    const { left, right, top, bottom } = this.box, points = [...spec.dots.map((d) => [d.x, d.y]), ...spec.links.flatMap((l) => l.points)];
    const reached = [...points.map((p) => this.nines(p[0])), this.nines(spec.objective)];
    let low = Math.min(...reached), high = Math.max(...reached);
    const room = Math.max(0.06, (high - low) * 0.08);
    low = Math.max(0, low - room); high += room;
    const highest = Math.max(...points.map((p) => p[1]), spec.floor ? spec.floor.y : 0) * 1.1 || 1;
    this.x = (share) => left + ((right - left) * (this.nines(share) - low)) / (high - low);
    this.y = (v) => top + (bottom - top) * (1 - v / highest);
    this.yAxis(niceTicks(highest, 6), false);
    make("text", { x: 0, y: 9 }, svg).textContent = "GPU-hours";
    this.xTicks(low, high);
    make("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }, svg);
    make("text", { x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle" }, svg).textContent = "share of requests that kept both objectives";
    const goal = this.x(spec.objective), plot = this.plot();
    make("rect", { class: "kept", x: goal, y: top, width: Math.max(0, right - goal), height: bottom - top }, plot);
    make("line", { class: "objective", x1: goal, x2: goal, y1: top, y2: bottom }, svg);
    make("text", { class: "mark", x: goal - 5, y: top + 10, "text-anchor": goal - left > 110 ? "end" : "start", dx: goal - left > 110 ? 0 : 10 }, svg).textContent = `objective ${Number((spec.objective * 100).toPrecision(6))} %`;
    if (spec.floor) {
      make("line", { class: "floor", x1: left, x2: right, y1: this.y(spec.floor.y), y2: this.y(spec.floor.y) }, svg);
      make("text", { x: right - 2, y: this.y(spec.floor.y) + 15, "text-anchor": "end" }, svg).textContent = spec.floor.label;
    }
    for (const link of spec.links) this.link(link, plot);
    for (const dot of spec.dots) this.intervals(dot, plot);
    const taken = spec.dots.map((dot) => this.around(dot));
    for (const dot of [...spec.dots].reverse()) this.dot(dot);
    for (const dot of spec.dots) if (dot.label) this.name(dot, taken);
  }

  xTicks(low, high) {
    const { left, right, bottom } = this.box;
    let last = -Infinity;
    for (const share of [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 0.99999, 0.999999]) {
      const nines = this.nines(share), at = this.x(share);
      if (nines < low || nines > high || 1 - share < this.spec.finest || at - last < 44 || at > right - 14) continue;
      last = at;
      make("line", { class: "axis", x1: at, x2: at, y1: bottom, y2: bottom + 4 }, this.svg);
      make("text", { x: at, y: bottom + 18, "text-anchor": at < left + 16 ? "start" : "middle" }, this.svg).textContent = `${Number((share * 100).toPrecision(8))} %`;
    }
  }

  link(link, plot) {
    const d = link.points.map(([x, y], i) => `${i ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("");
    make("path", { d, fill: "none", style: `stroke:${link.color}`, "stroke-width": 1.6, "stroke-dasharray": link.dash }, plot);
  }

  intervals(dot, plot) {
    const bar = (x1, x2, y1, y2) => make("line", { x1, x2, y1, y2, style: `stroke:${dot.color}`, "stroke-width": 1.4, opacity: 0.7 }, plot);
    if (dot.x_interval) bar(this.x(dot.x_interval[0]), this.x(dot.x_interval[1]), this.y(dot.y), this.y(dot.y));
    if (dot.y_interval) bar(this.x(dot.x), this.x(dot.x), this.y(dot.y_interval[0]), this.y(dot.y_interval[1]));
  }

  around(dot) {
    const r = dot.shape === "small" ? 4 : 7, x = this.x(dot.x), y = this.y(dot.y);
    return { left: x - r, right: x + r, top: y - r, bottom: y + r };
  }

  dot(dot) {
    const x = this.x(dot.x), y = this.y(dot.y);
    const group = make("g", { class: "dot", tabindex: 0, role: "img", "aria-label": [dot.name, ...dot.told.map((row) => row.join(" "))].join(", ") }, this.svg);
    make("circle", { cx: x, cy: y, r: 14, fill: "transparent" }, group);
    const style = dot.shape === "ring" ? `fill:var(--card);stroke:${dot.color}` : `fill:${dot.color};stroke:var(--card)`;
    if (dot.shape === "diamond") make("path", { d: `M${x} ${y - 8}l8 8l-8 8l-8 -8Z`, style, "stroke-width": 1.5 }, group);
    else make("circle", { cx: x, cy: y, r: dot.shape === "small" ? 3.5 : 6, style, "stroke-width": dot.shape === "ring" ? 2.4 : 1.5 }, group);
    const show = () => tell(group, dot.name, dot.told, null, () => this.inWindow(x, y));
    for (const event of ["pointerenter", "pointerdown", "focus"]) group.addEventListener(event, show);
    group.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") leave(); });
    group.addEventListener("blur", leaves);
  }

  // Beside its dot where nothing else is; without such a place the tip alone tells the name.
  name(dot, taken) {
    const x = this.x(dot.x), y = this.y(dot.y), { left, right, top, bottom } = this.box;
    const text = make("text", { class: "name", style: `fill:${dot.color}` }, this.svg);
    text.textContent = dot.label.length > 34 ? `${dot.label.slice(0, 33)}…` : dot.label;
    const width = text.getComputedTextLength(), clear = 11;
    const places = [[x + clear, y + 4], [x - clear - width, y + 4], [x - width / 2, y - clear], [x - width / 2, y + clear + 9], [x + clear, y - 9], [x - clear - width, y - 9], [x + clear, y + 18], [x - clear - width, y + 18]];
    for (const [at, base] of places) {
      const box = { left: at - 2, right: at + width + 2, top: base - 11, bottom: base + 3 };
      const outside = box.left < left || box.right > right + 6 || box.top < top || box.bottom > bottom;
      if (outside || taken.some((t) => t.left < box.right && box.left < t.right && t.top < box.bottom && box.top < t.bottom)) continue;
      text.setAttribute("x", at);
      text.setAttribute("y", base);
      taken.push(box);
      return;
    }
    text.remove();
  }

  crossAt() {}

  uncross() {}
}
