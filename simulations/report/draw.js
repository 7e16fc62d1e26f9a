// All of the page's charts, each when it is first about to be seen, and again when the window's width changes.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); charts.find((c) => c.figure === entry.target).draw(); }
}, { rootMargin: "1200px" });
for (const spec of JSON.parse(document.getElementById("data").textContent)) {
  const chart = spec.kind === "dots" ? new DotsChart(spec) : new TimeChart(spec);
  // Its height is known before it is drawn, so that nothing moves under the reader.
  chart.svg.setAttribute("height", spec.height);
  near.observe(chart.figure);
}
const redraw = () => { for (const chart of charts) if (chart.box) chart.draw(); };
let width = innerWidth, pending = 0;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(redraw);
});
addEventListener("beforeprint", () => { for (const chart of charts) chart.draw(); });
