// Figures: those in sight first, the others in idle moments, all of them before printing.
const figures = JSON.parse(document.getElementById("figures").textContent);
const canvases = [...document.querySelectorAll("[data-figure]")];
const drawn = new Set();

function draw(canvas, width) {
  const { data, layout } = figures[canvas.dataset.figure];
  // Drawn anew and not resized: a legend of another number of lines would keep the room that it had.
  Plotly.purge(canvas);
  Plotly.newPlot(canvas, data, width ? { ...layout, width } : layout, { displayModeBar: false });
  drawn.add(canvas);
}

const watch = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting && !drawn.has(entry.target)).forEach((entry) => draw(entry.target)),
  { rootMargin: "600px" },
);
canvases.forEach((canvas) => watch.observe(canvas));
const idle = window.requestIdleCallback ?? ((callback) => setTimeout(callback, 50));
function drawRest() {
  const next = canvases.find((canvas) => !drawn.has(canvas));
  if (next) { draw(next); idle(drawRest); }
}
addEventListener("load", () => idle(drawRest));

let width = innerWidth, settled;
addEventListener("resize", () => {
  if (innerWidth === width) return;  // a phone's address bar comes and goes
  width = innerWidth;
  clearTimeout(settled);
  settled = setTimeout(() => { drawn.clear(); drawRest(); }, 150);
});

const PAGE_PX = 665, HALF_PX = 325;  // A4 less its margins
addEventListener("beforeprint", () => canvases.forEach((canvas) => draw(canvas, canvas.closest(".pair") ? HALF_PX : PAGE_PX)));
addEventListener("afterprint", () => canvases.forEach((canvas) => draw(canvas)));
