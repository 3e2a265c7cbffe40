"use strict";
// Keys, copying, and where the focus goes. Everything works without it.
(() => {
  const one = (query) => document.querySelector(query);
  const rows = () => [...document.querySelectorAll("tr[data-row]")];
  let waitsForPage = false;
  const move = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement.closest("tr[data-row]"));
    const opened = Math.max(0, all.indexOf(one("tr.open, tr:target")));
    const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? opened : at + by))];
    next.tabIndex = -1;
    next.focus();
  };
  const here = () => document.activeElement.closest("tr[data-row]");
  const open = (link) => link && link.click();
  const keys = {
    "/": () => one("#q").focus(),
    "?": () => one("#keys") && one("#keys").showModal(),
    a: () => (one("#a-amount") ? one("#a-amount").focus() : open(one("[data-key=a]"))),
    x: () => one("#amt") && (one("#amt").focus(), one("#amt").select()),
    j: () => move(1),
    k: () => move(-1),
    f: () => open(here() && here().querySelector("[data-refund]")),
    Enter: () => here() === document.activeElement && open(here().querySelector("a")),
    g: () => { waitsForPage = true; setTimeout(() => { waitsForPage = false; }, 1500); },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest("input, select, textarea, dialog");
    if (field) {
      if (event.key === "Escape" && field.matches("input, select")) field.blur();
      return;
    }
    if (waitsForPage) {
      waitsForPage = false;
      event.preventDefault();
      open(one(`[data-go="${CSS.escape(event.key)}"]`));
      return;
    }
    const run = keys[event.key];
    if (!run) return;
    if (event.key !== "Enter") event.preventDefault();
    run();
  });
  setInterval(() => {
    const now = one("#now");
    if (now && !document.hidden && !now.contains(document.activeElement)) now.dispatchEvent(new Event("refresh"));
  }, 5000);
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(one(`#${button.dataset.copy}`).textContent);
      button.textContent = "Copied";
    });
  }
  const told = one("[role=status][autofocus], [role=alert][autofocus]");
  if (told) told.focus();
})();
