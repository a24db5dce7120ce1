const charts = document.querySelectorAll("script[type='application/json'][data-chart]");
for (const script of charts) {
  const place = document.getElementById(script.dataset.chart);
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true };
  try {
    await window.vegaEmbed(place, JSON.parse(script.textContent), options);
  } catch (error) {
    place.textContent = `This chart cannot be drawn here: ${error.message}`;
  }
}
document.documentElement.dataset.ready = "charts";
// Closed details are not printed.
const closed = [];
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    closed.push(details);
  }
});
addEventListener("afterprint", () => {
  for (const details of closed.splice(0)) details.open = false;
});
