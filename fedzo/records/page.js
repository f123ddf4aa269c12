"use strict";
// Draws what the element fedzo-data holds: curves with selectors, failures, robustness grids.
// A curve is a step function: value k holds from position k on, as in fedzo/records/plots.py.
const told = JSON.parse(document.getElementById("fedzo-data").textContent);
const options = { actions: false, renderer: "svg" };

function steps(problem, axis, quantity) {
  const points = [];
  problem[quantity]?.forEach((value, k) => {
    const position = problem[axis][k];
    if (value !== null && position !== null) points.push([position, value]);
  });
  return points;
}

function at(points, position) {
  let low = 0, high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= position) low = middle + 1; else high = middle;
  }
  return points[Math.max(low - 1, 0)][1];
}

function meanSteps(curves) {
  const grid = [...new Set(curves.flatMap((points) => points.map((p) => p[0])))];
  grid.sort((a, b) => a - b);
  return grid.map((position) => {
    const values = curves.map((points) => at(points, position));
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const square = values.reduce((a, b) => a + (b - mean) ** 2, 0);
    const error = values.length > 1 ? Math.sqrt(square / (values.length - 1) / values.length) : 0;
    return [position, mean, error];
  });
}

function runCurve(run, axis, quantity) {
  const curves = run.problems.map((p) => steps(p, axis, quantity)).filter((p) => p.length);
  return curves.length ? meanSteps(curves) : [];
}

function rows(axis, quantity, each) {
  return told.methods.flatMap((method) => {
    const curves = method.runs.map((run) => runCurve(run, axis, quantity));
    if (each) {
      return curves.flatMap((points, k) => points.map(([x, y]) => (
        { method: method.label, seed: method.runs[k].seed, line: `${method.label} ${k}`,
          x, y, low: y, high: y })));
    }
    const known = curves.filter((points) => points.length);
    if (!known.length) return [];
    return meanSteps(known).map(([x, y, error]) => (
      { method: method.label, seeds: known.length, line: method.label,
        x, y, low: y - error, high: y + error }));
  });
}

function curveSpec(values, names, logX, logY) {
  const axis = (field, title, log) => (
    { field, type: "quantitative", title, scale: log ? { type: "log" } : { type: "linear", zero: false } });
  const color = { field: "method", type: "nominal", title: null,
    sort: told.methods.map((m) => m.label), scale: { scheme: told.methods.length > 10 ? "tableau20" : "tableau10" },
    legend: { symbolOpacity: 1, symbolType: "stroke" } };
  const x = axis("x", names.x, logX);
  const detail = { field: "line", type: "nominal" };
  return {
    width: 820, height: 420, data: { name: "curves", values },
    layer: [
      { mark: { type: "area", interpolate: "step-after", opacity: 0.18, clip: true },
        encoding: { x, y: axis("low", names.y, logY), y2: { field: "high" }, color, detail } },
      { mark: { type: "line", interpolate: "step-after" },
        encoding: { x, y: axis("y", names.y, logY), color, detail,
          strokeDash: { field: "method", type: "nominal", legend: null } } },
    ],
    resolve: { scale: { y: "shared" } },
    config: { axis: { labelLimit: 200 }, legend: { labelLimit: 400 } },
  };
}

async function drawCurves() {
  const chosen = (name) => document.getElementById(`fedzo-${name}`).value;
  const [axis, quantity, show] = ["axis", "quantity", "show"].map(chosen);
  const [logX, logY] = ["scale-x", "scale-y"].map((name) => chosen(name) === "log");
  const all = rows(axis, quantity, show === "seeds");
  const drawn = all.filter((row) => !(logX && row.x <= 0) && !(logY && row.y <= 0));
  const floor = Math.min(...drawn.map((row) => row.y));
  if (logY) drawn.forEach((row) => { row.low = row.low > 0 ? row.low : floor; });
  const hidden = all.length - drawn.length;
  document.getElementById("fedzo-hidden").textContent = hidden
    ? `${hidden} of ${all.length} points are at or below 0 and have no place on this scale.` : "";
  const names = { x: told.axes[axis], y: told.quantities[quantity] };
  const made = await vegaEmbed("#fedzo-curves", curveSpec(drawn, names, logX, logY), options);
  window.fedzoView = made.view;
  document.body.dataset.drawn = [axis, quantity, show, logX, logY].join(" ");
}

function drawFailures() {
  const spec = {
    width: 820, height: 260, data: { name: "failures", values: told.failures },
    mark: { type: "point", filled: true, opacity: 0.7 },
    encoding: {
      x: { field: "round", type: "quantitative", title: "round" },
      y: { field: "client", type: "quantitative", title: "client", axis: { tickMinStep: 1 } },
      color: { field: "method", type: "nominal", title: null, scale: { scheme: "tableau20" } },
      tooltip: ["method", "seed", "problem", "round", "client", "reason"].map((field) => ({ field })),
    },
  };
  return vegaEmbed("#fedzo-failures", spec, options);
}

function drawGrid(grid, number) {
  const spec = {
    data: { values: grid.cells }, title: grid.title,
    facet: { column: { field: "panel", type: "nominal", title: null } },
    spec: {
      width: { step: 64 }, height: { step: 28 },
      encoding: {
        x: { field: "attack", type: "nominal", title: null, sort: grid.attacks },
        y: { field: "row", type: "nominal", title: null, sort: grid.rows },
      },
      layer: [
        { mark: "rect", encoding: { color: { field: "mean", type: "quantitative",
          title: grid.measure, scale: { scheme: "viridis", reverse: !grid.higher } } } },
        { mark: { type: "text", fontSize: 10, stroke: "white", strokeWidth: 2 },
          encoding: { text: { field: "mean", type: "quantitative", format: ".3g" } } },
        { mark: { type: "text", fontSize: 10 },
          encoding: { text: { field: "mean", type: "quantitative", format: ".3g" } } },
      ],
    },
  };
  return vegaEmbed(`#fedzo-grid-${number}`, spec, options);
}

if (told.methods.length) {
  document.querySelectorAll("select").forEach((s) => s.addEventListener("change", drawCurves));
  drawCurves();
}
if (told.failures.length) drawFailures();
told.grids.forEach(drawGrid);
