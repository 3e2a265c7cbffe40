"use strict";
// Keys, copying, charts, what is refreshed, and where the focus goes. Everything works without it.
(() => {
  const one = (query) => document.querySelector(query);
  const each = (query, run) => document.querySelectorAll(query).forEach(run);
  const row = () => document.activeElement.closest("tr[data-row]");
  const open = (link) => link && link.click();
  let waitsForPage = false;
  const move = (by) => {
    const all = [...document.querySelectorAll("tr[data-row]")];
    const at = all.indexOf(row());
    const first = Math.max(0, all.indexOf(one("tr.open, tr:target")));
    const next = all[at < 0 ? first : Math.max(0, Math.min(all.length - 1, at + by))];
    if (next) {
      next.tabIndex = -1;
      next.focus();
    }
  };
  const keys = {
    "/": () => one("#q").focus(),
    "?": () => one("#keys").showModal(),
    a: () => (one("#a-amount") ? one("#a-amount").focus() : open(one("[data-key=a]"))),
    x: () => one("#amt") && (one("#amt").focus(), one("#amt").select()),
    j: () => move(1),
    k: () => move(-1),
    f: () => open(row() && row().querySelector("[data-refund]")),
    g: () => {
      waitsForPage = true;
      setTimeout(() => { waitsForPage = false; }, 1500);
    },
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || !one("#q")) return;
    if (target.closest("input, select, textarea, dialog")) {
      if (key === "Escape" && !target.closest("dialog")) target.blur();
    } else if (waitsForPage) {
      waitsForPage = false;
      open(one(`[data-go="${CSS.escape(key)}"]`));
    } else if (key === "Enter" && row() === target) {
      open(target.querySelector("a"));
    } else if (keys[key]) {
      event.preventDefault();
      keys[key]();
    }
  });
  each("[data-copy]", (button) => {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(one(`#${button.dataset.copy}`).textContent);
      button.textContent = "Copied";
    });
  });
  each("[data-plot]", (plot) => {
    const css = (name) => getComputedStyle(plot).getPropertyValue(name);
    const axis = { stroke: css("--ink-3"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false } };
    const line = { stroke: css("--burn-1"), fill: css("--accent-soft"), width: 1.6 };
    const look = { width: plot.clientWidth, height: 236, legend: { show: false }, cursor: { show: false } };
    look.tzDate = (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC");
    look.axes = [axis, { ...axis, size: 70 }];
    new uPlot({ ...look, series: [{}, line] }, JSON.parse(plot.dataset.plot), plot);
  });
  setInterval(() => {
    const now = one("#now");
    if (now && !document.hidden && !now.contains(document.activeElement)) now.dispatchEvent(new Event("refresh"));
  }, 5000);
  const told = one("[role=status][autofocus], [role=alert][autofocus]");
  if (told) told.focus();
})();
